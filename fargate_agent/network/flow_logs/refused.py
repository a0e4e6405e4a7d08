"""Packets that the packet filter has refused, as it passes them on; pure.

The rules are made by `fargate_agent.network.firewall.table`; their prefixes say what was done.

Source of all numbers: Linux, include/uapi/linux/netfilter/nfnetlink_log.h.
"""

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fargate_agent.network.blocking import (
    NLM_F_ACK,
    NLM_F_REQUEST,
    read_attributes,
    render_attribute,
    render_message,
)
from fargate_agent.network.flow_logs.records import UNKNOWN_PORT, Action, LoggedEni, Way
from fargate_agent.network.flow_logs.window import Window
from fargate_agent.network.nft.logged import REFUSED_IN, SKIPPED

SUBSYSTEM: Final = 4
_PACKET, _CONFIG = SUBSYSTEM << 8, SUBSYSTEM << 8 | 1
_COMMAND, _MODE, _TIMEOUT = 1, 2, 4
_BIND, _UNBIND = 1, 2
_COPY_PACKET: Final = 2
_COPIED_BYTES: Final = 256
"""Room for more extension headers than packets of IPv6 have."""
_TIMEOUT_CS: Final = 10
"""For how many hundredths of a second the kernel gathers packets."""
_PAYLOAD, _PREFIX = 9, 10
_HEADER: Final = struct.Struct("!BBH")

_WITH_PORTS: Final = frozenset(
    {socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_SCTP, 33, socket.IPPROTO_UDPLITE}
)
"""33 is DCCP. Source: IANA, protocol numbers."""
_EXTENSIONS: Final = frozenset({0, 43, 51, 60, 135, 139, 140})
_AUTHENTICATION, _FRAGMENT = 51, 44
"""Headers of IPv6 that another one follows. Source: IANA, IPv6 extension header types; RFC 4302,
section 2.2, for the length of the first of these two."""
_PORTS: Final = struct.Struct("!HH")
_V6_HEADER_BYTES: Final = 40


@dataclass(frozen=True, slots=True)
class Refused:
    """One packet."""

    prefix: str
    way: Way
    bytes: int


def render_bind(group: int) -> bytes:
    """Ask for the packets of a group, as much of each as its headers need."""
    copied = struct.pack("!IBB", _COPIED_BYTES, _COPY_PACKET, 0)
    timeout = render_attribute(_TIMEOUT, struct.pack("!I", _TIMEOUT_CS))
    command = render_attribute(_COMMAND, bytes([_BIND]))
    return _render(group, command + render_attribute(_MODE, copied) + timeout)


def render_unbind(group: int) -> bytes:
    """Ask for what was gathered, and for no more."""
    return _render(group, render_attribute(_COMMAND, bytes([_UNBIND])))


def _render(group: int, attributes: bytes) -> bytes:
    header = _HEADER.pack(socket.AF_UNSPEC, 0, group)
    return render_message(_CONFIG, NLM_F_REQUEST | NLM_F_ACK, header + attributes)


def parse_packet(kind: int, payload: bytes) -> Refused | None:
    """Read a message of the kernel; None if it tells of no packet of IP."""
    if kind != _PACKET:
        return None
    found = read_attributes(payload[_HEADER.size :])
    packet = found.get(_PAYLOAD, b"")
    prefix = found.get(_PREFIX, b"").rstrip(b"\0").decode("ascii", "replace")
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return Refused(prefix, _read_v4(packet), int.from_bytes(packet[2:4]))
    if version == 6 and len(packet) >= _V6_HEADER_BYTES:
        return Refused(prefix, _read_v6(packet), _V6_HEADER_BYTES + int.from_bytes(packet[4:6]))
    return None


def _read_v4(packet: bytes) -> Way:
    ports = _read_ports(packet, packet[9], 4 * (packet[0] & 0xF))
    return Way(packet[12:16], packet[16:20], *ports, packet[9])


def _read_v6(packet: bytes) -> Way:
    """Follow the headers as far as they were copied; the last one's number is the protocol."""
    protocol, offset = packet[6], _V6_HEADER_BYTES
    while protocol in _EXTENSIONS and offset + 2 <= len(packet):
        following, units = packet[offset], packet[offset + 1]
        offset += 4 * (units + 2) if protocol == _AUTHENTICATION else 8 * (units + 1)
        protocol = following
    ports = _read_ports(packet, protocol, offset)
    return Way(packet[8:24], packet[24:40], *ports, protocol)


def _read_ports(packet: bytes, protocol: int, offset: int) -> tuple[int, int]:
    if protocol in _EXTENSIONS or protocol == _FRAGMENT:
        return UNKNOWN_PORT, UNKNOWN_PORT
    if protocol not in _WITH_PORTS:
        return 0, 0
    if offset + _PORTS.size > len(packet):
        return UNKNOWN_PORT, UNKNOWN_PORT
    source, destination = _PORTS.unpack_from(packet, offset)
    return source, destination


def note_refused(
    refused: Refused,
    window: Window,
    enis: Mapping[bytes, LoggedEni],
    now_s: float,
    eni_count: int,
) -> None:
    """Count a packet for the ENI that refused it, and for another that had let it out."""
    is_incoming = refused.prefix.startswith(REFUSED_IN)
    way = refused.way
    owner = enis.get(way.destination if is_incoming else way.source)
    if refused.prefix.endswith(SKIPPED):
        window.skip([] if owner is None else [owner.id])
        return
    counted, between_s = (1, refused.bytes), (now_s, now_s)
    if owner is not None:
        window.add(owner.id, Action.REJECT, way, counted, between_s, eni_count)
    sender = enis.get(way.source) if is_incoming else None
    if sender is not None:
        window.add(sender.id, Action.ACCEPT, way, counted, between_s, eni_count)
