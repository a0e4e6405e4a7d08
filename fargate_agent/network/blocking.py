"""Netlink requests that the kernel takes its time over, made on a thread of their own.

A netlink request is done while it is being sent, so an event loop that sends it stands still
meanwhile. Nearly all take well under a millisecond. Taking an interface or a packet filter table
away takes 20 to 60 (measured).
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple

from fargate_agent.network.namespaces import inside

if TYPE_CHECKING:  # as in `namespaces`
    from pathlib import Path

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
_KIND: Final = 0x3FFF
"""What of an attribute's number is not a flag. Source: Linux, include/uapi/linux/netlink.h,
`NLA_TYPE_MASK`."""
_ERROR: Final = struct.Struct("=i")
"""Source: Linux, include/uapi/linux/netlink.h, `struct nlmsgerr`."""


class NetlinkError(Exception):
    """The kernel refused a request. Stays inside the drivers; see `fargate_agent.errors`."""

    def __init__(self, what: str, code: int) -> None:
        """Record what was asked, and the kernel's answer as an `errno` number."""
        super().__init__(f"{what}: {os.strerror(code)}")
        self.code = code


class Request(NamedTuple):
    """One message of several that go in one send."""

    what: str
    """What it does, for the error."""
    message: bytes
    fine: frozenset[int] = frozenset()
    """Refusals that are as good as success, as `errno` numbers."""


class Answer(NamedTuple):
    """One message of the kernel."""

    kind: int
    payload: bytes


@contextmanager
def entering(netns: "Path | str | None") -> Iterator[None]:
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


def open_netlink(
    netns: "Path | str | None", protocol: int, kind: int = socket.SOCK_RAW
) -> socket.socket:
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
    return list(ask_bit_by_bit(link, what, request))


def ask_bit_by_bit(link: socket.socket, what: str, request: bytes) -> Iterator[Answer]:
    """Do the same, for answers that are large: yield their messages as they come.

    Raises:
        NetlinkError: the kernel refused any of them, or didn't answer in time.
    """
    link.settimeout(ANSWER_TIMEOUT_S)
    try:
        link.send(request)
        while True:
            for answer in _split(link.recv(BUFFER_BYTES)):
                if answer.kind in {NLMSG_ERROR, NLMSG_DONE}:
                    _check(what, answer)
                    return
                yield answer
    except OSError as error:  # TimeoutError is one
        raise NetlinkError(what, error.errno or errno.ETIMEDOUT) from error


def ask_each(link: socket.socket, requests: Sequence[Request]) -> list[int]:
    """Send all messages at once, and read what the kernel says of each.

    One that is refused doesn't keep the kernel from those after it. Returns an `errno` number for
    each, 0 where it was done.

    Raises:
        NetlinkError: the kernel didn't answer in time.
    """
    codes = [0] * len(requests)
    link.settimeout(ANSWER_TIMEOUT_S)
    try:
        link.send(b"".join(_number_messages([one.message for one in requests])))
        while True:
            for kind, number, payload in _split_numbered(link.recv(BUFFER_BYTES)):
                if kind == NLMSG_ERROR and 0 < number <= len(requests):
                    codes[number - 1] = -_ERROR.unpack_from(payload)[0]
                    if number == len(requests):
                        return codes
    except OSError as error:  # TimeoutError is one
        raise NetlinkError(requests[-1].what, error.errno or errno.ETIMEDOUT) from error


def require_each(link: socket.socket, requests: Sequence[Request]) -> None:
    """Send all messages at once.

    Raises:
        NetlinkError: the kernel refused one; the first of those is told.
    """
    for request, code in zip(requests, ask_each(link, requests), strict=True):
        if code not in request.fine | {0}:
            raise NetlinkError(request.what, code)


def delete_link(netns: "Path | str | None", index: int) -> None:
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


def _number_messages(messages: Sequence[bytes]) -> Iterator[bytes]:
    """Number them from 1 on; only the last asks for an answer in any case."""
    for number, message in enumerate(messages, start=1):
        size, kind, flags, _, port = _HEADER.unpack_from(message)
        if number == len(messages):
            flags |= NLM_F_ACK
        yield _HEADER.pack(size, kind, flags, number, port) + message[_HEADER.size :]


def _split(data: bytes) -> Iterator[Answer]:
    for kind, _, payload in _split_numbered(data):
        yield Answer(kind, payload)


def _split_numbered(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset < len(data):
        length, kind, _, number, _ = _HEADER.unpack_from(data, offset)
        yield kind, number, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def read_attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes of a payload by number; of several with one number the last."""
    found, offset = {}, 0
    while offset + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        found[kind & _KIND] = data[offset + _ATTRIBUTE.size : offset + size]
        offset += max((size + 3) & ~3, _ATTRIBUTE.size)
    return found


def _check(what: str, answer: Answer) -> None:
    """Raise what an answer refuses; it begins with 0 or a negative `errno` number."""
    (code,) = _ERROR.unpack_from(answer.payload) if answer.payload else (0,)
    if code != 0:
        raise NetlinkError(what, -code)
