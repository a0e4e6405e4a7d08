"""What containerd's content store has of an image: documents and layers.

Index, manifest and configuration are the way from a name to an image for one platform. They are
small, read into memory, and kept with the labels that tell containerd's garbage collector what they
refer to.

Of a layer, what was written under a ref stays there when a transfer breaks off, or the task or the
agent ends: the next fetch of the blob, for whichever task, goes on behind it. containerd hashes: a
blob with another digest is never committed. A task whose registry is slow holds others up for a
while only: then they fetch the layer under refs of their own.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from fargate_agent.containerd.content import Content, ContentWriter
from fargate_agent.containerd.errors import (
    AlreadyExistsError,
    ContainerdError,
    FailedPreconditionError,
    NotFoundError,
)
from fargate_agent.containerd.host_paths import hide_host_paths
from fargate_agent.containerd.types import Descriptor
from fargate_agent.drivers import Image
from fargate_agent.egress.retry import GaveUpError
from fargate_agent.egress.session import READ_BUFFER_BYTES
from fargate_agent.egress.transport import RefusedError, TransferError
from fargate_agent.image.document import MAX_DOCUMENT_BYTES, InvalidDocumentError
from fargate_agent.image.extraction import LayerSpaceError
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.image.manifest import (
    MAX_DEPTH,
    ConfigFile,
    Index,
    Manifest,
    PlatformError,
    chain_ids,
    parse_config,
    parse_manifest,
)
from fargate_agent.image.platform import Platform
from fargate_agent.image.registry.protocol import RangeError, Registry

NO_SPACE: Final = "no space left on device"
"""Source: Linux, the text of ENOSPC, which containerd passes on."""

MAX_MANIFESTS: Final = 64
"""So many manifests and indexes of one image are read before it counts as one that doesn't fit."""

LOOK_EVERY_S: Final = 30.0
"""How often a task that waits for a layer looks at how much another one has fetched of it."""

LEAST_GAIN_BYTES: Final = 8 << 20
"""What must have come between two looks, 2 Mbit/s: a slower registry isn't waited for."""

MAX_LOOKS: Final = 20
"""So often a task looks, for 10 minutes, however much comes."""

_LAYER: Final = "layer-"

ReadDocument = Callable[[Descriptor], Awaitable[bytes]]
"""Returns the bytes of a document; that they have its digest has been verified."""

Note = Callable[[int], None]
"""Hears how many bytes of a layer are there."""

Feed = Callable[[int, bytes], Awaitable[None]]
"""Gets each piece of a layer as it comes, and where in the layer it begins.

It raises `LayerSpaceError` if the disk is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformImage:
    """An image for one platform, all but its layers in the content store."""

    target: Descriptor
    """What the name stands for: an index or a manifest."""
    digest: str
    """Of the manifest."""
    manifest: Manifest
    config: ConfigFile
    source: str | None = None
    """The name that it was pulled by, where that was a mirror's."""

    def named(self, name: str) -> Image:
        """Return it as it is told to the rest of the agent."""
        return Image(
            name=name,
            digest=self.digest,
            config_digest=self.manifest.config.digest,
            chain_id=chain_ids(self.config.diff_ids)[-1],
            config=self.config.config,
            source=self.source,
        )


