"""HTTP through a task's network: sessions, and what goes wrong there, in words for everyone.

The words are those of containerd's registry client, which Fargate's reasons quote. Query strings
are never shown: registries sign URLs in them.
"""

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.typedefs import StrOrURL
from yarl import URL

from fargate_agent.image.document import MAX_DOCUMENT_BYTES
from fargate_agent.image.sockets import OpenSocket, explain_os_error

CONNECT_TIMEOUT_S: Final = 15.0
"""For one address. Half of what containerd allows: an address that takes longer is dead."""

READ_BUFFER_BYTES: Final = 1 << 20
"""As much as is written to containerd at once."""

_TEXTS: Final[Mapping[type[Exception], str]] = {
    aiohttp.ConnectionTimeoutError: "dial tcp: i/o timeout",
    TimeoutError: "i/o timeout",
    aiohttp.ServerDisconnectedError: "EOF",
    aiohttp.ClientPayloadError: "unexpected EOF",
    aiohttp.InvalidURL: "malformed URL",
}
"""The first that fits counts."""

AddressInfo = tuple[int, int, int, str, tuple[object, ...]]
"""Family, type, protocol, canonical name, address, as of getaddrinfo(3)."""


class TransferError(Exception):
    """A registry, or the way to it, failed. Another try may succeed."""


class RefusedError(TransferError):
    """A registry refused. Another try would hear the same."""


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


def shown(url: StrOrURL) -> str:
    """Return the URL without what may be secret."""
    return str(URL(url).with_query(None).with_fragment(None).with_user(None))


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
        raise TransferError(f"{what}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    """Say it as Go's network library would. The error's own text is not used: it holds the URL."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return _explain_connection(error)
    for kind, text in _TEXTS.items():
        if isinstance(error, kind):
            return text
    cause = error if isinstance(error, OSError) else error.__cause__
    return explain_os_error(cause) if isinstance(cause, OSError) else "malformed HTTP response"


def _explain_connection(error: aiohttp.ClientConnectorError) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"dial tcp: {error.os_error}"
        case aiohttp.ClientConnectorCertificateError(certificate_error=cause):
            detail = getattr(cause, "verify_message", "not valid for this host")
            return f"tls: failed to verify certificate: {detail}"
        case aiohttp.ClientConnectorSSLError():
            return "tls: handshake failure"
        case _:
            where = f"{error.host}:{error.port}"
            return f"dial tcp {where}: connect: {explain_os_error(error.os_error)}"
