"""The NICs of the host, as ENIs ask for them: by MAC or by name."""

import asyncio
import errno
import re
import socket
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.network.blocking import BUFFER_BYTES, open_netlink
from fargate_agent.network.names import is_of_agent
from fargate_agent.network.netlink import Link

MAX_NICS: Final = 100
"""NICs that are named."""

MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

_ETHERNET: Final = "1"
"""Source: Linux, if_arp.h, ARPHRD_ETHER."""
_LINK_NEWS: Final = 1
"""Source: Linux, include/uapi/linux/rtnetlink.h, RTMGRP_LINK."""


def list_nics(root: Path) -> Iterator[Path]:
    """Yield what of the host an ENI can be or hang on, by its directory in sysfs; blocks."""
    links = sorted((root / "sys/class/net").glob("*"))
    yield from [link for link in links if _is_nic(link)][:MAX_NICS]


def _is_nic(link: Path) -> bool:
    try:
        kind = (link / "type").read_text().strip()
    except OSError:
        return False
    return kind == _ETHERNET and not is_of_agent(link.name)


def find_by_mac(links: Collection[Link], mac: str, but: frozenset[str]) -> Link | None:
    """Return the interface with a MAC, or whose hardware has it; none of the kinds `but`.

    Of several it is the one that is hardware, and part of nothing else.
    """
    found = [
        link
        for link in links
        if mac in {link.mac, link.permanent_mac}
        and link.kind not in but
        and not is_of_agent(link.name)
    ]
    return min(found, key=_rank) if found else None


def _rank(link: Link) -> tuple[int, int, int]:
    return int(link.kind is not None), int(link.master is not None), link.index


class LinkNews:
    """What the kernel says when an interface of the host appears, goes or changes."""

    def __init__(self) -> None:
        """Hear of everything from now on.

        Raises:
            NetlinkError, OSError: the kernel refused.
        """
        self._socket = open_netlink(None, socket.NETLINK_ROUTE)
        try:
            self._socket.settimeout(0)
            self._socket.bind((0, _LINK_NEWS))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> "LinkNews":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    async def wait(self) -> None:
        """Return when there is news that nobody has waited for yet."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_recv(self._socket, BUFFER_BYTES)
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # so much news that some is lost
                raise
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(BUFFER_BYTES)
