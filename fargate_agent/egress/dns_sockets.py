"""The sockets of dnspython, opened inside a task. Source: dnspython, dns/asyncbackend.py."""

import asyncio
import socket
from collections.abc import Awaitable
from typing import Any, TypeVar

import dns.asyncbackend
import dns.exception

from fargate_agent.egress.sockets import OpenSocket

Result = TypeVar("Result")

Address = tuple[Any, ...]
"""Host and port, and with IPv6 flow and scope."""


class TaskSockets(dns.asyncbackend.Backend):
    """Opens the sockets of queries by `open_socket`."""

    def __init__(self, open_socket: OpenSocket) -> None:
        self._open_socket = open_socket

    def name(self) -> str:
        return "asyncio"

    def datagram_connection_required(self) -> bool:
        """Connect sockets of datagrams too: then the kernel says at once that nobody listens."""
        return True

    async def make_socket(  # noqa: PLR0913 - dnspython's signature
        self,
        af: int,
        socktype: int,
        proto: int = 0,
        source: Address | None = None,
        destination: Address | None = None,
        timeout_s: float | None = None,
        ssl_context: object = None,
        server_hostname: str | None = None,
    ) -> dns.asyncbackend.Socket:
        """Return a connected socket. What only DNS over TLS and a chosen source need is not used.

        Raises:
            OSError: the kernel refused the socket or the connection.
            dns.exception.Timeout: the connection took too long.
        """
        del source, ssl_context, server_hostname
        sock = self._open_socket(af, socktype, proto)
        try:
            sock.settimeout(0)
            connecting = asyncio.get_running_loop().sock_connect(sock, destination or ())
            await _within(timeout_s, connecting)
        except BaseException:
            sock.close()
            raise
        return _Datagrams(sock) if socktype == socket.SOCK_DGRAM else _Stream(sock)

    async def sleep(self, interval: float) -> None:
        """Wait before a server is asked again."""
        await asyncio.sleep(interval)


class _Datagrams(dns.asyncbackend.DatagramSocket):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.family, socket.SOCK_DGRAM)
        self._sock = sock

    async def sendto(self, what: bytes, destination: Address, timeout_s: float | None) -> int:
        del destination  # the one that the socket is connected to
        await _within(timeout_s, asyncio.get_running_loop().sock_sendall(self._sock, what))
        return len(what)

    async def recvfrom(self, size: int, timeout_s: float | None) -> tuple[bytes, Address]:
        loop = asyncio.get_running_loop()
        return await _within(timeout_s, loop.sock_recvfrom(self._sock, size))

    async def close(self) -> None:
        self._sock.close()


class _Stream(dns.asyncbackend.StreamSocket):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.family, socket.SOCK_STREAM)
        self._sock = sock

    async def sendall(self, what: bytes, timeout_s: float | None) -> None:
        await _within(timeout_s, asyncio.get_running_loop().sock_sendall(self._sock, what))

    async def recv(self, size: int, timeout_s: float | None) -> bytes:
        return await _within(timeout_s, asyncio.get_running_loop().sock_recv(self._sock, size))

    async def close(self) -> None:
        self._sock.close()


async def _within(timeout_s: float | None, what: Awaitable[Result]) -> Result:
    """Await something; a timeout is told as dnspython wants it, which repeats what timed out."""
    try:
        async with asyncio.timeout(timeout_s):
            return await what
    except TimeoutError as error:
        raise dns.exception.Timeout from error
