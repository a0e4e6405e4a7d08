"""Layers that are unpacked as they arrive, each into a snapshot upon nothing, several at once.

When those below a layer are done, its directory takes the place of that of a snapshot upon them.
The snapshots belong to the lease of the task, and what a crash leaves the next agent removes. Only
for containerd's overlayfs snapshotter, and where its directories can be reached.
"""

import asyncio
import ctypes
import errno
import logging
import math
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError
from fargate_agent.containerd.snapshots import SnapshotKind, Snapshots
from fargate_agent.containerd.types import Descriptor, Mount
from fargate_agent.image.extraction import (
    Extracted,
    Extraction,
    LayerSpaceError,
    Turns,
    open_extraction,
)
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.trees import empty_tree

log = logging.getLogger(__name__)

SNAPSHOTTER: Final = "overlayfs"

SYNC_DEADLINE_S: Final = 300.0
"""As for the commit of a blob."""

PATIENCE_S: Final = 30.0
"""So long an image waits for layers that other tasks have begun to unpack, for all together. They
may wait for registries that never send the rest."""

REMOVE_DEADLINE_S: Final = 30.0
"""containerd removes a snapshot from its database. What it doesn't remove in time stays until the
lease of the task ends."""

OPAQUE_XATTR: Final = "trusted.overlay.opaque"
"""Source: Linux, Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"."""

_CLOCK_TOLERANCE_S: Final = 2.0
"""Between the clock and the times of files."""

_KEY: Final = "fargate-unpack-"
_OWN_KEY: Final = f"{_KEY}{secrets.token_hex(4)}-"
"""Begins the keys of this process, so that those of one that was killed are told from them."""

_UPPER: Final = "upperdir="
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(kw_only=True)
class Staged:
    """A layer that is being unpacked, or is."""

    layer: Descriptor
    key: str
    """Of the snapshot upon nothing."""
    directory: Path
    """Of that snapshot, where the files of the layer are."""
    extraction: Extraction
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    """Holds the claim, the snapshot and the process."""
    claim: ExitStack
    """What keeps other tasks from unpacking the layer too, until this one holds the lock of its
    chain ID."""
    turn: ExitStack
    """What lets another process begin when this one has ended."""
    is_synced: bool = False

    async def end(self) -> None:
        """Return when all of it is unpacked, or never will be; its turn is over then."""
        await self.extraction.end()
        self.turn.close()

    async def finish(self) -> Extracted | None:
        """Return what became of it; None if containerd has to unpack the layer.

        Raises:
            LayerSpaceError: the disk is full.
        """
        extracted = await self.extraction.finish(self.layer.digest)
        if self.extraction.fed_bytes != self.layer.size:
            return None
        return extracted


