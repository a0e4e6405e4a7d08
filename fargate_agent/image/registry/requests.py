"""Requests to registries, token services and blob stores, one at a time, and where they lead.

Which hosts may be asked without TLS is decided here, for redirects too, and through which proxy
they are asked. So is what a refusal means: whether another try may succeed, when, and what the
server says.

Source: RFC 9110, 10.2.3 and 15; OCI distribution specification, "Error Codes"; containerd,
remotes/docker/errcode.go, for how an error of a registry is shown.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import aiohttp
from yarl import URL

from fargate_agent.egress.transport import (
    NoTlsError,
    ProxyRefusedError,
    RefusedError,
    TransferError,
    UntrustedError,
    explain_proxy,
    transfer,
)
from fargate_agent.egress.urls import host_of, resolve_url, shown
from fargate_agent.image.document import Document, InvalidDocumentError, parse_document, tidy
from fargate_agent.image.registry.hosts import Hosts

MAX_HOPS: Final = 10
"""Redirects and demands to log in that one request may meet. Source: Go, net/http, `Client`."""

MAX_MESSAGE_CHARS: Final = 400
"""A reason has 1,024, and the end of the message is not what helps."""

MAX_BODY_BYTES: Final = 1 << 16
BODY_DEADLINE_S: Final = 5.0
"""A message that takes longer is left out."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SECONDS: Final = re.compile(r"[0-9]{1,9}")

_MAY_PASS: Final = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


class Requests:
    """Sends the requests of one pull."""

    def __init__(self, session: aiohttp.ClientSession, hosts: Hosts) -> None:
        """Speak to each host as `hosts` says."""
        self._session = session
        self._hosts = hosts

    async def send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        what: str,
        form: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """Send one request; the caller releases the answer. `what` begins the text of errors.

        `form` is its body, as browsers send forms.

        Raises:
            TransferError: no answer came.
            RefusedError: the server may not be asked so, or can't be.
        """
        host = host_of(url)
        if url.scheme != "https" and host not in self._hosts.insecure:
            raise RefusedError(
                f"{what}: {shown(url)}: {host} is not listed as an insecure registry; "
                f"{_list_it(host)}"
            )
        proxy = self._hosts.find_proxy(url)
        what = f'{what}: {method.title()} "{shown(url)}"'
        if proxy is None:
            with self._advise(url), transfer(what):
                return await self._session.request(
                    method,
                    url,
                    headers=headers,
                    data=form,
                    allow_redirects=False,
                    ssl=await self._hosts.find_trusted(url) or True,
                )
        what = f"{what}: through {proxy.name}"
        with self._advise(url), _advise_on_proxy(host), transfer(what):
            response = await self._session.request(
                method,
                url,
                headers={**headers, **(proxy.headers if url.scheme == "http" else {})},
                data=form,
                allow_redirects=False,
                ssl=await self._hosts.find_trusted(url) or True,
                proxy=proxy.url,
                proxy_headers=proxy.headers,
            )
            if response.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                response.release()
                raise explain_proxy(response.status, response.reason or "").within(what)
        return response

    @contextmanager
    def _advise(self, url: URL) -> Iterator[None]:
        """Add to an error about TLS what the operator can do about it."""
        try:
            yield
        except NoTlsError as error:
            raise NoTlsError(f"{error}; {_list_it(host_of(url))}") from error
        except UntrustedError as error:
            raise UntrustedError(f"{error}; {self._hosts.advise_on_trust(url)}") from error


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
def _advise_on_proxy(host: str) -> Iterator[None]:
    """Add to the refusal of a proxy what the operator can do about it."""
    try:
        yield
    except ProxyRefusedError as error:
        if error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            advice = "give the user and the password that it takes: http://USER:PASSWORD@HOST:PORT"
        else:
            advice = f"let it connect to {host}, or list {host} in registry_no_proxy"
        raise RefusedError(f"{error}; {advice}") from error


def _list_it(host: str) -> str:
    return f"to speak to it without TLS, list {host} in the agent's setting insecure_registries"


async def explain_refusal(response: aiohttp.ClientResponse) -> TransferError:
    """Return the error that an answer stands for, with what the server says; reads the body."""
    status = response.status
    what = f"unexpected status from {response.method} request to {shown(response.url)}"
    message = await read_message(response)
    said = f" - Server message: {message}" if message else ""
    may_pass = status in _MAY_PASS or status > HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    error = (TransferError if may_pass else RefusedError)(f"{what}: {_render(response)}{said}")
    error.retry_after_s = parse_retry_after(
        response.headers.get("Retry-After", ""), datetime.now(UTC)
    )
    return error


async def read_message(response: aiohttp.ClientResponse) -> str:
    """Return what the body of a refusal says in JSON or as text; empty if it says nothing."""
    data = b""
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            with transfer("read"):
                while len(data) < MAX_BODY_BYTES and (piece := await response.content.readany()):
                    data += piece
    except (TimeoutError, TransferError):
        return ""
    try:
        return tidy("; ".join(_messages(parse_document("body", data))), MAX_MESSAGE_CHARS)
    except InvalidDocumentError:
        is_text = response.headers.get("Content-Type", "text/plain").startswith("text/plain")
        return tidy(data.decode(errors="replace"), MAX_MESSAGE_CHARS) if is_text else ""


def parse_retry_after(value: str, now: datetime) -> float:
    """Return how many seconds to wait: a number, or a date. 0 for what is neither."""
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())


def _render(response: aiohttp.ClientResponse) -> str:
    reason = tidy(response.reason or "", MAX_MESSAGE_CHARS)
    try:
        return f"{response.status} {reason or HTTPStatus(response.status).phrase}"
    except ValueError:
        return str(response.status)


def _messages(body: Document) -> Iterator[str]:
    """Registries have a list of codes and messages, token services one of the other members."""
    for error in body.children("errors"):
        code, message = error.text("code", "").lower().replace("_", " "), error.text("message", "")
        yield ": ".join(part for part in (code, message) if part)
    for name in ("error_description", "details", "message"):
        if name in body:
            yield body.text(name)
            return
