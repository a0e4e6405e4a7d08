"""Named volumes: directories of the agent that outlive tasks and come back for the next one."""

import asyncio
import errno
import json
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.drivers import VolumeDriver
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.files import replace_file
from fargate_agent.plan import PersistentPlan, TaskPlan, VolumePlan
from fargate_agent.runtime.volume_fill import PERSISTENT_STAGING, drop_copies
from fargate_agent.volumes.scratch import VOLUME_MODE
from fargate_agent.wire.attributes import DOCKER_PLUGIN, Attribute

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class PersistentVolumes(VolumeDriver):
    """Makes them where they are allowed to be made; only an operator removes them.

    Several tasks may have one at the same time, as with Docker.
    """

    def __init__(self) -> None:
        """Make no volume yet."""
        self._lock = threading.Lock()

    async def ensure(self, task: TaskPlan, volume: VolumePlan) -> None:
        try:
            await asyncio.to_thread(self._ensure, volume)
        except OSError as error:
            raise ResourceInitializationError(
                f"unable to make the volume '{volume.name}': {error.strerror}"
            ) from error

    async def release(self, task: TaskPlan, volume: VolumePlan) -> None:
        return

    def read_attributes(self, _root: Path) -> Iterable[Attribute]:
        return (Attribute(f"{DOCKER_PLUGIN}local"),)

    def _ensure(self, volume: VolumePlan) -> None:
        path, asked = volume.source, volume.persistent or PersistentPlan()
        path.parent.mkdir(mode=0o700, exist_ok=True)
        parent = os.open(path.parent, _DIRECTORY)
        try:
            os.fchmod(parent, 0o700)
            with self._lock:
                if _is_there(volume, parent):
                    return
                if not asked.autoprovision:
                    raise ResourceInitializationError(
                        f"the volume '{volume.name}' doesn't exist on this machine, and its "
                        "dockerVolumeConfiguration doesn't set autoprovision"
                    )
                replace_file(path.with_name(f"{path.name}.json"), _describe(asked), durable=False)
                drop_copies(path.parent / PERSISTENT_STAGING, path)  # of one that was removed
                _make(path.name, parent)
        finally:
            os.close(parent)


def _is_there(volume: VolumePlan, parent: int) -> bool:
    """Whether the volume is there, as a directory; no link is followed.

    Raises:
        ResourceInitializationError: something else has its name.
    """
    try:
        os.close(os.open(volume.source.name, _DIRECTORY, dir_fd=parent))
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise ResourceInitializationError(
                f"the volume '{volume.name}' isn't a directory: a file or a link has its name"
            ) from error
        raise
    return True


def _make(name: str, parent: int) -> None:
    """Make a volume; it gets its name when it has its mode."""
    draft = f".{name}"
    with suppress(FileExistsError):  # of an agent that was killed
        os.mkdir(draft, mode=0o700, dir_fd=parent)
    descriptor = os.open(draft, _DIRECTORY, dir_fd=parent)
    try:
        os.fchmod(descriptor, VOLUME_MODE)
    finally:
        os.close(descriptor)
    os.rename(draft, name, src_dir_fd=parent, dst_dir_fd=parent)


def _describe(volume: PersistentPlan) -> str:
    """Return what stands beside the volume, for the operator."""
    return json.dumps({"labels": dict(volume.labels)}, indent=2) + "\n"
