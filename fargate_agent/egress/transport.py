"""What goes wrong with HTTP, in words for everyone.

The words are those of containerd's registry client, which Fargate's reasons quote. Query strings
are never shown: registries sign URLs in them.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final, Self

import aiohttp

from fargate_agent.egress.sockets import explain_os_error
from fargate_agent.egress.tls import TlsFault, explain_tls
from fargate_agent.egress.urls import shown


class TransferError(Exception):
    """A server, or the way to it, failed. Another try may succeed."""

    retry_after_s: float = 0
    """How long the server asks to wait before the next try."""

    def within(self, what: str) -> Self:
        """Return the same error with a text that begins with `what`."""
        error = type(self)(f"{what}: {self}")
        error.__dict__.update(self.__dict__)
        return error


class UnreachableError(TransferError):
    """There is no such host, or no connection to it."""


class RefusedError(TransferError):
    """The server refused. Another try would hear the same."""


class UntrustedError(RefusedError):
    """The server's certificate is of an authority that isn't trusted."""


class NoTlsError(RefusedError):
    """The server doesn't speak TLS."""


class ProxyRefusedError(RefusedError):
    """A proxy refused to connect to the server."""

    status: int = 0
    """What the proxy answered."""


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


async def read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read a whole body.

    Raises:
        TransferError: the connection broke.
        RefusedError: it is larger than `max_bytes`.
    """
    data = bytearray()
    with transfer(f"failed to read {shown(response.url)}"):
        while piece := await response.content.readany():
            data += piece
            if len(data) > max_bytes:
                raise RefusedError(f"{shown(response.url)} is larger than {max_bytes} bytes")
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


def explain_proxy(status: int, reason: str) -> TransferError:
    """Return what an answer of a proxy means that isn't the server's."""
    said = f"the proxy answered {status} {shown(reason)[:100]}".rstrip()
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        return TransferError(said)
    error = ProxyRefusedError(said)
    error.status = status
    return error


def _explain_connection(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: {error.os_error}"
    return f"dial tcp {error.host}:{error.port}: connect: {explain_os_error(error.os_error)}"


def _explain_answer(error: Exception) -> TransferError:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return explain_proxy(error.status, error.message)
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
