"""Layers, into snapshots, each upon the one below it: by processes of the agent, or by containerd.

The snapshot of a layer is named by its chain id, so that images share what they have in common.
"""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import AlreadyExistsError, ContainerdError, UnavailableError
from fargate_agent.containerd.host_paths import hide_host_paths
from fargate_agent.containerd.types import Descriptor, Mount
from fargate_agent.egress.transport import RefusedError, TransferError
from fargate_agent.image.content import NO_SPACE
from fargate_agent.image.extraction import LayerSpaceError, Turns
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.image.manifest import chain_ids
from fargate_agent.image.staging import Staged, Staging, find_directory, make_key

log = logging.getLogger(__name__)

_DOCKER_ZSTD: Final = "application/vnd.docker.image.rootfs.diff.tar.zstd"
_OCI_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"


class Unpacker:
    """Unpacks the layers of one image under one lease; use it as a context."""

    def __init__(
        self,
        containerd: Containerd,
        snapshotter: str,
        diff_ids: tuple[str, ...],
        locks: KeyedLocks,
        turns: Turns,
    ) -> None:
        self._diff = containerd.diff
        self._snapshots = containerd.snapshots(snapshotter)
        self._diff_ids = diff_ids
        self._chain = chain_ids(diff_ids)
        self._locks = locks
        self._staging = Staging(containerd, snapshotter, self._chain, locks, turns)

    async def __aenter__(self) -> Self:
        await self._staging.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._staging.__aexit__(kind, error, trace)

    @property
    def chain_id(self) -> str:
        """Name of the snapshot of the whole image."""
        return self._chain[-1]

    async def is_done(self) -> bool:
        """Whether the whole image is unpacked."""
        return await self._snapshots.exists(self.chain_id)

    async def begin(self, position: int, layer: Descriptor) -> None:
        """Make ready to unpack a layer as it comes.

        Raises:
            TransferError: containerd went away.
            RefusedError: containerd refuses a snapshot.
        """
        with self._explained():
            await self._staging.begin(position, layer)

    async def feed(self, position: int, offset: int, piece: bytes) -> None:
        """Unpack a piece of a layer, which begins at `offset`; not verified yet.

        Raises:
            LayerSpaceError: the disk is full.
        """
        await self._staging.feed(position, offset, piece)

    async def complete(self, position: int, layer: Descriptor) -> None:
        """Unpack what of a layer has not been fed; it is in the content store.

        Raises:
            TransferError: containerd went away.
            RefusedError: containerd refuses a snapshot.
        """
        with self._explained():
            await self._staging.complete(position, layer)

    async def unpack(self, position: int, layer: Descriptor) -> None:
        """Return when this layer is unpacked. It is in the content store; those below are done.

        Raises:
            TransferError: containerd went away.
            RefusedError: the layer can't be unpacked, isn't what the image says, or the disk is
                full.
        """
        name = self._chain[position]
        staged = self._staging.take(position)
        with self._explained():
            async with AsyncExitStack() as stack:
                if staged is None:
                    await self._staging.wait_for_others(position)
                else:
                    await stack.enter_async_context(staged.stack)
                await stack.enter_async_context(self._locks.lock(name))
                if staged is not None:
                    staged.claim.close()
                if await self._snapshots.exists(name):
                    return
                if staged is None or not await self._place(position, staged):
                    await self._apply(position, layer)

    async def _place(self, position: int, staged: Staged) -> bool:
        """Make a snapshot of what has been unpacked; return whether that is the layer.

        Raises:
            RefusedError: the disk is full.
        """
        try:
            extracted = await staged.finish()
        except LayerSpaceError as error:
            await self._staging.give_back(staged.directory)
            raise RefusedError(f"{self._failed}: {NO_SPACE}") from error
        if extracted is None or extracted.diff_id != self._diff_ids[position]:
            return False
        try:
            if position == 0:
                await self._staging.put(staged, extracted, staged.directory)
                await self._commit(self._chain[0], staged.key)
                return True
            async with self._prepare(position) as (key, mounts):
                directory = find_directory(mounts)
                if directory is None:
                    return False
                await self._staging.put(staged, extracted, directory)
                await self._commit(self._chain[position], key)
        except (OSError, TimeoutError) as error:
            log.warning("layer %s is unpacked by containerd: %s", staged.layer.digest, error)
            return False
        return True

    async def _apply(self, position: int, layer: Descriptor) -> None:
        """Let containerd unpack a layer."""
        if layer.media_type == _DOCKER_ZSTD:
            # The same bytes under a name that containerd 1.6 knows.
            layer = replace(layer, media_type=_OCI_ZSTD)
        async with self._prepare(position) as (key, mounts):
            applied = await self._diff.apply(layer, mounts)
            if applied.digest != self._diff_ids[position]:
                raise RefusedError(
                    f"{self._failed}: wrong diff id calculated on extraction "
                    f'"{applied.digest}", expected "{self._diff_ids[position]}"'
                )
            await self._commit(self._chain[position], key)

    @asynccontextmanager
    async def _prepare(self, position: int) -> AsyncIterator[tuple[str, tuple[Mount, ...]]]:
        """Give a snapshot upon the layer below; if the body fails or is cancelled it goes.

        It has a name of its own, so that what a crash leaves is in nobody's way until the next
        agent removes it.
        """
        parent = self._chain[position - 1] if position else ""
        key = make_key(self._chain[position])
        mounts: tuple[Mount, ...] = ()
        try:
            mounts = await self._snapshots.prepare(key, parent, {})
            yield key, mounts
        except BaseException as error:
            if NO_SPACE in str(error).lower():
                await self._staging.give_back(find_directory(mounts))
            await self._staging.remove(key)
            raise

    async def _commit(self, name: str, key: str) -> None:
        try:
            await self._snapshots.commit(name, key, {})
        except AlreadyExistsError:
            await self._snapshots.remove(key)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except UnavailableError as error:
            raise TransferError(self._explain(error)) from error
        except ContainerdError as error:
            raise RefusedError(self._explain(error)) from error

    @property
    def _failed(self) -> str:
        return f"failed to unpack image on snapshotter {self._snapshots.snapshotter}"

    def _explain(self, error: ContainerdError) -> str:
        text = str(error)
        return f"{self._failed}: {NO_SPACE if NO_SPACE in text else hide_host_paths(text)}"
