"""Datagrams that come through a socket bound to a task's interface, whatever address they are to.

Source: Linux, ip(7), `IP_PKTINFO`; socket(7), `SO_TIMESTAMPNS`.
"""

import socket
import struct
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_BYTES: Final = 4096
"""Of a datagram; the rest is cut off. A query has some hundred."""
AT_ONCE: Final = 16
"""How many are read before others have their turn."""

_SO_TIMESTAMPNS: Final = 35
"""Source: Linux, include/uapi/asm-generic/socket.h. The `socket` module has no name for it."""
_IP_PKTINFO: Final = 8
"""Source: Linux, include/uapi/linux/in.h."""
_PKTINFO: Final = struct.Struct("@i4s4s")
_TIMESPEC: Final = struct.Struct("@qq")
_CONTROL_BYTES: Final = socket.CMSG_SPACE(_PKTINFO.size) + socket.CMSG_SPACE(_TIMESPEC.size)


class Datagram(NamedTuple):
    """What came, when, and how it is answered."""

    payload: bytes
    peer: tuple[str, int]
    to: bytes
    """The address that it was sent to, 4 bytes."""
    received_ns: int
    """Since 1970, by the kernel's clock."""


def prepare(bound: socket.socket) -> None:
    """Have a socket tell what `Datagram` holds.

    Raises:
        OSError: the kernel refused.
    """
    bound.setblocking(False)  # noqa: FBT003 - the standard library's
    bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    bound.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def read_datagrams(bound: socket.socket, most: int) -> Iterator[Datagram]:
    """Yield what has come, up to `most`; what isn't read now is read next time."""
    for _ in range(min(most, AT_ONCE)):
        try:
            payload, control, _, peer = bound.recvmsg(MAX_BYTES, _CONTROL_BYTES)
        except OSError:  # nothing more, or an error that belongs to an answer of before
            return
        told = {(level, kind): data for level, kind, data in control}
        to = told.get((socket.IPPROTO_IP, _IP_PKTINFO))
        at = told.get((socket.SOL_SOCKET, _SO_TIMESTAMPNS))
        if to is None or len(to) < _PKTINFO.size:
            continue
        seconds, ns = _TIMESPEC.unpack_from(at) if at else divmod(time.time_ns(), 10**9)
        yield Datagram(payload, peer, _PKTINFO.unpack_from(to)[2], seconds * 10**9 + ns)


def send_answer(bound: socket.socket, asked: Datagram, payload: bytes) -> None:
    """Answer from the address that was asked. What can't be sent at once is dropped."""
    info = _PKTINFO.pack(0, asked.to, bytes(4))
    try:
        bound.sendmsg([payload], [(socket.IPPROTO_IP, _IP_PKTINFO, info)], 0, asked.peer)
    except OSError:
        return  # the client asks again
