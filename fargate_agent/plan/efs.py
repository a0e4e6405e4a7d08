"""Volumes of EFS: which server or directory has their files; pure."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from fargate_agent.plan.model import Replacement, Site
from fargate_agent.plan.volume_plans import EfsPlan, EfsRoot, VolumePlan
from fargate_agent.settings_efs import EfsAccessPoint, EfsFileSystem
from fargate_agent.wire.containers import Volume
from fargate_agent.wire.messages import TaskMessage
from fargate_agent.wire.volume_kinds import VolumeKind
from fargate_agent.wire.volumes import EfsMessage

EFS_DIRECTORY: Final = "efs"
"""Where volumes of EFS are mounted, below the directory of the task."""

_ANYBODY: Final = EfsRoot(uid=0, gid=0, mode=0o777)
"""For an access point that only EFS knows, so that any user of a container can write."""
_ROOT: Final = EfsRoot(uid=0, gid=0, mode=0o755)
"""Source: EFS user guide, "Working with users, groups, and permissions": of a new file system."""


def plan_efs(volume: Volume, asked: EfsMessage, directory: Path, site: Site) -> VolumePlan:
    """Return the plan of a volume; `directory` is that of the task."""
    mapped = site.efs.get(asked.file_system_id)
    if mapped is not None:
        plan = _plan_mapped(asked, mapped)
    elif site.is_local:
        access_point = asked.authorization_config.access_point_id
        plan = EfsPlan(
            file_system_id=asked.file_system_id,
            path=f"/{access_point}" if access_point else asked.root_directory,
            directory=site.efs_dir / asked.file_system_id,
            is_made=True,
            root=_ANYBODY if access_point else _ROOT,
        )
    else:
        plan = _plan_real(asked, site)
    return VolumePlan(
        kind=VolumeKind.EFS,
        name=volume.name,
        source=directory / EFS_DIRECTORY / volume.name,
        efs=plan,
    )


def find_efs_replacements(message: TaskMessage, site: Site) -> Iterator[Replacement]:
    """Name the file systems that something stands for, and what is done without."""
    for volume in message.volumes:
        asked = volume.efs_volume_configuration
        if asked is None:
            continue
        mapped = site.efs.get(asked.file_system_id)
        if mapped is None and not site.is_local:
            continue
        if mapped is None:
            by = "a directory of this machine"
        elif mapped.directory is not None:
            by = "the directory of the agent's setting efs"
        else:
            by = f"the NFS server {mapped.server} of the agent's setting efs"
        lost = _tell_lost(asked, has_tls=mapped is not None and mapped.tls)
        yield Replacement(kind="efs", what=asked.file_system_id, by=f"{by}{lost}")


def _plan_mapped(asked: EfsMessage, mapped: EfsFileSystem) -> EfsPlan:
    name = asked.authorization_config.access_point_id
    point = mapped.access_points.get(name) if name else None
    fault = ""
    if name and point is None:
        setting = f"efs.{asked.file_system_id}.access_points"
        fault = f"access point {name} is not in the agent's setting {setting}"
    server, port = mapped.address
    return EfsPlan(
        file_system_id=asked.file_system_id,
        path=asked.root_directory if point is None else point.path,
        directory=mapped.directory,
        server=server,
        port=port,
        export=mapped.export,
        tls=mapped.tls,
        root=None if point is None else _plan_root(point),
        fault=fault,
    )


def _plan_real(asked: EfsMessage, site: Site) -> EfsPlan:
    """Plan for EFS itself, of which NFS alone can reach what needs neither TLS nor IAM."""
    lost, fault = _list_lost(asked), ""
    if lost:
        fault = (
            f"not supported here: efsVolumeConfiguration with {' and '.join(lost)} on EFS itself;"
            f" the agent's setting efs.{asked.file_system_id} can name what stands for it"
        )
    return EfsPlan(
        fault=fault,
        file_system_id=asked.file_system_id,
        path=asked.root_directory,
        server=f"{asked.file_system_id}.efs.{site.region}.amazonaws.com",
    )


def _plan_root(point: EfsAccessPoint) -> EfsRoot | None:
    if point.owner_uid is None or point.owner_gid is None or point.permissions is None:
        return None
    return EfsRoot(uid=point.owner_uid, gid=point.owner_gid, mode=int(point.permissions, 8))


def _list_lost(asked: EfsMessage, *, has_tls: bool = False) -> list[str]:
    """Name what EFS does and NFS doesn't, with TLS or without."""
    authorization = asked.authorization_config
    return [
        *(["TLS"] if asked.transit_encryption == "ENABLED" and not has_tls else []),
        *(["IAM authorization"] if authorization.iam == "ENABLED" else []),
        *(["the user of the access point"] if authorization.access_point_id else []),
    ]


def _tell_lost(asked: EfsMessage, *, has_tls: bool) -> str:
    lost = _list_lost(asked, has_tls=has_tls)
    if not lost:
        return ""
    *first, last = lost
    return f", without {', '.join(first)}{' and ' if first else ''}{last}"


def join_export(export: str, path: str) -> str:
    """Return the path of a directory on the server.

    Example:
        >>> join_export("/srv/nfs", "/data"), join_export("/", "/")
        ('/srv/nfs/data', '/')
    """
    return str(PurePosixPath(export) / path.lstrip("/"))
