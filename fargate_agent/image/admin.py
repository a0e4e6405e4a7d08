"""Images without a registry: load, list, remove, prune."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.content import Content, ContentWriter
from fargate_agent.containerd.errors import (
    AlreadyExistsError,
    ContainerdError,
    FailedPreconditionError,
    NotFoundError,
)
from fargate_agent.containerd.images import ImageRecord
from fargate_agent.image.archive.layout import ArchivedImage, Blob, read_images
from fargate_agent.image.archive.tar import (
    COPY_BYTES,
    Archive,
    ImageArchiveError,
    Member,
    open_archive,
)
from fargate_agent.image.content import copy_error, drop_unfinished
from fargate_agent.image.holdings import Holding, read_holdings, sum_freed
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.image.reference import InvalidReferenceError, parse_reference
from fargate_agent.image.uses import Users, find_users, is_loaded, nobody, turn_of, used_at
from fargate_agent.plan import TaskPlan

log = logging.getLogger(__name__)

_LEASE: Final = "fargate-load-"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSummary:
    """An image on this machine."""

    name: str
    digest: str
    """Of what the name stands for, which may be an index."""
    size_bytes: int
    """Of all that is here of it, compressed as it came."""
    unpacked_bytes: int
    """Of its layers as containers see them; 0 until a task first needs them."""
    created_at: datetime
    """When it came here."""
    used_at: datetime
    """When a task was last known to use it; when it came here if none has."""
    is_loaded: bool
    """Whether it came from a file."""
    users: tuple[TaskPlan, ...]
    """The tasks that use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """Which images were removed, or would be."""

    names: tuple[str, ...]
    freed_bytes: int
    """Of content and unpacked layers that no other image needs."""


class ImageAdmin:
    """What `fargate images` does."""

    def __init__(
        self,
        containerd: Containerd,
        locks: KeyedLocks,
        users: Users = nobody,
        snapshotter: str = "overlayfs",
    ) -> None:
        """Share `locks` with who pulls, and so leave alone what is being pulled."""
        self._containerd = containerd
        self._locks = locks
        self._users = users
        self._snapshotter = snapshotter

    async def load(self, file: Path, name: str | None = None) -> list[str]:
        """Return the names of the images of an archive when they're all here.

        They are unpacked when a task first needs them. `name` is that of an archive's only image,
        whatever the archive calls it.

        Raises:
            ImageArchiveError: the archive isn't what it should be, or there is no room for it.
        """
        try:
            with ExitStack() as stack:
                archive = await asyncio.to_thread(stack.enter_context, open_archive(file))
                images = await asyncio.to_thread(read_images, archive, name)
                async with self._leased() as containerd:
                    for image in images:
                        await self._load_image(archive, image, containerd)
        except ContainerdError as error:
            raise ImageArchiveError(str(copy_error(error))) from error
        except OSError as error:
            raise ImageArchiveError(f"the archive can't be read: {error.strerror}") from error
        return [name for image in images for name in image.names]

    async def remove_leftovers(self) -> None:
        """Delete what an agent that was killed had begun to load; nothing is being loaded now.

        Raises:
            ContainerdError: containerd doesn't say what there is, or doesn't delete it.
        """
        for lease in await self._containerd.leases.list():
            if lease.id.startswith(_LEASE):
                log.info("removing what an agent that was killed had begun to load")
                await self._containerd.leases.delete(lease.id)

    async def remove(self, name: str) -> bool:
        """Forget an image, and delete what no other image or task needs; False if there is none."""
        try:
            full_name = parse_reference(name).name
            await self._containerd.images.get(full_name)
        except (InvalidReferenceError, NotFoundError):
            return False
        await self._containerd.images.delete(full_name)
        return True

    async def prune(self, *, dry_run: bool = False) -> Pruned:
        """Remove every image that no task uses, loaded ones too; with `dry_run`, remove nothing.

        What came of layers whose pull was interrupted goes too; it is not counted.
        """
        holdings = await self._read_holdings()
        in_use = find_users(self._users)
        unused = sorted(name for name in holdings if name not in in_use)
        if dry_run:
            return Pruned(names=tuple(unused), freed_bytes=sum_freed(holdings, unused))
        await drop_unfinished(self._containerd.content, self._locks)
        removed = []
        for name in unused:
            async with turn_of(self._locks, name):
                if name in find_users(self._users):
                    continue
                await self._containerd.images.delete(name, sync=name == unused[-1])
            removed.append(name)
        return Pruned(names=tuple(removed), freed_bytes=sum_freed(holdings, removed))

    async def list(self) -> list[ImageSummary]:
        """Return all images, by name."""
        records = sorted(await self._containerd.images.list(), key=lambda record: record.name)
        holdings = await read_holdings(self._containerd, self._snapshotter, records)
        users = find_users(self._users)
        return [
            ImageSummary(
                name=record.name,
                digest=record.target.digest,
                size_bytes=sum(holdings[record.name].blobs.values()),
                unpacked_bytes=sum(holdings[record.name].snapshots.values()),
                created_at=record.created_at or datetime.fromtimestamp(0, UTC),
                used_at=used_at(record),
                is_loaded=is_loaded(record),
                users=tuple(users.get(record.name, ())),
            )
            for record in records
        ]

    async def _read_holdings(self) -> dict[str, Holding]:
        records = await self._containerd.images.list()
        return await read_holdings(self._containerd, self._snapshotter, records)

    @asynccontextmanager
    async def _leased(self) -> AsyncIterator[Containerd]:
        """Keep what is made in the body from the garbage collector until the body ends."""
        lease = f"{_LEASE}{secrets.token_hex(8)}"
        await self._containerd.leases.ensure(lease, {})
        try:
            yield self._containerd.with_lease(lease)
        finally:
            await self._containerd.leases.delete(lease)

    async def _load_image(
        self, archive: Archive, image: ArchivedImage, containerd: Containerd
    ) -> None:
        for blob in image.content.blobs:
            await _load_blob(archive, blob, containerd.content)
        for name in image.names:
            async with turn_of(self._locks, name):
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
