"""The volumes of a task, and where containers see them; pure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan.model import EbsPlan, MountPlan, PersistentPlan, VolumePlan
from fargate_agent.wire.containers import ContainerMessage, Volume
from fargate_agent.wire.messages import TaskMessage
from fargate_agent.wire.volume_kinds import VolumeKind

STORAGE_DIRECTORY: Final = "storage"
"""Where the ephemeral volume is mounted, below the directory of the task."""
EBS_DIRECTORY: Final = "ebs"
"""Where EBS volumes are mounted, below the directory of the task."""


def plan_volumes(message: TaskMessage, directory: Path, volumes_dir: Path) -> dict[str, VolumePlan]:
    """Return the volumes of a task by name.

    Args:
        message: the task.
        directory: that of the task.
        volumes_dir: holds the named volumes that outlive tasks.
    """
    return {volume.name: _plan_volume(volume, directory, volumes_dir) for volume in message.volumes}


def _plan_volume(volume: Volume, directory: Path, volumes_dir: Path) -> VolumePlan:
    name, docker = volume.name, volume.docker_volume_configuration
    if volume.ebs is not None:
        return VolumePlan(
            kind=VolumeKind.EBS,
            name=name,
            source=directory / EBS_DIRECTORY / name,
            ebs=EbsPlan(
                volume_id=volume.ebs.volume_id,
                size_gib=volume.ebs.size_gib,
                snapshot_id=volume.ebs.snapshot_id,
                filesystem_type=volume.ebs.filesystem_type,
                delete_on_termination=volume.ebs.delete_on_termination,
            ),
        )
    if docker is not None and docker.scope == "shared":
        return VolumePlan(
            kind=VolumeKind.PERSISTENT,
            name=name,
            source=volumes_dir / name,
            persistent=PersistentPlan(autoprovision=docker.autoprovision, labels=docker.labels),
        )
    scratch = directory / STORAGE_DIRECTORY / "volumes"
    return VolumePlan(kind=VolumeKind.SCRATCH, name=name, source=scratch / name)


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
