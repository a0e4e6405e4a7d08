"""The two sockets by which the kernel tells of flows and of refused packets; both block for µs.

The flows that end and the listing of all come by one socket, so that they are read in the order in
which they happened.

Source of all numbers: Linux, include/uapi/linux/netfilter/nfnetlink_conntrack.h, nfnetlink.h.
"""

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final

from fargate_agent.network.blocking import (
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NetlinkError,
    open_netlink,
    render_message,
)
from fargate_agent.network.flow_logs.refused import render_bind, render_unbind
from fargate_agent.network.nft.connection import NETLINK_NETFILTER

FAMILY_BYTES: Final = 4
"""What stands before the attributes of a message."""
NEW, ENDED = 1 << 8, 1 << 8 | 2
"""Kinds of messages: what a listing tells of a flow, and the end of one."""
ANSWER_TIMEOUT_S: Final = 10.0
BUFFER_BYTES: Final = 8 << 20
"""What waits to be read; some 20,000 flows that end, or refused packets."""

_LIST: Final = 1 << 8 | 1
_ENDED_GROUP: Final = 3
_RECEIVE_BYTES: Final = 1 << 17
_SO_RCVBUFFORCE: Final = 33
"""Source: Linux, include/uapi/asm-generic/socket.h."""
_HEADER: Final = struct.Struct("=IHHII")
_ERROR: Final = struct.Struct("=i")

Note = Callable[[int, bytes], None]
"""What is called with the kind of each message, and with what follows its header."""


class LostError(Exception):
    """The kernel had more to tell than the socket could hold."""


def open_flows() -> socket.socket:
    """Return a socket that hears of flows that end, and can be asked for all.

    Raises:
        NetlinkError: the kernel tracks no flows.
    """
    link = _open()
    try:
        link.bind((0, 1 << _ENDED_GROUP - 1))
    except OSError as error:
        link.close()
        raise NetlinkError("listen to flows", error.errno or errno.EIO) from error
    return link


def open_refused(group: int) -> socket.socket:
    """Return a socket that hears of the packets that are passed on to a group.

    Raises:
        NetlinkError: the kernel can't do it, or somebody else listens to that group.
    """
    link = _open()
    try:
        link.settimeout(ANSWER_TIMEOUT_S)
        link.send(render_bind(group))
        for kind, payload in _split(link.recv(_RECEIVE_BYTES)):
            if kind == NLMSG_ERROR and _ERROR.unpack_from(payload)[0]:
                raise OSError(-_ERROR.unpack_from(payload)[0], "")
        link.settimeout(0)
    except OSError as error:  # TimeoutError is one
        link.close()
        what = f"listen to refused packets (group {group} of the kernel's log)"
        raise NetlinkError(what, error.errno or errno.ETIMEDOUT) from error
    return link


def end_refused(link: socket.socket, group: int) -> None:
    """Have the kernel pass on what it has gathered; what it sends can be read until it is closed.

    Raises:
        OSError: the kernel refused.
    """
    link.send(render_unbind(group))


def ask_for_all(link: socket.socket) -> None:
    """Ask for all flows; the last of them is followed by a message of kind `NLMSG_DONE`.

    Raises:
        OSError: the kernel refused.
    """
    link.send(render_message(_LIST, NLM_F_REQUEST | NLM_F_DUMP, bytes([socket.AF_UNSPEC, 0, 0, 0])))


def read_all(link: socket.socket, note: Note) -> None:
    """Read what there is, until there is no more.

    Raises:
        LostError: there was more, which is lost; what is left can be read.
        OSError: the socket is of no use any more.
    """
    while True:
        try:
            data = link.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise LostError from error
            raise
        for kind, payload in _split(data):
            note(kind, payload)


def is_done(kind: int, payload: bytes) -> bool:
    """Whether a message ends a listing.

    Raises:
        NetlinkError: the kernel refused it.
    """
    if kind not in {NLMSG_ERROR, NLMSG_DONE}:
        return False
    code = _ERROR.unpack_from(payload)[0] if payload else 0
    if code:
        raise NetlinkError("list flows", -code)
    return True


def _open() -> socket.socket:
    link = open_netlink(None, NETLINK_NETFILTER)
    link.settimeout(0)
    link.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
    return link


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += max((length + 3) & ~3, _HEADER.size)
