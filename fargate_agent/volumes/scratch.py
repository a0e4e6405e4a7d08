"""Scratch volumes: directories in the ephemeral volume of a task, gone with it."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.drivers import VolumeDriver
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import TaskPlan, VolumePlan
from fargate_agent.volumes.unfinished import UNFINISHED_MODE, is_unfinished

VOLUME_MODE: Final = 0o755
"""Source: ECS developer guide, bind mounts on Fargate: owned by root, 0755."""


class ScratchVolumes(VolumeDriver):
    """Makes them; they go with the ephemeral volume."""

    async def ensure(self, task: TaskPlan, volume: VolumePlan) -> None:
        try:
            await asyncio.to_thread(_make_directory, volume.source)
        except OSError as error:
            raise ResourceInitializationError(
                f"unable to make the volume '{volume.name}': {error.strerror}"
            ) from error

    async def release(self, task: TaskPlan, volume: VolumePlan) -> None:
        return


def _make_directory(path: Path) -> None:
    """Make what isn't there; what a container has changed stays as it is."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(UNFINISHED_MODE)
    if is_unfinished(path.stat()):
        path.chmod(VOLUME_MODE)
