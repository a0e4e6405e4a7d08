"""The registry protocol, as far as a pull needs it.

Source: OCI distribution specification, "Pulling"; Docker registry, token authentication.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

import aiohttp
from yarl import URL

from fargate_agent.containerd.types import Descriptor
from fargate_agent.egress.retry import Tries
from fargate_agent.egress.session import READ_BUFFER_BYTES
from fargate_agent.egress.transport import (
    RefusedError,
    TransferError,
    read_body,
    transfer,
)
from fargate_agent.egress.urls import Origin, host_of, origin_of, shown
from fargate_agent.image.document import MAX_DOCUMENT_BYTES, tidy
from fargate_agent.image.manifest import INDEX_TYPES, MANIFEST_TYPES
from fargate_agent.image.reference import Reference, digest_of, is_digest
from fargate_agent.image.registry.auth import Credentials
from fargate_agent.image.registry.hosts import Hosts
from fargate_agent.image.registry.login import Logins, read_challenges
from fargate_agent.image.registry.requests import (
    MAX_HOPS,
    MAX_MESSAGE_CHARS,
    Requests,
    explain_refusal,
    read_message,
    redirect_target,
)

_MANIFESTS: Final = {"Accept": ", ".join([*sorted(INDEX_TYPES | MANIFEST_TYPES), "*/*;q=0.1"])}
_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/([0-9]{1,19}|\*)")


class RangeError(TransferError):
    """The registry has another blob under the digest, or can't go on in the middle of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a name stands for in its registry at the moment."""

    target: Descriptor
    data: bytes | None
    """The manifest or index itself, where the registry had to be asked for it anyway."""


class Purse(Protocol):
    """What there is to show to registries."""

    async def find(self, registry: str, used: str | None) -> Credentials | None:
        """Return the credentials for a registry, named as in an image; None if there are none.

        `used` is the header that the registry has refused.

        Raises:
            InvalidDocumentError: they aren't as they should be.
            ProgramError: the program that keeps them has no answer.
            TaskError: they are to be fetched, and can't be.
        """
        ...