class Staging:
    """The layers of one image; use it as a context."""

    def __init__(
        self,
        containerd: Containerd,
        snapshotter: str,
        chain: Sequence[str],
        locks: KeyedLocks,
        turns: Turns,
    ) -> None:
        self._content = containerd.content
        self._snapshots = containerd.snapshots(snapshotter)
        self._is_possible = snapshotter == SNAPSHOTTER
        self._chain = chain
        self._locks = locks
        self._staged: dict[int, Staged] = {}
        self._turns = turns
        self._patience_s = PATIENCE_S
        self._removals_end_at = math.inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._removals_end_at = asyncio.get_running_loop().time() + REMOVE_DEADLINE_S
        # A stack goes on with the rest if one callback is cancelled.
        async with AsyncExitStack() as stack:
            while self._staged:
                _, staged = self._staged.popitem()
                staged.extraction.kill()
                stack.push_async_callback(staged.stack.aclose)

    async def begin(self, position: int, layer: Descriptor) -> None:
        """Begin to unpack a layer that is about to come.

        Not if that has been done, or another task is at it, or it can't be done here, or there are
        as many processes as there may be.
        """
        streams = self._turns.streams
        if streams.locked():
            return
        await streams.acquire()  # at once
        turn = ExitStack()
        turn.callback(streams.release)
        await self._begin(position, layer, turn)

    async def feed(self, position: int, offset: int, piece: bytes) -> None:
        """Hand a piece of a layer on to the process that unpacks it, if there is one.

        Raises:
            LayerSpaceError: the disk is full; what was unpacked is removed.
        """
        if (staged := self._staged.get(position)) is not None:
            await staged.extraction.feed(offset, piece)
            if staged.extraction.lacks_space:
                await self.give_back(staged.directory)
                raise LayerSpaceError

    async def complete(self, position: int, layer: Descriptor) -> None:
        """Feed from the content store what of a layer has not been fed as it came.

        Raises:
            ContainerdError: it can't be read.
        """
        staged = self._staged.get(position)
        if staged is not None and not staged.extraction.is_usable:
            await self._staged.pop(position).stack.aclose()
            staged = None
        if staged is not None:
            await self._feed_from_store(staged)
            return
        async with self._turns.reads:
            await self._begin(position, layer, ExitStack())
            if (staged := self._staged.get(position)) is not None:
                await self._feed_from_store(staged)

    def take(self, position: int) -> Staged | None:
        """Return the layer, whose stack the caller then closes; None if there is none."""
        return self._staged.pop(position, None)

    async def wait_for_others(self, position: int) -> None:
        """Return when no other task has begun to unpack the layer, or that takes too long."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s), self._claim(position):
                pass
        self._patience_s = max(0.0, self._patience_s - (loop.time() - began_at))

    async def put(self, staged: Staged, extracted: Extracted, directory: Path) -> None:
        """Mark what is opaque, make the files durable, and let them take the directory's place.

        Raises:
            OSError: the disk or a directory doesn't allow it.
            TimeoutError: the disk is stuck.
        """
        others = [one for one in self._staged.values() if one.extraction.has_ended]
        was_synced = staged.is_synced
        async with asyncio.timeout(SYNC_DEADLINE_S):
            await asyncio.to_thread(_mark, staged.directory, extracted.opaque)
            if not was_synced:
                await asyncio.to_thread(_sync, staged.directory)
                for one in others:
                    one.is_synced = True
            if directory != staged.directory:
                await asyncio.to_thread(staged.directory.rename, directory)

    async def give_back(self, directory: Path | None) -> None:
        """Remove the files of a layer for which the disk has no room.

        containerd writes its database to remove a snapshot, and can't do that on a full disk.
        """
        if directory is not None:
            try:
                await asyncio.to_thread(empty_tree, directory)
            except OSError as error:
                log.warning("%s could not be emptied: %s", directory, error)

    async def remove(self, key: str) -> None:
        """Give the room of a snapshot back, if it was not committed."""
        ends_at = asyncio.get_running_loop().time() + REMOVE_DEADLINE_S
        with suppress(ContainerdError, TimeoutError):
            async with asyncio.timeout_at(min(ends_at, self._removals_end_at)):
                await self._snapshots.remove(key)

    def _claim(self, position: int) -> asyncio.Lock:
        """Return what a task holds while a layer is unpacked as it comes."""
        return self._locks.lock(f"claim {self._chain[position]}")

    async def _begin(self, position: int, layer: Descriptor, turn: ExitStack) -> None:
        name = self._chain[position]
        claim, held = self._claim(position), ExitStack()
        async with AsyncExitStack() as stack:
            stack.callback(turn.close)
            if not self._is_possible or position in self._staged:
                return
            if claim.locked() or self._locks.lock(name).locked():
                return
            await claim.acquire()
            held.callback(claim.release)
            stack.callback(held.close)
            if await self._snapshots.exists(name):
                return
            try:
                staged = await self._open(position, layer, stack, turn=turn, claim=held)
            except OSError as error:
                log.info("layer %s is unpacked by containerd: %s", layer.digest, error)
                return
            staged.stack = stack.pop_all()
            self._staged[position] = staged

    async def _open(
        self,
        position: int,
        layer: Descriptor,
        stack: AsyncExitStack,
        *,
        turn: ExitStack,
        claim: ExitStack,
    ) -> Staged:
        """Make a snapshot, and run a process that fills it; `stack` ends both.

        Raises:
            OSError: that can't be done here.
        """
        key = make_key(self._chain[position])
        began_at = time.time()
        stack.push_async_callback(self.remove, key)
        directory = find_directory(await self._snapshots.prepare(key, "", {}))
        if directory is None or not await asyncio.to_thread(_is_fresh, directory, began_at):
            raise OSError("the directories of containerd can't be reached")
        compression = find_compression(layer.media_type)
        extraction = await stack.enter_async_context(
            open_extraction(directory, compression, is_lowest=position == 0)
        )
        return Staged(
            layer=layer,
            key=key,
            directory=directory,
            extraction=extraction,
            turn=turn,
            claim=claim,
        )

    async def _feed_from_store(self, staged: Staged) -> None:
        """Feed what has not been fed yet, if anything, and wait until it is unpacked."""
        offset = 0
        if staged.extraction.fed_bytes < staged.layer.size:
            async with aclosing(self._content.read_pieces(staged.layer.digest)) as pieces:
                async for piece in pieces:
                    if not staged.extraction.is_open:
                        break
                    rest = piece[max(0, staged.extraction.fed_bytes - offset) :]
                    offset += len(piece)
                    if rest:
                        await staged.extraction.feed(offset - len(rest), rest)
        await staged.end()


def make_key(name: str) -> str:
    """Return the key of a snapshot in which the layer of that chain ID is unpacked."""
    return f"{_OWN_KEY}{secrets.token_hex(8)} {name}"


async def remove_leftovers(snapshots: Snapshots) -> list[str]:
    """Remove the snapshots in which an agent that was killed unpacked layers; return their keys.

    Raises:
        ContainerdError: containerd doesn't say which there are, or doesn't remove one.
    """
    left = [
        one.key
        for one in await snapshots.list()
        if one.kind is SnapshotKind.ACTIVE
        and one.key.startswith(_KEY)
        and not one.key.startswith(_OWN_KEY)
    ]
    for key in left:
        log.info("removing %s, which an agent that was killed had begun to unpack", key)
        await snapshots.remove(key)
    return left


def find_directory(mounts: Sequence[Mount]) -> Path | None:
    """Return where the files of an active snapshot are written; None if that isn't one directory.

    Source: containerd, snapshots/overlay/overlay.go, `mounts`.
    """
    if len(mounts) != 1:
        return None
    (mount,) = mounts
    if mount.type == "bind":
        return Path(mount.source)
    uppers = [one.removeprefix(_UPPER) for one in mount.options if one.startswith(_UPPER)]
    return Path(uppers[0]) if mount.type == "overlay" and len(uppers) == 1 else None


def find_compression(media_type: str) -> str:
    """Return how a layer of that type is packed, as `image.layers.stream` names it."""
    if media_type.endswith(("+zstd", ".zstd")):
        return "zstd"
    return "gzip" if media_type.endswith(("gzip", ".gzip")) else "plain"


def _is_fresh(directory: Path, since: float) -> bool:
    """Whether it is the directory that containerd has just made, and not one of another machine."""
    try:
        status = directory.lstat()
        return status.st_ctime >= since - _CLOCK_TOLERANCE_S and not any(directory.iterdir())
    except OSError:
        return False


def _mark(directory: Path, opaque: Sequence[str]) -> None:
    """Mark directories as opaque, and follow no link, nor a name that leads out.

    Raises:
        OSError: one of them isn't a directory below this one.
    """
    for name in opaque:
        if ".." in name.split("/"):
            raise OSError(errno.EINVAL, "a name that leads out of the layer")
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for part in filter(None, name.split("/")):
                below = os.open(
                    part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor
                )
                os.close(descriptor)
                descriptor = below
            os.setxattr(descriptor, OPAQUE_XATTR, b"y")
        finally:
            os.close(descriptor)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(descriptor)
