"""Hears at once when somebody switches forwarding on or off for the whole host."""

import asyncio
import errno
import logging
import socket
import struct
from contextlib import suppress
from typing import Final

from fargate_agent.network.blocking import read_attributes

log = logging.getLogger(__name__)

SETTLED_AFTER_S: Final = 0.05
"""The kernel says so before it has changed each interface. Source: Linux, net/ipv4/devinet.c,
`inet_forward_change`."""

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_GROUPS: Final = (24, 25)
"""Source: Linux, include/uapi/linux/rtnetlink.h, `RTNLGRP_IPV4_NETCONF`, `RTNLGRP_IPV6_NETCONF`."""
_HEADER: Final = struct.Struct("=IHHII")
_NEW_SETTING: Final = 80
_FAMILY_BYTES: Final = 4
_INTERFACE, _FORWARDING = 1, 2
_ALL: Final = struct.pack("=i", -1)
"""Source: Linux, include/uapi/linux/netconf.h, `struct netconfmsg`, `NETCONFA_…`."""
_BUFFER_BYTES: Final = 1 << 16


class ForwardingWatch:
    """Listens while it is open."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._changed = asyncio.Event()
        self._events: socket.socket | None = None

    def __enter__(self) -> "ForwardingWatch":
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            self._events = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
            self._events.bind((0, 0))
            for group in _GROUPS:
                self._events.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError as error:  # it is looked at from time to time
            log.warning("changes of the host's forwarding aren't heard of: %s", error.strerror)
            self.__exit__()
            return self
        asyncio.get_running_loop().add_reader(self._events, self._hear, self._events)
        return self

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            asyncio.get_running_loop().remove_reader(self._events)
            self._events.close()
            self._events = None

    async def wait(self, timeout_s: float) -> None:
        """Return when somebody has changed it, or after that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
                await asyncio.sleep(SETTLED_AFTER_S)
        self._changed.clear()

    def _hear(self, events: socket.socket) -> None:
        try:
            while data := events.recv(_BUFFER_BYTES):
                if _is_for_all(data):
                    self._changed.set()
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._changed.set()  # some were lost


def _is_for_all(data: bytes) -> bool:
    """Whether one of the messages is about forwarding and no single interface."""
    place = 0
    while place < len(data):
        length, kind, *_ = _HEADER.unpack_from(data, place)
        if kind == _NEW_SETTING:
            found = read_attributes(data[place + _HEADER.size + _FAMILY_BYTES : place + length])
            if found.get(_INTERFACE) == _ALL and _FORWARDING in found:
                return True
        place += (length + 3) & ~3
    return False
