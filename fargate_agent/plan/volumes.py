"""The volumes of a task, and where containers see them; pure."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan.efs import plan_efs
from fargate_agent.plan.model import Site
from fargate_agent.plan.volume_plans import EbsPlan, MountPlan, PersistentPlan, VolumePlan
from fargate_agent.wire.container_paths import find_path_fault, normalize_path
from fargate_agent.wire.containers import ContainerMessage, Volume
from fargate_agent.wire.messages import TaskMessage
from fargate_agent.wire.volume_kinds import VolumeKind

STORAGE_DIRECTORY: Final = "storage"
"""Where the ephemeral volume is mounted, below the directory of the task."""
EBS_DIRECTORY: Final = "ebs"
"""Where EBS volumes are mounted, below the directory of the task."""

HOST_DIRECTORY: Final = "host"
"""Where directories of the machine are bound, below the directory of the task."""


def plan_volumes(message: TaskMessage, directory: Path, site: Site) -> dict[str, VolumePlan]:
    """Return the volumes of a task by name; `directory` is that of the task."""
    return {volume.name: _plan_volume(volume, directory, site) for volume in message.volumes}


def _plan_volume(volume: Volume, directory: Path, site: Site) -> VolumePlan:
    name, docker = volume.name, volume.docker_volume_configuration
    if volume.efs_volume_configuration is not None:
        return plan_efs(volume, volume.efs_volume_configuration, directory, site)
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
            source=site.volumes_dir / name,
            persistent=PersistentPlan(autoprovision=docker.autoprovision, labels=docker.labels),
        )
    if volume.host is not None and volume.host.source_path:
        return VolumePlan(
            kind=VolumeKind.HOST,
            name=name,
            source=directory / HOST_DIRECTORY / name,
            host_path=_plan_host_path(name, volume.host.source_path),
        )
    scratch = directory / STORAGE_DIRECTORY / "volumes"
    return VolumePlan(kind=VolumeKind.SCRATCH, name=name, source=scratch / name)


def plan_mounts(
    ordered: tuple[ContainerMessage, ...], volumes: Mapping[str, VolumePlan]
) -> dict[str, tuple[MountPlan, ...]]:
    """Return the mounts of each container by its name; each comes after those it takes some from.

    A container's own mounts and tmpfs win over those that it takes over, and of several containers
    the last one wins. Source: moby, daemon/volumes.go, `registerMountPoints`.

    Raises:
        ResourceInitializationError: a volume is unknown, a path can't be one of a mount, or two
            mounts have the same path.
    """
    mounts: dict[str, tuple[MountPlan, ...]] = {}
    for container in ordered:
        own = {mount.destination: mount for mount in _plan_own(container, volumes)}
        tmpfs = {normalize_path(one.container_path) for one in container.linux_parameters.tmpfs}
        taken: dict[str, MountPlan] = {}
        for other in container.volumes_from:
            for mount in mounts[other.source_container]:
                taken[mount.destination] = replace(
                    mount,
                    read_only=mount.read_only or other.read_only,
                    taken_from=other.source_container,
                )
        mounts[container.name] = (
            *own.values(),
            *(mount for path, mount in taken.items() if path not in tmpfs and path not in own),
        )
    return mounts


def _plan_host_path(name: str, path: str) -> Path:
    if path != "/" and (fault := find_path_fault(path)):
        raise ResourceInitializationError(f"volume '{name}': host.sourcePath '{path}' {fault}")
    return Path(normalize_path(path))


def _plan_own(
    container: ContainerMessage, volumes: Mapping[str, VolumePlan]
) -> Iterator[MountPlan]:
    used: set[str] = set()
    paths = [
        *(one.container_path for one in container.linux_parameters.tmpfs),
        *(point.container_path for point in container.mount_points),
    ]
    for path in paths:
        if fault := find_path_fault(path):
            raise _refuse(container, f"containerPath '{path}' {fault}")
        if normalize_path(path) in used:
            raise _refuse(container, f"two mounts at {normalize_path(path)}")
        used.add(normalize_path(path))
    for point in container.mount_points:
        if point.source_volume not in volumes:
            raise _refuse(container, f"unknown volume '{point.source_volume}'")
        yield MountPlan(
            source=volumes[point.source_volume].source,
            destination=normalize_path(point.container_path),
            read_only=point.read_only,
            volume=point.source_volume,
        )


def _refuse(container: ContainerMessage, fault: str) -> ResourceInitializationError:
    text = f"container '{container.name}': {fault}"
    return ResourceInitializationError(text, container=container.name)
