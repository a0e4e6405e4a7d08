"""HTTP through a task's network: sessions, and what goes wrong there, in words for everyone.

The words are those of containerd's registry client, which Fargate's reasons quote. Query strings
are never shown: registries sign URLs in them.
"""

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver

from fargate_agent.image.document import MAX_DOCUMENT_BYTES
from fargate_agent.image.sockets import OpenSocket, explain_os_error
from fargate_agent.image.tls import TlsFault, explain_tls
from fargate_agent.image.urls import shown

CONNECT_TIMEOUT_S: Final = 15.0
"""For one address. Half of what containerd allows: an address that takes longer is dead."""

READ_BUFFER_BYTES: Final = 1 << 20
"""As much as is written to containerd at once."""

AddressInfo = tuple[int, int, int, str, tuple[object, ...]]
"""Family, type, protocol, canonical name, address, as of getaddrinfo(3)."""


class TransferError(Exception):
    """A registry, or the way to it, failed. Another try may succeed."""

    retry_after_s: float = 0
    """How long the server asks to wait before the next try."""

    def within(self, what: str) -> Self:
        """Return the same error with a text that begins with `what`."""
        error = type(self)(f"{what}: {self}")
        error.retry_after_s = self.retry_after_s
        return error


class UnreachableError(TransferError):
    """There is no such host, or no connection to it."""


class RefusedError(TransferError):
    """A registry refused. Another try would hear the same."""


class UntrustedError(RefusedError):
    """The server's certificate isn't one that this machine trusts."""


class NoTlsError(RefusedError):
    """The server doesn't speak TLS."""


_KINDS: Final[Mapping[type[Exception], TransferError]] = {
    aiohttp.ConnectionTimeoutError: UnreachableError("dial tcp: i/o timeout"),
    TimeoutError: TransferError("i/o timeout"),
    aiohttp.ServerDisconnectedError: TransferError("EOF"),
    aiohttp.ClientPayloadError: TransferError("unexpected EOF"),
    aiohttp.InvalidURL: RefusedError("malformed URL"),
}
"""The first that fits counts."""

_OF_TLS: Final[Mapping[TlsFault, type[TransferError]]] = {
    TlsFault.BROKEN: TransferError,
    TlsFault.REFUSED: RefusedError,
    TlsFault.UNTRUSTED: UntrustedError,
    TlsFault.NO_TLS: NoTlsError,
}

_TLS_RECORD: Final = "\\x15\\x03"
"""How aiohttp shows the first bytes of a TLS alert in the place of a status line."""


def open_session(
    open_socket: OpenSocket,
    resolver: AbstractResolver,
    inactivity_s: float,
    trusted: ssl.SSLContext | None,
) -> aiohttp.ClientSession:
    """Make a session all of whose sockets are opened by `open_socket`.

    It follows no redirects by itself, keeps no cookies, and unpacks nothing.
    """

    def make_socket(address: AddressInfo) -> socket.socket:
        family, kind, proto, _, _ = address
        return open_socket(family, kind, proto)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=resolver,
            socket_factory=make_socket,
            ssl=trusted or True,
        ),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=inactivity_s
        ),
        headers={"Accept-Encoding": "identity", "User-Agent": "fargate-agent"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=READ_BUFFER_BYTES,
    )


async def read_document(response: aiohttp.ClientResponse) -> bytes:
    """Read a body that must be small.

    Raises:
        TransferError: the connection broke.
        RefusedError: it isn't small.
    """
    data = bytearray()
    with transfer(f"failed to read {shown(response.url)}"):
        while piece := await response.content.readany():
            data += piece
            if len(data) > MAX_DOCUMENT_BYTES:
                raise RefusedError(
                    f"{shown(response.url)} is larger than {MAX_DOCUMENT_BYTES} bytes"
                )
    return bytes(data)


@contextmanager
def transfer(what: str) -> Iterator[None]:
    """Raise a `TransferError` that begins with `what` for whatever the network does to the body."""
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _explain(error).within(what) from error


def _explain(error: Exception) -> TransferError:
    """Say it as Go's network library would. The error's own text is not used: it holds the URL."""
    if (of_tls := _find_tls_error(error)) is not None:
        failure = explain_tls(of_tls)
        return _OF_TLS[failure.fault](failure.text)
    if isinstance(error, aiohttp.ClientConnectorError):
        return UnreachableError(_explain_connection(error))
    for kind, meaning in _KINDS.items():
        if isinstance(error, kind):
            return meaning
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError):
        return TransferError(explain_os_error(cause))
    return _explain_answer(error)


def _explain_connection(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: {error.os_error}"
    return f"dial tcp {error.host}:{error.port}: connect: {explain_os_error(error.os_error)}"


def _explain_answer(error: Exception) -> TransferError:
    text = "malformed HTTP response"
    if isinstance(error, aiohttp.ClientResponseError) and _TLS_RECORD in error.message:
        return RefusedError(f"{text}: the server speaks TLS")
    return TransferError(text)


def _find_tls_error(error: Exception) -> ssl.SSLError | None:
    """Return what OpenSSL said; also when it said so after the connection was made."""
    causes = (error, getattr(error, "certificate_error", None), error.__cause__)
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, aiohttp.ClientError):
            return cause
    return None
