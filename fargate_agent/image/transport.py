"""HTTP through a task's network: sessions, and what goes wrong there, in words for everyone.

The words are those of containerd's registry client, which Fargate's reasons quote. Query strings are
never shown: registries sign URLs in them.
"""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.typedefs import StrOrURL
from yarl import URL

from fargate_agent.image.resolver import LookupFailedError, OpenSocket

CONNECT_TIMEOUT_S: Final = 15.0
"""For one address. Half of what containerd allows: an address that takes longer is dead."""

READ_BUFFER_BYTES: Final = 1 << 20
"""As much as is written to containerd at once."""

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


@contextmanager
def transfer(what: str) -> Iterator[None]:
    """Raise a `TransferError` that begins with `what` for whatever the network does to the body."""
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise TransferError(f"{what}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    """Say it as Go's network library would. Never quotes the error's own text: it holds the URL."""
    match error:
        case aiohttp.ClientConnectorDNSError(os_error=LookupFailedError() as cause):
            return f"dial tcp: {cause}"
        case aiohttp.ClientConnectorCertificateError(certificate_error=cause):
            return f"tls: failed to verify certificate: {_verify_message(cause)}"
        case aiohttp.ClientConnectorSSLError():
            return "tls: handshake failed"
        case aiohttp.ClientConnectorError(host=host, port=port, os_error=cause):
            return f"dial tcp {host}:{port}: connect: {_strerror(cause)}"
        case aiohttp.ConnectionTimeoutError():
            return "dial tcp: i/o timeout"
        case aiohttp.ServerDisconnectedError():
            return "EOF"
        case aiohttp.ClientPayloadError():
            return _explain_payload(error)
        case TimeoutError():
            return "i/o timeout"
        case OSError():
            return _strerror(error)
        case aiohttp.ClientResponseError():
            return "malformed HTTP response"
        case _:
            return "malformed URL or response"


def _explain_payload(error: Exception) -> str:
    cause = error.__cause__
    return f"read: {_strerror(cause)}" if isinstance(cause, OSError) else "unexpected EOF"


def _strerror(error: OSError) -> str:
    return (error.strerror or "connection failed").lower()


def _verify_message(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.lower()
    return "certificate is not valid for this host"
