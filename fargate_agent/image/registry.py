"""The registry protocol, as far as a pull needs it.

Source: OCI distribution specification, "Pulling"; Docker registry, token authentication.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from yarl import URL

from fargate_agent.containerd.types import Descriptor
from fargate_agent.image.auth import Credentials
from fargate_agent.image.challenge import fetch_token, parse_challenges
from fargate_agent.image.digest import digest_of, is_digest
from fargate_agent.image.manifest import INDEX_TYPES, MANIFEST_TYPES
from fargate_agent.image.reference import Reference
from fargate_agent.image.transport import (
    READ_BUFFER_BYTES,
    RefusedError,
    TransferError,
    read_document,
    shown,
    transfer,
)

MAX_HOPS: Final = 10
"""Redirects and demands to log in that one request may meet. Source: Go, net/http, `Client`."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_MANIFESTS: Final = {"Accept": ", ".join([*sorted(INDEX_TYPES | MANIFEST_TYPES), "*/*;q=0.1"])}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a name stands for in its registry at the moment."""

    target: Descriptor
    data: bytes | None
    """The manifest or index itself, where the registry had to be asked for it anyway."""


class Registry:
    """The repository of one image, for the time of one pull."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        reference: Reference,
        credentials: Credentials | None,
        insecure: frozenset[str],
    ) -> None:
        """Talk without TLS to the hosts in `insecure`, and to no other."""
        host = reference.api_host
        scheme = "http" if host.removesuffix(":80") in insecure else "https"
        self._session = session
        self._reference = reference
        self._credentials = credentials
        self._insecure = insecure
        self._base = URL(f"{scheme}://{host}/v2/{reference.repository}/")
        self._authorization: str | None = None
        self._logging_in = asyncio.Lock()

    async def resolve(self) -> Resolved:
        """Ask what the name stands for.

        Raises:
            TransferError: the registry could not be asked.
            RefusedError: there is no such image, or it may not be read.
        """
        url = self._base / "manifests" / self._reference.selector
        async with self._request("HEAD", url, _MANIFESTS) as response:
            target = _read_target(response)
        if target is not None:
            self._check_digest(target.digest)
            return Resolved(target=target, data=None)
        async with self._request("GET", url, _MANIFESTS) as response:
            media_type = response.content_type
            data = await read_document(response)
        self._check_digest(digest_of(data))
        target = Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))
        return Resolved(target=target, data=data)

    async def read(self, descriptor: Descriptor) -> bytes:
        """Fetch a manifest, an index or a configuration, and verify it.

        Raises:
            TransferError: it could not be fetched, or it is another.
            RefusedError: the registry doesn't have it, or not for us.
        """
        is_manifest = descriptor.media_type in INDEX_TYPES | MANIFEST_TYPES
        kind = "manifests" if is_manifest else "blobs"
        url = self._base / kind / descriptor.digest
        async with self._request("GET", url, _MANIFESTS if is_manifest else {}) as response:
            data = await read_document(response)
        if digest_of(data) != descriptor.digest:
            raise TransferError(
                f"unexpected digest {digest_of(data)}, expected {descriptor.digest}"
            )
        return data

    @asynccontextmanager
    async def open_blob(self, digest: str, offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield the bytes of a blob from `offset` on, in large pieces.

        A registry that knows no ranges sends all of it; then the beginning is passed over.

        Raises:
            TransferError: it could not be fetched, from inside the iterator too.
            RefusedError: the registry doesn't have it, or not for us.
        """
        url = self._base / "blobs" / digest
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            response = await self._fetch("GET", url, headers)
        except TransferError as error:
            raise type(error)(f"httpReadSeeker: failed open: {error}") from error
        try:
            if response.status == 206:
                _check_range(response, offset)
                offset = 0
            async with aclosing(_read_pieces(response, skip_bytes=offset)) as pieces:
                yield pieces
        finally:
            response.release()

    @asynccontextmanager
    async def _request(
        self, method: str, url: URL, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        response = await self._fetch(method, url, headers)
        try:
            yield response
        finally:
            response.release()

    async def _fetch(
        self, method: str, url: URL, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        """Return an answer that is as it should be; the caller releases it."""
        response = await self._open(method, url, headers)
        try:
            _check_status(response)
        except TransferError:
            response.release()
            raise
        return response

    async def _open(self, method: str, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        logged_in = False
        for _ in range(MAX_HOPS):
            used = self._authorization
            response = await self._send(method, url, headers)
            if response.status in _REDIRECTS and "Location" in response.headers:
                with transfer(f"redirect of {shown(url)}"):
                    url = url.join(URL(response.headers["Location"]))
            elif response.status == 401 and not logged_in and await self._log_in(response, used):
                logged_in = True
            else:
                return response
            response.release()
        raise TransferError(f"{shown(url)}: stopped after {MAX_HOPS} redirects")

    async def _send(self, method: str, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Send one request. Only the registry itself is shown who we are."""
        self._check_scheme(url)
        if self._authorization and self._is_own(url):
            headers = {**headers, "Authorization": self._authorization}
        with transfer(f'failed to do request: {method.title()} "{shown(url)}"'):
            return await self._session.request(method, url, headers=headers, allow_redirects=False)

    async def _log_in(self, response: aiohttp.ClientResponse, used: str | None) -> bool:
        """Do what the registry demands, unless another request has done so meanwhile.

        Returns whether the request may succeed now.
        """
        if not self._is_own(response.url):
            return False
        challenges = parse_challenges(response.headers)
        async with self._logging_in:
            if self._authorization != used:
                return True
            if "bearer" in challenges:
                challenge = challenges["bearer"]
                self._check_scheme(challenge.realm)
                scope = f"repository:{self._reference.repository}:pull"
                token = await fetch_token(self._session, challenge, scope, self._credentials)
                self._authorization = f"Bearer {token}"
                return True
            if "basic" in challenges and self._credentials is not None:
                self._authorization = self._credentials.header
            return self._authorization != used

    def _is_own(self, url: URL) -> bool:
        return url.origin() == self._base.origin()

    def _check_scheme(self, url: URL) -> None:
        if url.scheme == "https" or (url.scheme == "http" and _host(url) in self._insecure):
            return
        raise RefusedError(f"{shown(url)}: {_host(url)} is not listed as an insecure registry")

    def _check_digest(self, digest: str) -> None:
        if self._reference.digest not in {None, digest}:
            raise TransferError(f"unexpected digest {digest}, expected {self._reference.digest}")


def _host(url: URL) -> str:
    """The host as people write it: with the port unless it is the scheme's own."""
    return url.host_port_subcomponent or ""


def _read_target(response: aiohttp.ClientResponse) -> Descriptor | None:
    """Read what HEAD says; None if the registry leaves something out."""
    digest = response.headers.get("Docker-Content-Digest", "")
    size = response.content_length
    known = response.content_type in INDEX_TYPES | MANIFEST_TYPES
    if response.status != 200 or not is_digest(digest) or size is None or not known:
        return None
    return Descriptor(media_type=response.content_type, digest=digest, size=size)


def _check_status(response: aiohttp.ClientResponse) -> None:
    url, status = shown(response.url), response.status
    if status in {200, 206} or (response.method == "HEAD" and status in {405, 501}):
        return
    if status == 404:
        raise RefusedError("not found")
    if status == 401:
        raise RefusedError(
            "pull access denied, repository does not exist or may require authorization: "
            "authorization failed"
        )
    text = f"unexpected status from {response.method} request to {url}: {status} {response.reason}"
    raise RefusedError(text) if status == 403 else TransferError(text)


def _check_range(response: aiohttp.ClientResponse, offset: int) -> None:
    start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if start != str(offset):
        raise TransferError(f"{shown(response.url)}: the registry sent another range than asked")


async def _read_pieces(response: aiohttp.ClientResponse, skip_bytes: int) -> AsyncGenerator[bytes]:
    pieces: list[bytes] = []
    gathered = 0
    with transfer(f"read {shown(response.url)}"):
        while piece := await response.content.readany():
            if skip_bytes:
                piece, skip_bytes = piece[skip_bytes:], max(0, skip_bytes - len(piece))
            pieces.append(piece)
            gathered += len(piece)
            if gathered >= READ_BUFFER_BYTES:
                yield b"".join(pieces)
                pieces, gathered = [], 0
    if gathered:
        yield b"".join(pieces)
