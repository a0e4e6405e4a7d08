"""Netlink requests that the kernel takes its time over, made on a thread of their own.

A netlink request is done while it is being sent, so an event loop that sends it stands still
meanwhile. Nearly all take well under a millisecond. Taking an interface or a packet filter table
away takes 20 to 60 (measured).
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final, NamedTuple

from fargate_agent.network.namespaces import inside

ANSWER_TIMEOUT_S: Final = 10
"""Far above what was measured; after it the kernel is taken to be stuck."""

BUFFER_BYTES: Final = 65_536
"""Answers are cut into pieces of at most 32 KiB. Source: Linux, net/netlink/af_netlink.c."""

NLM_F_REQUEST: Final = 0x01
NLM_F_ACK: Final = 0x04
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
"""Source: Linux, include/uapi/linux/netlink.h."""
RTM_DELLINK: Final = 17
"""Source: Linux, include/uapi/linux/rtnetlink.h."""

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_IFINFO: Final = struct.Struct("=BxHiII")
_ERROR: Final = struct.Struct("=i")
"""Source: Linux, include/uapi/linux/netlink.h, `struct nlmsgerr`."""


class NetlinkError(Exception):
    """The kernel refused a request. Stays inside the drivers; see `fargate_agent.errors`."""

    def __init__(self, what: str, code: int) -> None:
        """Record what was asked, and the kernel's answer as an `errno` number."""
        super().__init__(f"{what}: {os.strerror(code)}")
        self.code = code


class Answer(NamedTuple):
    """One message of the kernel."""

    kind: int
    payload: bytes


@contextmanager
def entering(netns: Path | None) -> Iterator[None]:
    """Run the body, which must not await, in a namespace; None is that of the host.

    Raises:
        NetlinkError: there is no such namespace, or the body met an error of the system.
    """
    what = "open netlink socket" if netns is None else "open network namespace"
    try:
        with inside(netns) if netns else nullcontext():
            yield
    except OSError as error:
        raise NetlinkError(what, error.errno or errno.EIO) from error


def open_netlink(netns: Path | None, protocol: int, kind: int = socket.SOCK_RAW) -> socket.socket:
    """Open a netlink socket in a namespace; None is that of the host.

    Raises:
        NetlinkError: there is no such namespace, or the kernel has no such protocol.
    """
    with entering(netns):
        return socket.socket(socket.AF_NETLINK, kind, protocol)


def render_message(kind: int, flags: int, payload: bytes) -> bytes:
    """Put the netlink header before a payload."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, 0, 0) + payload


def render_attribute(kind: int, value: bytes) -> bytes:
    """Render one attribute of a payload, up to the place where the next may begin."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def ask(link: socket.socket, what: str, request: bytes) -> list[Answer]:
    """Send messages of which exactly one asks for an answer, and return that answer.

    Raises:
        NetlinkError: the kernel refused any of them, or didn't answer in time.
    """
    link.settimeout(ANSWER_TIMEOUT_S)
    answers: list[Answer] = []
    try:
        link.send(request)
        while True:
            for answer in _split(link.recv(BUFFER_BYTES)):
                if answer.kind in {NLMSG_ERROR, NLMSG_DONE}:
                    _check(what, answer)
                    return answers
                answers.append(answer)
    except OSError as error:  # TimeoutError is one
        raise NetlinkError(what, error.errno or errno.ETIMEDOUT) from error


def delete_link(netns: Path | None, index: int) -> None:
    """Take an interface away, and a veth's other end with it; one that is gone is fine.

    Blocks; call it in a thread.

    Raises:
        NetlinkError: the kernel refused, or there is no such namespace.
    """
    request = render_message(
        RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, _IFINFO.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    )
    with open_netlink(netns, socket.NETLINK_ROUTE) as link:
        try:
            ask(link, "remove interface", request)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise


def _split(data: bytes) -> Iterator[Answer]:
    offset = 0
    while offset < len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        yield Answer(kind, data[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


def _check(what: str, answer: Answer) -> None:
    """Raise what an answer refuses; it begins with 0 or a negative `errno` number."""
    (code,) = _ERROR.unpack_from(answer.payload) if answer.payload else (0,)
    if code != 0:
        raise NetlinkError(what, -code)