class Registry:
    """The repository of one image, for the time of one pull."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        reference: Reference,
        purse: Purse,
        hosts: Hosts,
        tries: Tries,
        known: Credentials | None = None,
    ) -> None:
        """Speak to each host as `hosts` says.

        `known` is shown to the registry before it demands anything.
        """
        self._reference = reference
        self._purse = purse
        self._tries = tries
        self._base = hosts.base(reference.api_host) / f"{reference.repository}/"
        self._requests = Requests(session, hosts)
        self._logins = Logins(self._requests, tries, self._find_credentials)
        if known is not None:
            self._logins.show(self._base, known)

    def beside(self, tag: str) -> "Registry":
        """Return the same repository for another tag, with the logins that this one has."""
        other = copy(self)
        other._reference = replace(self._reference, tag=tag, digest=None)
        return other

    async def resolve(self) -> Resolved:
        """Ask what the name stands for.

        Raises:
            GaveUpError: the registry could not be asked, there is no such image, or it may not be
                read.
        """
        url = self._base / "manifests" / self._reference.selector
        head_helps = True

        async def ask() -> Resolved:
            nonlocal head_helps
            if head_helps:
                answer = await self._ask_by_head(url)
                if isinstance(answer, Resolved):
                    return answer
                head_helps = False  # its answer can't say what is wrong, nor what is left out
                if answer is not None:
                    raise answer
            return await self._resolve_by_get(url)

        return await self._tries.repeat(ask)

    async def read(self, descriptor: Descriptor) -> bytes:
        """Fetch a manifest, an index or a configuration, and verify it.

        Raises:
            GaveUpError: it could not be fetched, it is another, the registry doesn't have it, or
                not for us.
        """
        return await self._tries.repeat(partial(self._read, descriptor))

    @asynccontextmanager
    async def open_blob(self, blob: Descriptor, offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield the bytes of a blob from `offset` on, in large pieces. It is tried once.

        A registry that knows no ranges sends all of it; then the beginning is passed over.

        Raises:
            TransferError: it could not be fetched, from inside the iterator too.
            RangeError: what the registry sends doesn't belong behind `offset`.
            RefusedError: the registry doesn't have it, or not for us.
            GaveUpError: the token service could not be asked.
        """
        try:
            response, start = await self._open_blob(blob, offset)
        except TransferError as error:
            raise error.within("httpReadSeeker: failed open") from error
        try:
            async with aclosing(_read_pieces(response, skip_bytes=offset - start)) as pieces:
                yield pieces
        finally:
            response.release()

    async def _open_blob(self, blob: Descriptor, offset: int) -> tuple[aiohttp.ClientResponse, int]:
        """Return the answer, which the caller releases, and where in the blob it begins."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = await self._open("GET", self._base / "blobs" / blob.digest, headers)
        try:
            if response.status == 416:
                raise RangeError(f"the registry has nothing behind {offset} bytes")
            if response.status not in {200, 206}:
                raise await _refuse(response)
            return response, _find_start(response, blob.size, offset)
        except BaseException:
            response.release()
            raise

    async def _ask_by_head(self, url: URL) -> Resolved | TransferError | None:
        """Return what HEAD says, the error to raise, or None where GET should be asked at once."""
        async with self._request("HEAD", url, _MANIFESTS) as response:
            if response.status in {401, 404}:
                return await _refuse(response)
            if response.status >= 400:
                refusal = await explain_refusal(response)
                return None if isinstance(refusal, RefusedError) else refusal
            target = _read_target(response)
        if target is None:
            return None
        self._check_digest(target.digest)
        return Resolved(target=target, data=None)

    async def _resolve_by_get(self, url: URL) -> Resolved:
        media_type, data = await self._get_document(url, _MANIFESTS)
        self._check_digest(digest_of(data))
        target = Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))
        return Resolved(target=target, data=data)

    async def _read(self, descriptor: Descriptor) -> bytes:
        is_manifest = descriptor.media_type in INDEX_TYPES | MANIFEST_TYPES
        kind = "manifests" if is_manifest else "blobs"
        url = self._base / kind / descriptor.digest
        headers = _MANIFESTS if is_manifest else {}
        _, data = await self._get_document(url, headers, descriptor.size)
        if digest_of(data) != descriptor.digest:
            raise TransferError(
                f"unexpected digest {digest_of(data)}, expected {descriptor.digest}"
            )
        return data

    async def _get_document(
        self, url: URL, headers: dict[str, str], size: int | None = None
    ) -> tuple[str, bytes]:
        """Return media type and bytes, which are to be so many; None: as many as may be."""
        async with self._request("GET", url, headers) as response:
            if response.status != 200:
                raise await _refuse(response)
            _check_size(response.content_length, size)
            most = MAX_DOCUMENT_BYTES if size is None else min(size, MAX_DOCUMENT_BYTES)
            data = await read_body(response, most)
        _check_size(len(data), size)
        return _media_type(response), data

    @asynccontextmanager
    async def _request(
        self, method: str, url: URL, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        response = await self._open(method, url, headers)
        try:
            yield response
        finally:
            response.release()

    async def _open(self, method: str, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """Return the answer at the end of all redirects and logins; the caller releases it."""
        logged_in: set[Origin] = set()
        for _ in range(MAX_HOPS):
            used = self._logins.authorization(url)
            shows = {"Authorization": used} if used and url.user is None else {}
            response = await self._requests.send(
                method, url, headers | shows, "failed to do request"
            )
            try:
                following = redirect_target(response)
                if response.status == 401 and origin_of(url) not in logged_in:
                    logged_in.add(origin_of(url))
                    following = url if await self._logins.log_in(response, used) else None
            except BaseException:
                response.release()
                raise
            if following is None:
                return response
            response.release()
            url = following
        raise RefusedError(f"{shown(url)}: stopped after {MAX_HOPS} redirects")

    async def _find_credentials(self, url: URL, used: str | None) -> Credentials | None:
        own = origin_of(url) == origin_of(self._base)
        return await self._purse.find(self._reference.registry if own else host_of(url), used)

    def _check_digest(self, digest: str) -> None:
        if self._reference.digest not in {None, digest}:
            raise TransferError(f"unexpected digest {digest}, expected {self._reference.digest}")


def _read_target(response: aiohttp.ClientResponse) -> Descriptor | None:
    """Read what HEAD says; None if the registry leaves something out."""
    digest = response.headers.get("Docker-Content-Digest", "")
    size = response.content_length
    media_type = _media_type(response)
    known = media_type in INDEX_TYPES | MANIFEST_TYPES
    if response.status != 200 or not is_digest(digest) or not size or not known:
        return None
    return Descriptor(media_type=media_type, digest=digest, size=size)


def _media_type(response: aiohttp.ClientResponse) -> str:
    """Return the type of a body without its parameters.

    aiohttp reads the parameters too, as those of e-mail: in the square of their length, and not at
    all if there are many parentheses.
    """
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return media_type or "application/octet-stream"


async def _refuse(response: aiohttp.ClientResponse) -> TransferError:
    """Return the error that an answer stands for."""
    if response.status == 404:
        return RefusedError("not found")
    if response.status == 401:
        challenges = read_challenges(response.headers)
        errors = [one.parameters["error"] for one in challenges if "error" in one.parameters]
        message = await read_message(response) or tidy(next(iter(errors), ""), MAX_MESSAGE_CHARS)
        return RefusedError(
            "pull access denied, repository does not exist or may require authorization: "
            + (f"server message: {message}: " if message else "")
            + "authorization failed"
        )
    return await explain_refusal(response)


def _check_size(found: int | None, expected: int | None) -> None:
    """Return if a document may have the size that was said of it; None: nobody said."""
    if None not in {found, expected} and found != expected:
        raise RefusedError(f"the registry has {found} bytes, expected {expected}")


def _find_start(response: aiohttp.ClientResponse, size: int, offset: int) -> int:
    """Return where in the blob an answer begins."""
    if response.status == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not found or int(found[1]) > offset or found[2] not in {"*", str(size)}:
            raise RangeError("the registry sent another range than asked")
        return int(found[1])
    if response.content_length not in {None, size}:
        raise TransferError(f"the registry has {response.content_length} bytes, expected {size}")
    return 0


async def _read_pieces(response: aiohttp.ClientResponse, skip_bytes: int) -> AsyncGenerator[bytes]:
    pieces: list[bytes] = []
    gathered = 0
    try:
        with transfer(f"read {shown(response.url)}"):
            while piece := await response.content.readany():
                if skip_bytes:
                    piece, skip_bytes = piece[skip_bytes:], max(0, skip_bytes - len(piece))
                pieces.append(piece)
                gathered += len(piece)
                if gathered >= READ_BUFFER_BYTES:
                    yield b"".join(pieces)
                    pieces, gathered = [], 0
    except TransferError:
        if gathered:  # what came before the connection broke isn't fetched again
            yield b"".join(pieces)
        raise
    if gathered:
        yield b"".join(pieces)
