"""Packets that security groups have refused, as the packet filter hands over copies of them.

All numbers: Linux, include/uapi/linux/netfilter/nfnetlink_log.h.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from fargate_agent.network.blocking import (
    NLM_F_ACK,
    NLM_F_REQUEST,
    NetlinkError,
    ask,
    open_netlink,
    read_attributes,
    render_attribute,
    render_message,
)
from fargate_agent.network.firewall.table import SNAPPED_BYTES
from fargate_agent.network.flowlogs.tracked import NETFILTER

_SUBSYSTEM: Final = 4
_PACKET, _CONFIGURE = _SUBSYSTEM << 8, _SUBSYSTEM << 8 | 1
_COMMAND, _MODE, _TIMEOUT, _BIND = 1, 2, 4, 1
_HELD_CS: Final = 10
"""How long the kernel gathers packets, in hundredths of a second."""
_COPY_PACKET: Final = 2
_PAYLOAD, _PREFIX = 9, 10
_HEADER: Final = struct.Struct("!BBH")
_MESSAGE: Final = struct.Struct("=IHHII")
_SO_RCVBUFFORCE: Final = 33
BUFFER_BYTES: Final = 1 << 20


class Refused(NamedTuple):
    """One packet."""

    is_ingress: bool
    """Whether the receiver's groups refused it, else the sender's."""
    packet: bytes
    """Its beginning."""


def open_refused(group: int) -> socket.socket:
    """Return a socket that is handed what the filter logs to a group; it doesn't block.

    Raises:
        NetlinkError: somebody else listens to the group, or the kernel can't do it.
    """
    link = open_netlink(None, NETFILTER)
    try:
        link.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
        head = _HEADER.pack(socket.AF_UNSPEC, 0, group)
        for attribute in (
            render_attribute(_COMMAND, bytes([_BIND])),
            render_attribute(_MODE, struct.pack("!IBx", SNAPPED_BYTES, _COPY_PACKET)),
            render_attribute(_TIMEOUT, struct.pack("!I", _HELD_CS)),
        ):
            request = render_message(_CONFIGURE, NLM_F_REQUEST | NLM_F_ACK, head + attribute)
            ask(link, f"listen to log group {group}", request)
        link.settimeout(0)
    except OSError as error:
        link.close()
        raise NetlinkError("listen to refused packets", error.errno or errno.EIO) from error
    except NetlinkError:
        link.close()
        raise
    return link


def read_refused(data: bytes) -> Iterator[Refused]:
    """Yield the packets in what a socket was handed."""
    at = 0
    while at + _MESSAGE.size <= len(data):
        length, kind, *_ = _MESSAGE.unpack_from(data, at)
        if kind == _PACKET:
            body = data[at + _MESSAGE.size + _HEADER.size : at + length]
            attributes = read_attributes(body)
            yield Refused(
                attributes.get(_PREFIX, b"").startswith(b"i"), attributes.get(_PAYLOAD, b"")
            )
        at += max((length + 3) & ~3, _MESSAGE.size)
