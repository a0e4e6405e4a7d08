"""Sends messages to the packet filter, many in one transaction: all are done, or none."""

import errno
import socket
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from fargate_agent.network.blocking import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    Answer,
    NetlinkError,
    ask,
    open_netlink,
)
from fargate_agent.network.nft.attributes import read_attributes, read_text
from fargate_agent.network.nft.objects import (
    GET_CHAIN,
    GET_RULE,
    GET_TABLE,
    SUBSYSTEM,
    USERDATA,
    batch_edge,
    message,
)

if TYPE_CHECKING:  # programs that end within milliseconds use this: it takes two to load
    from pathlib import Path

NETLINK_NETFILTER: Final = 12
"""Source: Linux, include/uapi/linux/netlink.h; Python names it from 3.12 on."""
EVENTS_GROUP: Final = 7
"""Source: Linux, include/uapi/linux/netfilter/nfnetlink.h, `NFNLGRP_NFTABLES`."""
ANSWER_TIMEOUT_S: Final = 10
RECEIVE_BYTES: Final = 65_536

ANSWERS_FACTOR: Final = 8
"""A refused message of 60 bytes has an answer that takes 768; the kernel doubles what it is told.
Source: Linux, net/core/sock.c, `SO_RCVBUFFORCE`."""

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_HEADER: Final = struct.Struct("=IHHII")
_ERROR: Final = struct.Struct("=i")
_SEQUENCE: Final = struct.Struct("=I")
_SEQUENCE_OFFSET: Final = 8
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
"""Source: Linux, include/uapi/asm-generic/socket.h."""
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10
"""Answers without the message that they are for. Source: Linux, include/linux/socket.h,
include/uapi/linux/netlink.h."""
_FAMILY_BYTES: Final = 4


