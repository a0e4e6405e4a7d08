"""Root file systems of containers: the layers of an image, and above them what a container writes.

With the snapshotter overlayfs that is a directory in the ephemeral volume of the task, and
containerd mounts an overlay of both. Any other snapshotter keeps what containers write itself, in
an active snapshot for each; the ephemeral volume doesn't bound them. Containers that older agents
made have such a snapshot with overlayfs, too.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.containers import ContainerRecord
from fargate_agent.containerd.errors import AlreadyExistsError, NotFoundError
from fargate_agent.containerd.types import Mount
from fargate_agent.drivers import Image
from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime.reasons import render_error
from fargate_agent.runtime.records import RecordedRoot
from fargate_agent.runtime.views import REFERENCE_LABEL, ensure_view
from fargate_agent.threads import in_thread

OVERLAYFS: Final = "overlayfs"
"""The snapshotter whose layers are directories that an overlay can be made of."""

_ROOT_MODE: Final = 0o755
_WORK_MODE: Final = 0o711
"""Source: containerd, snapshots/overlay, `prepareDirectory`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The root file system of a container that is created."""

    image: tuple[Mount, ...]
    """How the files of its image are mounted to be read; see `runtime/rootfs.py`."""
    mounts: tuple[Mount, ...]
    """How all of it is mounted."""


class Roots:
    """Makes them in one containerd namespace."""

    def __init__(self, snapshotter: str) -> None:
        self.snapshotter = snapshotter

    @property
    def are_bounded(self) -> bool:
        """Whether the ephemeral volume of a task bounds them."""
        return self.snapshotter == OVERLAYFS

    def render(self, container: ContainerPlan, image: Image) -> RecordedRoot:
        """Return what the record of a new container says of its root file system."""
        if not self.are_bounded:
            return RecordedRoot(snapshotter=self.snapshotter, snapshot_key=container.id)
        labels = {_layers_label(self.snapshotter): image.chain_id}
        return RecordedRoot(snapshotter=self.snapshotter, labels=labels)

    async def look(
        self, client: Containerd, container: ContainerPlan, image: Image
    ) -> tuple[Mount, ...]:
        """Return how the files of the image are mounted to be read, before there is a record.

        Raises:
            CannotCreateContainerError: the image isn't there any more.
            ContainerdError: containerd refused.
        """
        try:
            if not self.are_bounded:
                return await _ensure_active(client, self.snapshotter, container.id, image.chain_id)
            return await ensure_view(client, self.snapshotter, image.chain_id, image.config_digest)
        except NotFoundError as error:
            refusal = CannotCreateContainerError(render_error(error), container=container.name)
            refusal.image_is_gone = True
            raise refusal from error

    async def make(
        self, client: Containerd, task: TaskPlan, container: ContainerPlan, image: Image
    ) -> Root:
        """Return the root file system of a new container, whose record is there.

        The record comes first because it keeps the layers: those that were there before it may be
        collected while they are mounted. It goes again if the image is gone.

        Raises:
            CannotCreateContainerError: the image isn't there any more.
            ContainerdError: containerd refused.
            OSError: the ephemeral volume is full, or the like.
        """
        try:
            layers = await self.look(client, container, image)
        except CannotCreateContainerError:
            await client.containers.delete(container.id)
            raise
        if not self.are_bounded:
            return Root(image=layers, mounts=layers)
        directory = _find_directory(task, container)
        return Root(image=layers, mounts=await in_thread(_lay_over, layers, directory))

    async def find(
        self, client: Containerd, task: TaskPlan, container: ContainerPlan, record: ContainerRecord
    ) -> tuple[Mount, ...]:
        """Return how the root file system of a container that has been made is mounted.

        Raises:
            NotFoundError: it is gone.
            ContainerdError: containerd refused.
            OSError: the ephemeral volume is full, or the like.
        """
        snapshotter = record.snapshotter or self.snapshotter
        chain_id = record.labels.get(_layers_label(snapshotter))
        if chain_id is None:
            return await client.snapshots(snapshotter).mounts(record.snapshot_key or container.id)
        mounts = await ensure_view(client, snapshotter, chain_id)
        return await in_thread(_lay_over, mounts, _find_directory(task, container))


async def _ensure_active(
    client: Containerd, snapshotter: str, key: str, chain_id: str
) -> tuple[Mount, ...]:
    snapshots = client.snapshots(snapshotter)
    try:
        return await snapshots.prepare(key, chain_id, {})
    except AlreadyExistsError:
        return await snapshots.mounts(key)


def _layers_label(snapshotter: str) -> str:
    return f"{REFERENCE_LABEL}{snapshotter}/0"


def _find_directory(task: TaskPlan, container: ContainerPlan) -> Path:
    """Return where a container's own files lie: in `fs`, as it sees them."""
    return task.storage / "c" / container.id


def _lay_over(layers: tuple[Mount, ...], directory: Path) -> tuple[Mount, ...]:
    """Return an overlay that writes into a directory, and make what it needs there; blocks.

    An image of one layer has no overlay of its own but a bind mount of that layer.
    """
    (mount,) = layers
    own = [option for option in mount.options if option not in {"ro", "rw", "rbind", "bind"}]
    lower = next((one.partition("=")[2] for one in own if one.startswith("lowerdir=")), "")
    if mount.type != "overlay":
        own, lower = ["index=off"], mount.source
    upper, work = directory / "fs", directory / "work"
    _make_directories(upper, work, lower.partition(":")[0])
    options = (
        *(option for option in own if not option.startswith("lowerdir=")),
        f"workdir={work}",
        f"upperdir={upper}",
        f"lowerdir={lower}",
    )
    return (Mount(type="overlay", source="overlay", options=options),)


def _make_directories(upper: Path, work: Path, top_layer: str) -> None:
    """Make what isn't there; what a container has changed stays as it is.

    `upper` is the root directory of the container. Its owner is that of the image's.
    """
    for directory in (upper.parent.parent, upper.parent):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not work.exists():
        upper.mkdir(exist_ok=True)
        upper.chmod(_ROOT_MODE)
        found = os.stat(top_layer)  # noqa: PTH116 - a name that containerd gave
        os.chown(upper, found.st_uid, found.st_gid)
        work.mkdir()  # the last: it says that the others are complete
        work.chmod(_WORK_MODE)
