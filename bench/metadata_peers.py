"""Servers that say the same to everyone: KIND FILE DESCRIPTOR..., sockets that listen."""

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"


class Bare(asyncio.Protocol):
    """Takes each packet for a request, and looks at nothing in it."""

    def __init__(self, body: bytes) -> None:
        """`body` is the answer."""
        self._answer = HEAD.format(len(body)).encode() + body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answer)


def serve_with_aiohttp(body: bytes) -> Callable[[], asyncio.Protocol]:
    """Answer with the server on which most of the agent's own stand."""

    async def answer(_: web.BaseRequest) -> web.Response:  # noqa: RUF029 as aiohttp calls it
        return web.Response(body=body, content_type="application/json")

    return web.Server(answer, access_log=None)


async def main() -> None:
    """Serve until the process is ended."""
    kind, file, *descriptors = sys.argv[1:]
    body = Path(file).read_bytes()
    makers = {"asyncio": lambda: lambda: Bare(body), "aiohttp": lambda: serve_with_aiohttp(body)}
    loop, make = asyncio.get_running_loop(), makers[kind]()
    for descriptor in descriptors:
        await loop.create_server(make, sock=socket.socket(fileno=int(descriptor)))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
