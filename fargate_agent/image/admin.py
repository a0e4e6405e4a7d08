"""Images without a registry: load, list, remove, prune."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.content import Content, ContentWriter
from fargate_agent.containerd.errors import (
    AlreadyExistsError,
    ContainerdError,
    FailedPreconditionError,
    NotFoundError,
)
from fargate_agent.containerd.images import ImageRecord
from fargate_agent.containerd.types import Descriptor
from fargate_agent.image.archive.layout import ArchivedImage, Blob, read_images
from fargate_agent.image.archive.tar import (
    COPY_BYTES,
    Archive,
    ImageArchiveError,
    Member,
    open_archive,
)
from fargate_agent.image.content import copy_error, drop_unfinished, read_local
from fargate_agent.image.document import InvalidDocumentError
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.image.manifest import INDEX_TYPES, MANIFEST_TYPES, Manifest, parse_manifest
from fargate_agent.image.reference import InvalidReferenceError, parse_reference


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSummary:
    """An image on this machine."""

    name: str
    digest: str
    """Of what the name stands for, which may be an index."""
    size_bytes: int
    """Of all that is here of it, compressed as it came."""
    created_at: datetime
    """When it came here."""


class ImageAdmin:
    """What `fargate images` does."""

    def __init__(self, containerd: Containerd, locks: KeyedLocks) -> None:
        """Share `locks` with who pulls, and so leave alone what is being pulled."""
        self._containerd = containerd
        self._locks = locks

    async def load(self, file: Path, name: str | None = None) -> list[str]:
        """Return the names of the images of an archive when they're all here.

        They are unpacked when a task first needs them. `name` is that of an archive's only image,
        whatever the archive calls it.

        Raises:
            ImageArchiveError: the archive isn't what it should be, or there is no room for it.
        """
        with ExitStack() as stack:
            archive = await asyncio.to_thread(stack.enter_context, open_archive(file))
            images = await asyncio.to_thread(read_images, archive, name)
            try:
                async with self._leased() as containerd:
                    for image in images:
                        await _load_image(archive, image, containerd)
            except ContainerdError as error:
                raise ImageArchiveError(str(copy_error(error))) from error
        return [name for image in images for name in image.names]

    async def remove(self, name: str) -> bool:
        """Forget an image, and delete what no other image or task needs; False if there is none."""
        try:
            full_name = parse_reference(name).name
            await self._containerd.images.get(full_name)
        except (InvalidReferenceError, NotFoundError):
            return False
        await self._containerd.images.delete(full_name)
        return True

    async def prune(self, in_use: Iterable[str]) -> list[str]:
        """Remove every image but those, and return the names of the removed.

        What came of layers whose pull was interrupted goes too.
        """
        kept = set(_full_names(in_use))
        names = sorted(record.name for record in await self._containerd.images.list())
        unused = [name for name in names if name not in kept]
        await drop_unfinished(self._containerd.content, self._locks)
        for name in unused:
            await self._containerd.images.delete(name, sync=name == unused[-1])
        return unused

    async def list(self) -> list[ImageSummary]:
        """Return all images, by name."""
        records = sorted(await self._containerd.images.list(), key=lambda record: record.name)
        return [
            ImageSummary(
                name=record.name,
                digest=record.target.digest,
                size_bytes=await _sum_sizes(self._containerd.content, record.target),
                created_at=record.created_at or datetime.fromtimestamp(0, UTC),
            )
            for record in records
        ]

    @asynccontextmanager
    async def _leased(self) -> AsyncIterator[Containerd]:
        """Keep what is made in the body from the garbage collector until the body ends."""
        lease = f"fargate-load-{secrets.token_hex(8)}"
        await self._containerd.leases.ensure(lease, {})
        try:
            yield self._containerd.with_lease(lease)
        finally:
            await self._containerd.leases.delete(lease)


def _full_names(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        try:
            yield parse_reference(name).name
        except InvalidReferenceError:
            continue


async def _load_image(archive: Archive, image: ArchivedImage, containerd: Containerd) -> None:
    for blob in image.content.blobs:
        await _load_blob(archive, blob, containerd.content)
    for name in image.names:
        await containerd.images.ensure(ImageRecord(name=name, target=image.content.target))


async def _load_blob(archive: Archive, blob: Blob, content: Content) -> None:
    ref = f"load-{secrets.token_hex(8)}-{blob.digest}"
    if isinstance(blob.source, bytes):
        await content.write_blob(ref, blob.source, blob.labels)
        return
    try:
        async with content.open_writer(ref, blob.digest, blob.size) as writer:
            await _copy(archive, blob.source, writer)
            await writer.commit(blob.labels)
    except AlreadyExistsError:
        return
    except FailedPreconditionError as error:
        raise ImageArchiveError(
            f"content of the archive has not the digest {blob.digest}"
        ) from error


async def _copy(archive: Archive, member: Member, writer: ContentWriter) -> None:
    while writer.offset < member.size:
        piece = await asyncio.to_thread(archive.read_at, member, writer.offset, COPY_BYTES)
        if not piece:
            raise ImageArchiveError("the archive became shorter while it was read")
        await writer.write(piece)


async def _sum_sizes(content: Content, target: Descriptor) -> int:
    """Add up what is here of an image; a document that can't be read counts for nothing."""
    sizes: dict[str, int] = {}
    pending = [target]
    while pending:
        descriptor = pending.pop()
        if descriptor.digest in sizes:
            continue
        if descriptor.media_type in INDEX_TYPES | MANIFEST_TYPES:
            try:
                data = await read_local(content, descriptor)
                parsed = parse_manifest(descriptor.media_type, data)
            except (NotFoundError, InvalidDocumentError):
                continue
            if isinstance(parsed, Manifest):
                pending += [parsed.config, *parsed.layers]
            else:
                pending += [entry.descriptor for entry in parsed.entries]
        sizes[descriptor.digest] = descriptor.size
    return sum(sizes.values())