class Nft:
    """A socket to the packet filter of one network namespace.

    Its methods block: a small transaction for some 50 µs, one that removes for up to 20 ms.
    """

    def __init__(self, netns: "Path | str | None" = None) -> None:
        """Open it in a namespace; None is that of the host.

        Raises:
            NetlinkError: there is no such namespace, or the kernel has no packet filter.
        """
        self._socket = open_netlink(netns, NETLINK_NETFILTER)
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._sequence = 0
        self._sent_bytes = 0

    def __enter__(self) -> "Nft":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; tables that it owns go, unless they persist."""
        self._socket.close()

    @property
    def port(self) -> int:
        """The number by which the kernel names this socket where it tells of changes."""
        port: int = self._socket.getsockname()[0]
        return port

    def transact(self, what: str, messages: Iterable[bytes]) -> None:
        """Do all of the messages, or none.

        Raises:
            NetlinkError: the kernel refused one of them; `what` names it.
        """
        rendered = [one for one in messages if one]
        if not rendered:
            return  # nothing is to be done
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        data = self._number([batch_edge(_BATCH_BEGIN), *rendered], batch_edge(_BATCH_END))
        self._make_room(len(data))
        try:
            self._socket.send(data)
            self._read_end(what)
        except OSError as error:  # TimeoutError is one
            self._skip_rest()
            raise NetlinkError(what, error.errno or errno.ETIMEDOUT) from error

    def dump(self, what: str, kind: int, family: int = 0) -> list[Answer]:
        """Return all objects of a kind.

        Raises:
            NetlinkError: the kernel refused.
        """
        return ask(self._socket, what, message(kind, NLM_F_REQUEST | NLM_F_DUMP, b"", family))

    def tables(self) -> list[tuple[int, str]]:
        """Return family and name of every table.

        Raises:
            NetlinkError: the kernel refused.
        """
        answers = self.dump("list packet filter tables", GET_TABLE)
        return [(a.payload[0], read_text(_attributes(a)[1])) for a in answers]

    def comments(self) -> dict[tuple[int, str], str]:
        """Return the comments of tables that have one, by family and name.

        Raises:
            NetlinkError: the kernel refused.
        """
        answers = self.dump("list packet filter tables", GET_TABLE)
        tables = [(a.payload[0], _attributes(a)) for a in answers]
        return {
            (family, read_text(found[1])): read_text(found[USERDATA][2:])
            for family, found in tables
            if USERDATA in found
        }

    def chains(self) -> list[tuple[int, dict[int, bytes]]]:
        """Return family and attributes of every chain.

        Raises:
            NetlinkError: the kernel refused.
        """
        answers = self.dump("list packet filter chains", GET_CHAIN)
        return [(a.payload[0], _attributes(a)) for a in answers]

    def rules(self) -> list[tuple[int, dict[int, bytes]]]:
        """Return family and attributes of every rule.

        Raises:
            NetlinkError: the kernel refused.
        """
        answers = self.dump("list packet filter rules", GET_RULE)
        return [(a.payload[0], _attributes(a)) for a in answers]

    def _number(self, messages: list[bytes], end: bytes) -> bytes:
        """Give all messages the number of the transaction, and have the last but the end answered.

        Errors come for any message, success only for that one, when all is done. The end of a
        batch is acknowledged since Linux 6.10. Source: Linux, net/netfilter/nfnetlink.c.
        """
        data = bytearray().join([*messages, end])
        offset = last = 0
        while offset < len(data) - len(end):
            last = offset
            _SEQUENCE.pack_into(data, offset + _SEQUENCE_OFFSET, self._sequence)
            offset += (_HEADER.unpack_from(data, offset)[0] + 3) & ~3
        _SEQUENCE.pack_into(data, offset + _SEQUENCE_OFFSET, self._sequence)
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, last)
        _HEADER.pack_into(data, last, length, kind, flags | NLM_F_ACK, sequence, port)
        return bytes(data)

    def _make_room(self, size_bytes: int) -> None:
        """Have the kernel take as much at once, and answer for each part, beyond its limits."""
        if size_bytes > self._sent_bytes:
            self._sent_bytes = max(size_bytes, 128 * 1024)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * self._sent_bytes)
            answers_bytes = ANSWERS_FACTOR * self._sent_bytes
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, answers_bytes)

    def _read_end(self, what: str) -> None:
        """Read until the last message was acknowledged, or one refused; raise that refusal."""
        while True:
            data = self._socket.recv(RECEIVE_BYTES)
            offset = 0
            while offset < len(data):
                length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
                if kind in {NLMSG_ERROR, NLMSG_DONE} and sequence == self._sequence:
                    (code,) = _ERROR.unpack_from(data, offset + _HEADER.size)
                    if code != 0:
                        self._skip_rest()
                        raise NetlinkError(what, -code)
                    return
                offset += (length + 3) & ~3

    def _skip_rest(self) -> None:
        """Forget what the kernel says of further messages of a refused transaction."""
        self._socket.settimeout(0)
        try:
            while True:
                try:
                    self._socket.recv(RECEIVE_BYTES)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # some were lost
                        return
        finally:
            self._socket.settimeout(ANSWER_TIMEOUT_S)


def open_events() -> socket.socket:
    """Return a socket that hears of every change of the host's tables; it doesn't block.

    Raises:
        NetlinkError: the kernel has no packet filter.
    """
    link = open_netlink(None, NETLINK_NETFILTER)
    link.settimeout(0)
    try:
        link.bind((0, 1 << EVENTS_GROUP - 1))
    except OSError as error:
        link.close()
        raise NetlinkError("listen to the packet filter", error.errno or errno.EIO) from error
    return link


def read_events(data: bytes) -> list[tuple[int, dict[int, bytes]]]:
    """Return the attributes of what was changed in the packet filter, and by which socket."""
    found = []
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _, _, port = _HEADER.unpack_from(data, offset)
        body = data[offset + _HEADER.size : offset + length]
        if kind >> 8 == SUBSYSTEM and len(body) >= _FAMILY_BYTES:
            found.append((port, read_attributes(body[_FAMILY_BYTES:])))
        offset += (length + 3) & ~3
    return found


def _attributes(answer: Answer) -> dict[int, bytes]:
    return read_attributes(answer.payload[_FAMILY_BYTES:])
