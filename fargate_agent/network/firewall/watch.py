"""Hears of changes of the agent's table that others have made."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.nft.attributes import read_text
from fargate_agent.network.nft.connection import open_events, read_events

log = logging.getLogger(__name__)

BUFFER_BYTES: Final = 1 << 20

_TABLE_NAME: Final = 1


class Watch:
    """Listens while it is open."""

    def __init__(self, table: str, find_own_port: Callable[[], int | None]) -> None:
        """`find_own_port` returns the number of the socket whose changes are the agent's."""
        self._table = table
        self._find_own_port = find_own_port
        self._changed = asyncio.Event()
        self._events: socket.socket | None = None

    def __enter__(self) -> "Watch":
        try:
            self._events = open_events()
        except NetlinkError as error:  # `wait` never returns; no ENI is attached without a filter
            log.warning("changes of the packet filter aren't heard of: %s", error)
            return self
        asyncio.get_running_loop().add_reader(self._events, self._hear, self._events)
        return self

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            asyncio.get_running_loop().remove_reader(self._events)
            self._events.close()
            self._events = None

    async def wait(self) -> None:
        """Return when somebody else has changed the table."""
        await self._changed.wait()
        self._changed.clear()

    def repeat(self) -> None:
        """Have `wait` return once more."""
        self._changed.set()

    def _hear(self, events: socket.socket) -> None:
        try:
            while data := events.recv(BUFFER_BYTES):
                own = self._find_own_port()
                for port, attributes in read_events(data):
                    name = read_text(attributes.get(_TABLE_NAME, b""))
                    if name == self._table and port != own:
                        self._changed.set()
        except BlockingIOError:
            pass
        except OSError:  # ENOBUFS: some were lost
            self._changed.set()
