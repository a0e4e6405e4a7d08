"""Layers, from containerd's content store into snapshots, each upon the one below it.

The snapshot of a layer is named by its chain id, so that images share what they have in common.
"""

import secrets
from dataclasses import replace
from typing import Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import AlreadyExistsError, ContainerdError, UnavailableError
from fargate_agent.containerd.host_paths import hide_host_paths
from fargate_agent.containerd.types import Descriptor
from fargate_agent.egress.transport import RefusedError, TransferError
from fargate_agent.image.content import NO_SPACE
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.image.manifest import chain_ids

_DOCKER_ZSTD: Final = "application/vnd.docker.image.rootfs.diff.tar.zstd"
_OCI_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"


class Unpacker:
    """Unpacks the layers of one image under one lease."""

    def __init__(
        self, containerd: Containerd, snapshotter: str, diff_ids: tuple[str, ...], locks: KeyedLocks
    ) -> None:
        self._diff = containerd.diff
        self._snapshots = containerd.snapshots(snapshotter)
        self._diff_ids = diff_ids
        self._chain = chain_ids(diff_ids)
        self._locks = locks

    @property
    def chain_id(self) -> str:
        """Name of the snapshot of the whole image."""
        return self._chain[-1]

    async def is_done(self) -> bool:
        """Whether the whole image is unpacked."""
        return await self._snapshots.exists(self.chain_id)

    async def unpack(self, position: int, layer: Descriptor) -> None:
        """Return when this layer is unpacked. It is in the content store; those below are done.

        Raises:
            TransferError: containerd went away.
            RefusedError: the layer can't be unpacked, isn't what the image says, or the disk is
                full.
        """
        name = self._chain[position]
        try:
            async with self._locks.lock(name):
                if not await self._snapshots.exists(name):
                    await self._apply(position, layer)
        except UnavailableError as error:
            raise TransferError(self._explain(error)) from error
        except ContainerdError as error:
            raise RefusedError(self._explain(error)) from error

    async def _apply(self, position: int, layer: Descriptor) -> None:
        """Unpack under a name of its own, so that what a crash leaves is in nobody's way.

        The task's lease ends with the task, and with it such a left-over.
        """
        name = self._chain[position]
        parent = self._chain[position - 1] if position else ""
        key = f"fargate-unpack-{secrets.token_hex(8)} {name}"
        mounts = await self._snapshots.prepare(key, parent, {})
        if layer.media_type == _DOCKER_ZSTD:
            # The same bytes under a name that containerd 1.6 knows.
            layer = replace(layer, media_type=_OCI_ZSTD)
        try:
            applied = await self._diff.apply(layer, mounts)
            if applied.digest != self._diff_ids[position]:
                raise RefusedError(
                    f"{self._failed}: wrong diff id calculated on extraction "
                    f'"{applied.digest}", expected "{self._diff_ids[position]}"'
                )
            await self._snapshots.commit(name, key, {})
        except AlreadyExistsError:
            await self._snapshots.remove(key)
        except (ContainerdError, RefusedError):
            await self._snapshots.remove(key)
            raise

    @property
    def _failed(self) -> str:
        return f"failed to unpack image on snapshotter {self._snapshots.snapshotter}"

    def _explain(self, error: ContainerdError) -> str:
        text = str(error)
        return f"{self._failed}: {NO_SPACE if NO_SPACE in text else hide_host_paths(text)}"
