"""What an image says of volumes (`VOLUME`), done when a container of it is made.

A fresh volume that is mounted exactly at such a path starts with what the image has there. A path
that nothing is mounted at gets a volume of its own, as with Docker: in the ephemeral volume of the
task, writable even if the root file system is read-only. `volumesFrom` takes those over.

Source: moby, container/container_unix.go, `copyExistingContents`; ECS developer guide, "Use bind
mounts with Amazon ECS": the path in the container has to be that of the VOLUME.
"""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

from fargate_agent.containerd.types import Mount
from fargate_agent.drivers import Image
from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.files import replace_file
from fargate_agent.plan import ContainerPlan, MountPlan, TaskPlan
from fargate_agent.runtime.volume_fill import PERSISTENT_STAGING, Fill, fill_volumes, make_key
from fargate_agent.threads import in_thread
from fargate_agent.wire.container_paths import normalize_path
from fargate_agent.wire.volume_kinds import VolumeKind

DIRECTORY: Final = "image-volumes"
"""In the ephemeral volume of a task: copies that are made, and a directory for each container."""

COPY_TIMEOUT_S: Final = 240.0
"""How long all copies for one container may take.
Source: amazon-ecs-agent, agent/dockerclient/timeout.go, `CreateContainerTimeout`."""

_COPIED_INTO: Final = frozenset({VolumeKind.SCRATCH, VolumeKind.PERSISTENT})
"""Kinds of volumes that begin empty. What the others hold is not the task's."""

_PATHS_FILE: Final = "paths.json"


class ImageVolumes:
    """Makes and fills them for one runtime."""

    def __init__(self, timeout_s: float = COPY_TIMEOUT_S) -> None:
        """`timeout_s` is how long all copies for one container may take."""
        self._timeout_s = timeout_s
        self._locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()

    async def find_mounts(
        self, task: TaskPlan, container: ContainerPlan, image: Image
    ) -> tuple[MountPlan, ...]:
        """Return the mounts of a container that its definition doesn't name; they aren't made yet.

        Raises:
            CannotCreateContainerError: the image declares a path that can't be a volume.
        """
        declared = _read_declared(image)
        if not declared and not container.volumes_from:
            return ()
        return await asyncio.to_thread(_find_mounts, task, container, declared)

    async def fill(
        self, task: TaskPlan, container: ContainerPlan, image: Image, rootfs: Sequence[Mount]
    ) -> None:
        """Make these mounts, and fill the volumes of a container that isn't created yet.

        May be repeated. `rootfs` is how the image is mounted to be read; see `look_into`.

        Raises:
            CannotCreateContainerError: what the image has there has no room in a volume, can't be
                copied, or not in time.
        """
        declared = _read_declared(image)
        mounts = await self.find_mounts(task, container, image)
        fills = [
            *_plan_named(task, container, declared),
            *(_plan_own(task, mount) for mount in mounts if not mount.taken_from),
        ]
        if fills:
            await self._fill(task, fills, rootfs)
        if mounts:
            await in_thread(_write_paths, task, container, mounts)

    async def _fill(self, task: TaskPlan, fills: Sequence[Fill], rootfs: Sequence[Mount]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for fill in sorted(fills, key=lambda fill: fill.volume):
                await stack.enter_async_context(self._lock(fill.volume))
            try:
                async with asyncio.timeout(self._timeout_s):
                    await fill_volumes(fills, rootfs, task.directory)
            except TimeoutError as error:
                paths = ", ".join(fill.path for fill in fills)
                raise CannotCreateContainerError(
                    f"unable to copy {paths} of the image into volumes: "
                    f"not done after {self._timeout_s:g} s"
                ) from error

    def _lock(self, volume: Path) -> asyncio.Lock:
        lock = self._locks.get(volume)
        if lock is None:
            lock = self._locks[volume] = asyncio.Lock()
        return lock


def _read_declared(image: Image) -> list[str]:
    declared = sorted({normalize_path(path) for path in image.config.volumes})
    if "/" in declared:
        raise CannotCreateContainerError("the image declares VOLUME /, which can't be a volume")
    return declared


def _plan_named(task: TaskPlan, container: ContainerPlan, declared: Sequence[str]) -> list[Fill]:
    """Return the volumes of the definition that are mounted at paths that the image declares."""
    kinds = {volume.name: volume.kind for volume in task.volumes}
    found: dict[Path, Fill] = {}
    for mount in container.mounts:
        kind = kinds.get(mount.volume)
        if mount.taken_from or kind not in _COPIED_INTO or mount.destination not in declared:
            continue
        persists = kind is VolumeKind.PERSISTENT
        fill = Fill(
            path=mount.destination,
            volume=mount.source,
            name=mount.volume,
            staging=mount.source.parent / PERSISTENT_STAGING if persists else _staging(task),
            outlives_machine=persists,
        )
        found.setdefault(fill.volume, fill)
    return list(found.values())


def _plan_own(task: TaskPlan, mount: MountPlan) -> Fill:
    return Fill(
        path=mount.destination,
        volume=mount.source,
        name="",
        staging=_staging(task),
        outlives_machine=False,
    )


def _staging(task: TaskPlan) -> Path:
    return task.storage / DIRECTORY / "copies"


def _place(task: TaskPlan, container: str, path: str) -> Path:
    return task.storage / DIRECTORY / "containers" / container / make_key(path)


def _find_mounts(
    task: TaskPlan, container: ContainerPlan, declared: Sequence[str]
) -> tuple[MountPlan, ...]:
    """Return what is mounted besides what the definition says; blocks."""
    taken = {mount.destination for mount in container.mounts}
    taken |= {tmpfs.destination for tmpfs in container.tmpfs}
    inherited = _read_inherited(task, container, taken)
    taken |= {mount.destination for mount in inherited}
    own = (
        MountPlan(source=_place(task, container.name, path), destination=path, read_only=False)
        for path in declared
        if path not in taken
    )
    return (*inherited, *own)


def _read_inherited(
    task: TaskPlan, container: ContainerPlan, taken: set[str]
) -> tuple[MountPlan, ...]:
    """Return the mounts that others got here and this one takes over; blocks."""
    mounts: dict[str, MountPlan] = {}
    for other in container.volumes_from:
        file = _place(task, other.container, "").with_name(_PATHS_FILE)
        try:
            listed = json.loads(file.read_bytes())
        except FileNotFoundError:
            continue
        for one in listed:
            mounts[one["destination"]] = MountPlan(
                source=task.storage / one["source"],
                destination=one["destination"],
                read_only=one["read_only"] or other.read_only,
                taken_from=other.container,
            )
    return tuple(mount for path, mount in mounts.items() if path not in taken)


def _write_paths(task: TaskPlan, container: ContainerPlan, mounts: Sequence[MountPlan]) -> None:
    """Tell those that take them over; blocks.

    Raises:
        OSError: the disk is full.
    """
    listed = [
        {
            "destination": mount.destination,
            "source": str(mount.source.relative_to(task.storage)),
            "read_only": mount.read_only,
        }
        for mount in mounts
    ]
    file = _place(task, container.name, "").with_name(_PATHS_FILE)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(file, json.dumps(listed), durable=False)
