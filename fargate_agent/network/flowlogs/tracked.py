"""Flows that the kernel tracks, with what they carried.

All numbers: Linux, include/uapi/linux/netfilter/nfnetlink_conntrack.h, nfnetlink.h and
nfnetlink_compat.h.
"""

import socket
import struct
from collections.abc import Container, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from fargate_agent.network.blocking import (
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NetlinkError,
    ask_bit_by_bit,
    open_netlink,
    read_attributes,
    render_message,
)

ACCOUNTING: Final = Path("/proc/sys/net/netfilter/nf_conntrack_acct")
"""Whether packets and bytes of new flows are counted."""
NETFILTER: Final = 12
_SUBSYSTEM: Final = 1
_GET, _DELETED = _SUBSYSTEM << 8 | 1, _SUBSYSTEM << 8 | 2
_ENDS_GROUP: Final = 3
"""`NFNLGRP_CONNTRACK_DESTROY`."""
_ORIGINAL, _REPLY, _SENT, _ANSWERED, _ID = 1, 2, 9, 10, 12
_ADDRESSES, _PROTOCOL = 1, 2
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_PACKETS, _BYTES = 1, 2
_SIDES: Final = {4: (1, 2), 6: (3, 4)}
_VERSIONS: Final[dict[int, int]] = {int(socket.AF_INET): 4, int(socket.AF_INET6): 6}
_FAMILY: Final = struct.Struct("!BBH")
_MESSAGE: Final = struct.Struct("=IHHII")
BUFFER_BYTES: Final = 4 << 20
_SO_RCVBUFFORCE: Final = 33
RECEIVE_BYTES: Final = 1 << 20


class Side(NamedTuple):
    """One direction of a flow, as its packets are."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int


class Tracked(NamedTuple):
    """One flow, and what it has carried since it began."""

    id: bytes
    """With the first direction, it tells a flow from all others."""
    protocol: int
    original: Side
    reply: Side
    sent: tuple[int, int]
    """Packets and bytes of the one who began it."""
    answered: tuple[int, int]


def dump_flows(addresses: Container[bytes]) -> list[Tracked]:
    """Return the flows from or to some addresses. Blocks, for a millisecond per 100 flows or so.

    Raises:
        NetlinkError: the kernel refused.
    """
    request = render_message(_GET, NLM_F_REQUEST | NLM_F_DUMP, _FAMILY.pack(socket.AF_UNSPEC, 0, 0))
    found = []
    with open_netlink(None, NETFILTER) as link:
        link.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
        for answer in ask_bit_by_bit(link, "list flows", request):
            flow = read_flow(answer.payload, addresses)
            if flow is not None:
                found.append(flow)
    return found


def open_ends() -> socket.socket:
    """Return a socket that hears of every flow that ends; it doesn't block.

    Raises:
        NetlinkError: the kernel tracks no flows.
    """
    link = open_netlink(None, NETFILTER)
    link.settimeout(0)
    try:
        link.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
        link.bind((0, 1 << _ENDS_GROUP - 1))
    except OSError as error:
        link.close()
        raise NetlinkError("listen to ends of flows", error.errno or 0) from error
    return link


def read_ends(data: bytes, addresses: Container[bytes]) -> Iterator[Tracked]:
    """Yield the flows from or to some addresses that have ended."""
    at = 0
    while at + _MESSAGE.size <= len(data):
        length, kind, *_ = _MESSAGE.unpack_from(data, at)
        if kind == _DELETED:
            flow = read_flow(data[at + _MESSAGE.size : at + length], addresses)
            if flow is not None:
                yield flow
        at += max((length + 3) & ~3, _MESSAGE.size)


def read_flow(payload: bytes, addresses: Container[bytes]) -> Tracked | None:
    """Read one flow; None if neither end has one of the addresses."""
    version = _VERSIONS.get(payload[0])
    if version is None:
        return None
    flow = read_attributes(payload[_FAMILY.size :])
    protocol, original = _read_side(flow.get(_ORIGINAL, b""), version)
    _, reply = _read_side(flow.get(_REPLY, b""), version)
    if original.source not in addresses and reply.source not in addresses:
        return None
    return Tracked(
        id=flow.get(_ID, b""),
        protocol=protocol,
        original=original,
        reply=reply,
        sent=_read_counters(flow.get(_SENT, b"")),
        answered=_read_counters(flow.get(_ANSWERED, b"")),
    )


def _read_side(data: bytes, version: int) -> tuple[int, Side]:
    parts = read_attributes(data)
    source, destination = _SIDES[version]
    addresses = read_attributes(parts.get(_ADDRESSES, b""))
    protocol = read_attributes(parts.get(_PROTOCOL, b""))
    side = Side(
        addresses.get(source, b""),
        addresses.get(destination, b""),
        int.from_bytes(protocol.get(_SOURCE_PORT, b"")),
        int.from_bytes(protocol.get(_DESTINATION_PORT, b"")),
    )
    return int.from_bytes(protocol.get(_NUMBER, b"")), side


def _read_counters(data: bytes) -> tuple[int, int]:
    counters = read_attributes(data)
    return int.from_bytes(counters.get(_PACKETS, b"")), int.from_bytes(counters.get(_BYTES, b""))


def show(address: bytes) -> str:
    """Write an address of a flow."""
    return str(ip_address(address))
