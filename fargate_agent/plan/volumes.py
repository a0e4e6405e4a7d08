"""The volumes of a task, and where containers see them; pure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan.model import MountPlan, VolumePlan
from fargate_agent.wire.containers import ContainerMessage
from fargate_agent.wire.messages import TaskMessage
from fargate_agent.wire.volume_kinds import VolumeKind

STORAGE_DIRECTORY: Final = "storage"
"""Where the ephemeral volume is mounted, below the directory of the task."""


def plan_volumes(message: TaskMessage, directory: Path) -> dict[str, VolumePlan]:
    """Return the volumes of a task by name; `directory` is that of the task."""
    scratch = directory / STORAGE_DIRECTORY / "volumes"
    return {
        volume.name: VolumePlan(
            kind=VolumeKind.SCRATCH, name=volume.name, source=scratch / volume.name
        )
        for volume in message.volumes
    }


def plan_mounts(
    ordered: tuple[ContainerMessage, ...], volumes: Mapping[str, VolumePlan]
) -> dict[str, tuple[MountPlan, ...]]:
    """Return the mounts of each container by its name; each comes after those it takes some from.

    Raises:
        ResourceInitializationError: a volume is unknown.
    """
    mounts: dict[str, tuple[MountPlan, ...]] = {}
    for container in ordered:
        own: list[MountPlan] = []
        for point in container.mount_points:
            if point.source_volume not in volumes:
                raise ResourceInitializationError(
                    f"container '{container.name}': unknown volume '{point.source_volume}'",
                    container=container.name,
                )
            own.append(
                MountPlan(
                    source=volumes[point.source_volume].source,
                    destination=point.container_path,
                    read_only=point.read_only,
                    volume=point.source_volume,
                )
            )
        for other in container.volumes_from:
            own += [
                MountPlan(
                    source=mount.source,
                    destination=mount.destination,
                    read_only=mount.read_only or other.read_only,
                    volume=mount.volume,
                )
                for mount in mounts[other.source_container]
            ]
        mounts[container.name] = tuple(own)
    return mounts
