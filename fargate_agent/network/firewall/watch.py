"""Hears of changes of the agent's table that others have made."""

import asyncio
import os
import socket
import struct
from typing import Final

from fargate_agent.network.nft.attributes import read_text
from fargate_agent.network.nft.connection import open_events, read_events

BUFFER_BYTES: Final = 1 << 20

_NEW_GENERATION: Final = 15
"""Ends the messages about one transaction. Source: Linux,
include/uapi/linux/netfilter/nf_tables.h, `NFT_MSG_NEWGEN`."""
_GENERATION_PID: Final = 2
_TABLE_NAME: Final = 1


class Watch:
    """Listens while it is open. A change is one of another process, in any transaction."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._changed = asyncio.Event()
        self._events: socket.socket | None = None
        self._is_touched = False

    def __enter__(self) -> "Watch":
        self._events = open_events()
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
                for kind, _, attributes in read_events(data):
                    if kind == _NEW_GENERATION:
                        self._end(attributes.get(_GENERATION_PID, bytes(4)))
                    elif read_text(attributes.get(_TABLE_NAME, b"")) == self._table:
                        self._is_touched = True
        except BlockingIOError:
            pass
        except OSError:  # ENOBUFS: some were lost
            self._changed.set()

    def _end(self, pid: bytes) -> None:
        touched, self._is_touched = self._is_touched, False
        if touched and struct.unpack("!I", pid)[0] != os.getpid():
            self._changed.set()
