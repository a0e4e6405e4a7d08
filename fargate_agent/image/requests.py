"""Requests to registries, token services and blob stores, one at a time, and where they lead.

Which hosts may be asked without TLS is decided here, for redirects too.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import aiohttp
from yarl import URL

from fargate_agent.egress.transport import (
    NoTlsError,
    RefusedError,
    UntrustedError,
    transfer,
)
from fargate_agent.egress.urls import host_of, resolve_url, shown

MAX_HOPS: Final = 10
"""Redirects and demands to log in that one request may meet. Source: Go, net/http, `Client`."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Requests:
    """Sends the requests of one pull."""

    def __init__(self, session: aiohttp.ClientSession, insecure: frozenset[str]) -> None:
        """Talk without TLS to the hosts in `insecure`, and to no other."""
        self._session = session
        self._insecure = insecure

    async def send(
        self, method: str, url: URL, headers: Mapping[str, str], what: str
    ) -> aiohttp.ClientResponse:
        """Send one request; the caller releases the answer. `what` begins the text of errors.

        Raises:
            TransferError: no answer came.
            RefusedError: the server may not be asked so, or can't be.
        """
        host = host_of(url)
        if url.scheme != "https" and host not in self._insecure:
            raise RefusedError(
                f"{what}: {shown(url)}: {host} is not listed as an insecure registry; "
                f"{_list_it(host)}"
            )
        with _advise(host), transfer(f'{what}: {method.title()} "{shown(url)}"'):
            return await self._session.request(method, url, headers=headers, allow_redirects=False)


def redirect_target(response: aiohttp.ClientResponse) -> URL | None:
    """Return where an answer sends its request, byte for byte; None if it is no redirect.

    Raises:
        RefusedError: that is no URL.
    """
    location = response.headers.get("Location")
    if response.status not in _REDIRECTS or location is None:
        return None
    try:
        return resolve_url(response.url, location)
    except ValueError as error:
        raise RefusedError(
            f"{shown(response.url)}: redirect to {shown(location)[:200]}: {error}"
        ) from error


@contextmanager
def _advise(host: str) -> Iterator[None]:
    """Add to an error about TLS what the operator can do about it."""
    try:
        yield
    except NoTlsError as error:
        raise NoTlsError(f"{error}; {_list_it(host)}") from error
    except UntrustedError as error:
        raise UntrustedError(
            f"{error}; if the authority is your own, add its certificate to those that this machine"
            " trusts, and restart the agent"
        ) from error


def _list_it(host: str) -> str:
    return f"to speak to it without TLS, list {host} in the agent's setting insecure_registries"
