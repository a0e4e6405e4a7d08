"""The name servers of this machine, which are asked what a VPC doesn't know itself.

They are asked from the machine's own network, so a resolver on its loopback is one of them.
"""

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable
from typing import Final

from fargate_agent.vpc.messages import HEADER_BYTES, is_reply_to, is_useful, set_id

log = logging.getLogger(__name__)

PORT: Final = 53
SERVER_TIMEOUT_S: Final = 2.0
"""For one server. A client waits 5 s for all. Source: resolv.conf(5), `timeout`."""
ROUNDS: Final = 2
MAX_SERVERS: Final = 3
"""Source: resolv.conf(5), `MAXNS`."""
DEADLINE_S: Final = 9.0
READ_AGAIN_AFTER_S: Final = 5.0
READ_TIMEOUT_S: Final = 2.0
MAX_REPLY_BYTES: Final = 65_535


class UpstreamError(Exception):
    """No server of this machine has answered."""


class Upstream:
    """Asks servers in order, each again when all have failed."""

    def __init__(self, read_servers: Callable[[], tuple[str, ...]], port: int = PORT) -> None:
        """`read_servers` returns addresses, and may block."""
        self._read_servers = read_servers
        self._port = port
        self._servers: list[str] = []
        self._read_at_s = float("-inf")
        self._reading = asyncio.Lock()

    async def ask(self, query: bytes, *, by_tcp: bool = False) -> bytes:
        """Return the reply to a query that is whole and has one question, with the query's id.

        Raises:
            UpstreamError: nobody answered in time, or this machine has no server.
        """
        refused: bytes | None = None
        ask = self._ask_by_tcp if by_tcp else self._ask_by_udp
        why = "this machine has no name server"
        try:
            async with asyncio.timeout(DEADLINE_S):
                servers = await self._find_servers()
                for server in servers * ROUNDS:
                    sent = set_id(query, secrets.randbits(16))
                    try:
                        async with asyncio.timeout(SERVER_TIMEOUT_S):
                            reply = await ask(server, sent)
                    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                        why = str(error) or "no answer"
                        continue
                    reply = set_id(reply, int.from_bytes(query[:2]))
                    if is_useful(reply):
                        return reply
                    refused = reply
        except TimeoutError:
            why = "no answer"
        if refused is not None:
            return refused
        raise UpstreamError(why)

    async def _find_servers(self) -> list[str]:
        """Return the servers, as they were a few seconds ago at most."""
        async with self._reading:
            if time.monotonic() - self._read_at_s >= READ_AGAIN_AFTER_S:
                try:
                    async with asyncio.timeout(READ_TIMEOUT_S):
                        found = await asyncio.to_thread(self._read_servers)
                    self._servers = list(found[:MAX_SERVERS])
                except (TimeoutError, OSError) as error:
                    log.warning(
                        "name servers of this machine not read: %s", str(error) or "no answer"
                    )
                self._read_at_s = time.monotonic()
        return self._servers

    async def _ask_by_udp(self, server: str, query: bytes) -> bytes:
        """Return the first datagram of the server that answers this query."""
        loop = asyncio.get_running_loop()
        family, address = _resolve(server, self._port, socket.SOCK_DGRAM)
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.setblocking(False)  # noqa: FBT003 - the standard library's
            asking.connect(address)
            await loop.sock_sendall(asking, query)
            while True:
                reply = await loop.sock_recv(asking, MAX_REPLY_BYTES)
                if is_reply_to(reply, query):
                    return reply

    async def _ask_by_tcp(self, server: str, query: bytes) -> bytes:
        """Return the reply of the server. Source: RFC 7766, 8."""
        _, address = _resolve(server, self._port, socket.SOCK_STREAM)
        reader, writer = await asyncio.open_connection(address[0], self._port)
        try:
            writer.write(len(query).to_bytes(2) + query)
            await writer.drain()
            while True:
                size = int.from_bytes(await reader.readexactly(2))
                reply = await reader.readexactly(size)
                if size >= HEADER_BYTES and is_reply_to(reply, query):
                    return reply
        finally:
            writer.transport.abort()


def _resolve(server: str, port: int, kind: socket.SocketKind) -> tuple[int, tuple[str, int]]:
    """Return family and socket address of a server: an address, of IPv6 perhaps with a zone."""
    family, _, _, _, address = socket.getaddrinfo(
        server, port, type=kind, flags=socket.AI_NUMERICHOST
    )[0]
    return family, address  # type: ignore[return-value]  # of IPv6 it has two numbers more
