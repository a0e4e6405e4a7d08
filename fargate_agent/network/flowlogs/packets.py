"""What a refused packet was, read from its first bytes. Pure.

Source: RFC 791, RFC 8200.
"""

import struct
from ipaddress import ip_address
from typing import Final

from fargate_agent.network.flowlogs.records import Flow

_V4_BYTES, _V6_BYTES = 20, 40
_HAVE_PORTS: Final = frozenset({6, 17, 33, 132, 136})
"""TCP, UDP, DCCP, SCTP, UDP-Lite."""
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _OPTIONS = 0, 43, 44, 51, 60
_EXTENSIONS: Final = frozenset({_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _OPTIONS})
_PORTS: Final = struct.Struct("!HH")


def read_packet(packet: bytes) -> tuple[Flow, int] | None:
    """Return the flow that a packet is of, and its size in bytes; None if it is no packet.

    Ports that can't be seen are 0, as of protocols without ports.
    """
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= _V4_BYTES:
        return _read_v4(packet)
    if version == 6 and len(packet) >= _V6_BYTES:
        return _read_v6(packet)
    return None


def _read_v4(packet: bytes) -> tuple[Flow, int]:
    protocol, is_first = packet[9], not int.from_bytes(packet[6:8]) & 0x1FFF
    ports = _read_ports(packet, (packet[0] & 15) * 4, protocol) if is_first else (0, 0)
    addresses = str(ip_address(packet[12:16])), str(ip_address(packet[16:20]))
    return Flow(*addresses, *ports, protocol), int.from_bytes(packet[2:4])


def _read_v6(packet: bytes) -> tuple[Flow, int]:
    """Walk over headers before the transport's, as far as they were seen."""
    protocol, at, is_first = packet[6], _V6_BYTES, True
    while protocol in _EXTENSIONS and at + 8 <= len(packet):
        size = (packet[at + 1] + 1) * 8
        if protocol == _FRAGMENT:
            size, is_first = 8, not int.from_bytes(packet[at + 2 : at + 4]) & 0xFFF8
        elif protocol == _AUTHENTICATION:
            size = (packet[at + 1] + 2) * 4
        protocol, at = packet[at], at + size
    ports = _read_ports(packet, at, protocol) if is_first else (0, 0)
    addresses = str(ip_address(packet[8:24])), str(ip_address(packet[24:40]))
    return Flow(*addresses, *ports, protocol), int.from_bytes(packet[4:6]) + _V6_BYTES


def _read_ports(packet: bytes, at: int, protocol: int) -> tuple[int, int]:
    if protocol not in _HAVE_PORTS or at + _PORTS.size > len(packet):
        return 0, 0
    source, destination = _PORTS.unpack_from(packet, at)
    return source, destination