async def read_local(content: Content, descriptor: Descriptor) -> bytes:
    """Read a document out of the content store.

    Raises:
        NotFoundError: it isn't there.
        InvalidDocumentError: it is too large.
    """
    if descriptor.size > MAX_DOCUMENT_BYTES:
        raise InvalidDocumentError(
            f"document {descriptor.digest} is larger than {MAX_DOCUMENT_BYTES} bytes"
        )
    return await content.read(descriptor.digest, MAX_DOCUMENT_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageKeeper:
    """Finds the image for one platform, and keeps it."""

    architecture: str
    variants: Sequence[str]
    """Those that will do, the best first."""
    snapshotter: str
    read: ReadDocument
    content: Content

    async def keep(self, target: Descriptor) -> PlatformImage:
        """Return the image when the lease of `content` keeps its documents, and what they refer to.

        Raises:
            PlatformError: there is none for Linux on the architecture.
            InvalidDocumentError: a document isn't what it should be.
            NotFoundError: `read` didn't find a document, and no other one will do.
            ContainerdError: containerd refused to keep it.
        """
        pending, found = [(target, 1)], list[Platform]()
        missing: NotFoundError | None = None
        for _ in range(MAX_MANIFESTS):
            if not pending:
                break
            descriptor, depth = pending.pop()
            try:
                parsed = await self._keep_manifest(descriptor)
                if isinstance(parsed, Manifest):
                    config = await self._keep_config(parsed)
                    return PlatformImage(
                        target=target, digest=descriptor.digest, manifest=parsed, config=config
                    )
            except PlatformError as error:
                found += error.found
                continue
            except NotFoundError as error:
                missing = error
                continue
            found += parsed.platforms
            if depth < MAX_DEPTH:
                fitting = parsed.find(self.architecture, self.variants)
                pending += [(one, depth + 1) for one in reversed(fitting)]
        raise missing or PlatformError(self.architecture, found)

    async def _keep_manifest(self, descriptor: Descriptor) -> Manifest | Index:
        data = await self.read(descriptor)
        parsed = parse_manifest(descriptor.media_type, data)
        await keep_document(self.content, data, descriptor.digest, parsed.labels)
        return parsed

    async def _keep_config(self, manifest: Manifest) -> ConfigFile:
        data = await self.read(manifest.config)
        config = parse_config(data, self.architecture, len(manifest.layers))
        labels = config.snapshot_labels(self.snapshotter)
        await keep_document(self.content, data, manifest.config.digest, labels)
        return config


async def keep_document(
    content: Content, data: bytes, digest: str, labels: Mapping[str, str]
) -> None:
    """Return when the document is in the content store, labelled, and kept by the lease.

    Two may do it at once: each writes under a ref of its own.
    """
    try:
        labelled = labels.items() <= (await content.info(digest)).labels.items()
    except NotFoundError:
        labelled = False
    await content.write_blob(
        f"document-{digest}-{secrets.token_hex(8)}", data, {} if labelled else labels
    )


@asynccontextmanager
async def take_ref(layer: Descriptor, content: Content, locks: KeyedLocks) -> AsyncIterator[str]:
    """Give the ref under which a layer is fetched.

    All tasks have the same, one after another, unless one of them keeps the others waiting: then
    these have refs of their own, and what they don't commit goes with the body.

    Raises:
        TransferError: containerd doesn't say how much has been fetched.
    """
    shared, ref = locks.lock(layer.digest), render_ref(layer.digest)
    if await _take_turn(shared, content, ref):
        try:
            yield ref
        finally:
            shared.release()
        return
    name = f"{layer.digest}-{secrets.token_hex(8)}"
    async with locks.lock(name):  # `drop_unfinished` leaves it alone
        try:
            yield render_ref(name)
        finally:
            with suppress(ContainerdError):
                await content.abort(render_ref(name))


async def _take_turn(turn: asyncio.Lock, content: Content, ref: str) -> bool:
    """Acquire the lock, but wait only while more comes under the ref; return whether it is held."""
    if not turn.locked():
        return await turn.acquire()
    try:
        seen_bytes = await content.unfinished_bytes(ref)
        for _ in range(MAX_LOOKS):
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    return await turn.acquire()
            least_bytes = seen_bytes + LEAST_GAIN_BYTES
            seen_bytes = await content.unfinished_bytes(ref)
            if seen_bytes < least_bytes:
                break
    except ContainerdError as error:
        raise copy_error(error) from error
    return False


async def fetch_layer(
    layer: Descriptor, ref: str, registry: Registry, content: Content, note: Note, feed: Feed
) -> None:
    """Return when the blob is in the content store and the lease of `content` keeps it.

    `ref` is what `take_ref` gives.

    Raises:
        TransferError: the registry or containerd broke off. What was written stays.
        RefusedError: the registry doesn't have it, or the disk is full.
        GaveUpError: the registry's token service could not be asked.
    """
    try:
        if layer.size > READ_BUFFER_BYTES and not await content.unfinished_bytes(ref):
            await content.keep_unfinished(ref, layer.digest, layer.size)
        async with content.open_writer(ref, layer.digest, layer.size) as writer:
            await _fetch(ref, layer, _Copy(registry, writer, note, feed))
    except AlreadyExistsError:
        note(layer.size)
    except (TransferError, GaveUpError) as error:
        raise error.within("failed to copy") from error
    except _SpoiltError as error:
        await content.abort(ref)
        raise TransferError(str(error)) from error
    except LayerSpaceError as error:
        with suppress(ContainerdError):
            await content.abort(ref)
        raise RefusedError(f"failed to copy: {NO_SPACE}") from error
    except ContainerdError as error:
        if NO_SPACE in str(error):
            with suppress(ContainerdError):
                await content.abort(ref)  # the room is worth more than what is in it
        raise copy_error(error) from error


def render_ref(digest: str) -> str:
    """Name the unfinished blob as containerd's own client does; this is the ref of all tasks."""
    return f"{_LAYER}{digest}"


async def drop_unfinished(content: Content, locks: KeyedLocks) -> None:
    """Throw away what came of layers that nobody fetches at the moment.

    Raises:
        ContainerdError: containerd doesn't say what there is, or doesn't throw it away.
    """
    for ref in await content.list_unfinished():
        turn = locks.lock(ref.removeprefix(_LAYER))
        if ref.startswith(_LAYER) and not turn.locked():
            async with turn:
                await content.abort(ref)


def copy_error(error: ContainerdError) -> TransferError:
    """Say what containerd answered, without paths of this machine."""
    if NO_SPACE in str(error):
        return RefusedError(f"failed to copy: {NO_SPACE}")
    return TransferError(f"failed to copy: {hide_host_paths(str(error))}")


class _SpoiltError(Exception):
    """What was written is not the blob, so it is no use to go on behind it."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """Where a layer comes from, and who gets it."""

    registry: Registry
    writer: ContentWriter
    note: Note
    feed: Feed


async def _fetch(ref: str, layer: Descriptor, way: _Copy) -> None:
    try:
        await _copy(layer, way)
    except RangeError as error:
        raise _SpoiltError(f"failed to copy: {error}") from error
    await _commit(ref, layer, way.writer)


async def _copy(layer: Descriptor, way: _Copy) -> None:
    writer = way.writer
    way.note(writer.offset)
    if writer.offset < layer.size:
        async with way.registry.open_blob(layer, writer.offset) as pieces:
            async for piece in pieces:
                if writer.offset + len(piece) > layer.size:
                    raise _SpoiltError("failed to copy: the registry sent too many bytes")
                await way.feed(writer.offset, piece)
                await writer.write(piece)
                way.note(writer.offset)
    if writer.offset > layer.size:
        raise _SpoiltError("failed to copy: the content store had too many bytes")
    if writer.offset < layer.size:
        raise TransferError("unexpected EOF")


async def _commit(ref: str, layer: Descriptor, writer: ContentWriter) -> None:
    try:
        await writer.commit({})
    except FailedPreconditionError as error:
        raise _SpoiltError(
            f'failed commit on ref "{ref}": unexpected commit digest, expected {layer.digest}: '
            "failed precondition"
        ) from error
