"""Who is connected: how many connections a client may have, and how long one may do nothing.

aiohttp waits without end for the rest of a request's headers, and for an hour for the next request.
Here a connection on which no request is being answered is closed after a time, and a client with
too many of them loses the one that has done nothing for longest. Websockets and streams of events
are requests that are being answered; they have deadlines of their own.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

log = logging.getLogger(__name__)

HEADERS_TIMEOUT_S: Final = 30
"""How long a client may take from the beginning of a request to the end of its headers, and from
its connecting to that. As long as for a body."""
IDLE_TIMEOUT_S: Final = 75
"""How long a connection is kept for the next request. Source: nginx, `keepalive_timeout`."""
_SITE_BITS: Final = 64
"""Of an IPv6 address: who has one of a /64 has all of them."""


class Peers:
    """The connections of a server, by the address of the client."""

    def __init__(self, most: int) -> None:
        """`most` is how many one address may have."""
        self._most = most
        self._by_peer: dict[str, dict[_Connection, None]] = {}
        self._by_transport: dict[asyncio.BaseTransport, _Connection] = {}

    def watch(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Return what makes the protocol of each connection: that of `make`, watched."""
        return lambda: _Connection(self, make())

    @web.middleware
    async def answering(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Leave a connection alone while a request is being answered: a middleware of aiohttp."""
        connection = None
        if request.transport is not None:
            connection = self._by_transport.get(request.transport)
        if connection is None:  # it was lost meanwhile
            return await handler(request)
        connection.begin()
        try:
            return await handler(request)
        finally:
            connection.end()

    def admit(self, connection: "_Connection", transport: asyncio.Transport) -> bool:
        """Count a connection; return whether its client may have it."""
        theirs = self._by_peer.setdefault(connection.peer, {})
        if len(theirs) >= self._most:
            idle = next((other for other in theirs if not other.is_answered), None)
            log.warning(
                "%s has %d connections already: %s is closed",
                connection.peer,
                len(theirs),
                "the new one" if idle is None else "one that does nothing",
            )
            if idle is None:
                return False
            idle.abort()
            theirs = self._by_peer.setdefault(connection.peer, {})
        theirs[connection] = None
        self._by_transport[transport] = connection
        return True

    def note_answer(self, connection: "_Connection") -> None:
        """Put a connection behind those of its client that have done nothing for longer."""
        theirs = self._by_peer.get(connection.peer, {})
        if connection in theirs:
            del theirs[connection]
            theirs[connection] = None

    def forget(self, connection: "_Connection", transport: asyncio.Transport) -> None:
        """Count a connection no more."""
        self._by_transport.pop(transport, None)
        theirs = self._by_peer.get(connection.peer, {})
        theirs.pop(connection, None)
        if not theirs:
            self._by_peer.pop(connection.peer, None)


class _Connection(asyncio.Protocol):
    """Passes everything on to aiohttp's protocol, and closes the connection when it is time."""

    def __init__(self, peers: Peers, inner: asyncio.Protocol) -> None:
        self._peers = peers
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_begun = False
        """Whether some of a request has come, and not all of its headers."""
        self._is_admitted = False
        self.is_answered = False
        """Whether a request of it is being answered."""
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"{transport!r} is no stream")
        self._transport = transport
        self.peer = _name_peer(transport)
        self._is_admitted = self._peers.admit(self, transport)
        if not self._is_admitted:
            transport.abort()
            return
        self._wait(HEADERS_TIMEOUT_S)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._is_admitted:
            return
        if not self.is_answered and not self._is_begun:
            self._is_begun = True
            self._wait(HEADERS_TIMEOUT_S)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._is_admitted else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_admitted:
            return
        self._stop_waiting()
        if self._transport is not None:
            self._peers.forget(self, self._transport)
        self._inner.connection_lost(exc)

    def begin(self) -> None:
        """A request has come and is being answered."""
        self.is_answered, self._is_begun = True, False
        self._stop_waiting()

    def end(self) -> None:
        """It was answered; the client may take its time to read that and to ask again."""
        self.is_answered = False
        self._peers.note_answer(self)
        self._wait(IDLE_TIMEOUT_S)

    def abort(self) -> None:
        """Close the connection at once."""
        self._stop_waiting()
        if self._transport is not None:
            self._peers.forget(self, self._transport)
            self._transport.abort()

    def _wait(self, timeout_s: float) -> None:
        self._stop_waiting()
        if self._transport is not None and not self._transport.is_closing():
            self._timer = asyncio.get_running_loop().call_later(timeout_s, self.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _name_peer(transport: asyncio.Transport) -> str:
    """Return the client's address; of IPv6, the network that it may choose addresses from."""
    address = ipaddress.ip_address(transport.get_extra_info("peername")[0])
    if address.version == 4:
        return str(address)
    mapped = address.ipv4_mapped
    if mapped is not None:
        return str(mapped)
    return str(ipaddress.ip_network((address.packed, _SITE_BITS), strict=False))
