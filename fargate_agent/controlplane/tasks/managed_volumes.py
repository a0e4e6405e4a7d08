"""Volumes that a task definition leaves to be configured at launch: EBS volumes. Pure.

Texts of errors are unverified where nothing else is said.
Source: ECS API, TaskManagedEBSVolumeConfiguration and ServiceManagedEBSVolumeConfiguration.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fargate_agent.controlplane.errors import ApiError, invalid_parameter
from fargate_agent.controlplane.names import new_uuid, new_volume_id
from fargate_agent.controlplane.state.model import Task
from fargate_agent.controlplane.tags import check_tags
from fargate_agent.controlplane.validate import Json
from fargate_agent.wire.volumes import MAX_EBS_GIB

ATTACHMENT_TYPE: Final = "AmazonElasticBlockStorage"
"""Source: ECS API, Attachment.type."""
DEFAULT_TYPE: Final = "gp3"
"""Source: ECS developer guide, "Specify Amazon EBS volume configuration"; from recollection."""
DEFAULT_FILE_SYSTEM: Final = "xfs"
"""Source: ECS API, `filesystemType`."""

_SIZES_GIB: Final = {
    "gp2": (1, MAX_EBS_GIB),
    "gp3": (1, MAX_EBS_GIB),
    "io1": (4, MAX_EBS_GIB),
    "io2": (4, MAX_EBS_GIB),
    "st1": (125, MAX_EBS_GIB),
    "sc1": (125, MAX_EBS_GIB),
}
"""By the type of the volume. Source: ECS API, `sizeInGiB`; `standard` isn't on Fargate."""
_IOPS: Final = {"gp3": (3_000, 16_000), "io1": (100, 64_000), "io2": (100, 256_000)}
"""By the types that take them. Source: ECS API, `iops`; for gp2 EC2 API, CreateVolume.Iops."""
_WITH_IOPS: Final = ("io1", "io2")
"""The types that have no default for them."""
_THROUGHPUT_MIB_S: Final = (125, 1_000)
"""Source: EC2 API, CreateVolume.Throughput."""
_INITIALIZATION_MIB_S: Final = (100, 300)
"""Source: EC2 API, CreateVolume.VolumeInitializationRate."""
_FILE_SYSTEMS: Final = ("ext3", "ext4", "xfs")
_RESERVED_TAGS: Final = ("AmazonECSCreated", "AmazonECSManaged")
"""Source: ECS API, EBSTagSpecification.tags."""
_ROLE: Final = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/.+")
_SNAPSHOT: Final = re.compile(r"snap-([0-9a-f]{8}|[0-9a-f]{17})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedVolume:
    """An EBS volume as each task of a launch gets one."""

    name: str
    """In the task definition."""
    role_arn: str
    size_gib: int | None
    """None: as large as the snapshot."""
    snapshot_id: str | None
    filesystem_type: str
    delete_on_termination: bool


def plan_volumes(configurations: Sequence[Json], definition: Json) -> tuple[ManagedVolume, ...]:
    """Return the volumes that a request configures; they are all that the definition leaves open.

    Args:
        configurations: `volumeConfigurations` of RunTask.
        definition: the task definition.

    Raises:
        ApiError: a configuration can't be, has no volume, or there is none for a volume.
    """
    known = {v["name"] for v in definition.get("volumes", []) if v.get("configuredAtLaunch")}
    names = [configuration["name"] for configuration in configurations]
    if names and not known:
        raise invalid_parameter(
            "Volume configuration provided but no matching configuredAtLaunch volume found in "
            "task definition."
        )
    for name in names:
        if name not in known:
            raise invalid_parameter(
                f"The volume name '{name}' in your request does not have a matching volume in "
                "your Task Definition that is configurable at launch."
            )
    if len(set(names)) != len(names):
        raise invalid_parameter("Volume names in volumeConfigurations must be unique.")
    for name in sorted(known.difference(names)):
        raise invalid_parameter(
            f"The volume '{name}' of the task definition is configured at launch, and "
            "volumeConfigurations has no configuration for it."
        )
    return tuple(_plan_volume(one) for one in configurations)


def mint_volumes(volumes: Sequence[ManagedVolume]) -> list[Json]:
    """Return an attachment for each volume, as one task shows it; no two tasks share a volume."""
    return [
        {
            "id": new_uuid(),
            "type": ATTACHMENT_TYPE,
            "details": [
                {"name": "roleArn", "value": volume.role_arn},
                {"name": "deleteOnTermination", "value": str(volume.delete_on_termination).lower()},
                {"name": "volumeName", "value": volume.name},
                {"name": "volumeId", "value": new_volume_id()},
            ],
        }
        for volume in volumes
    ]


def configure_volumes(
    definition: Json, volumes: Sequence[ManagedVolume], attachments: Sequence[Json]
) -> Json:
    """Return a definition whose volumes are configured, for the agent's message."""
    configured = {
        volume.name: {
            "volumeId": _read_details(attachment)["volumeId"],
            "sizeGib": volume.size_gib,
            "snapshotId": volume.snapshot_id,
            "filesystemType": volume.filesystem_type,
            "deleteOnTermination": volume.delete_on_termination,
        }
        for volume, attachment in zip(volumes, attachments, strict=True)
    }
    given = [
        {**volume, **({"ebs": configured[volume["name"]]} if volume["name"] in configured else {})}
        for volume in definition.get("volumes", [])
    ]
    return {**definition, "volumes": given}


def render_attachments(task: Task) -> Iterator[Json]:
    """Give the attachments of a task's volumes as DescribeTasks shows them.

    How far one is follows from the task: its agent has made the volumes before the task is PENDING.
    """
    for attachment in task.document.get("attachments", []):
        details = _read_details(attachment)
        status = _judge(task, is_kept=details["deleteOnTermination"] == "false")
        shown = [
            detail
            for detail in attachment["details"]
            if detail["name"] != "volumeId" or status != "PRECREATED"
        ]
        yield {**attachment, "status": status, "details": shown}


def _judge(task: Task, *, is_kept: bool) -> str:
    is_told = task.delivery != "WAITING"
    if task.last_status == "STOPPED":
        return "DETACHED" if is_kept and is_told else "DELETED"
    if task.last_status == "PROVISIONING":
        return "ATTACHING" if is_told else "PRECREATED"
    return "ATTACHED"


def _read_details(attachment: Json) -> Mapping[str, str]:
    return {detail["name"]: detail["value"] for detail in attachment["details"]}


def _plan_volume(configuration: Json) -> ManagedVolume:
    name, ebs = configuration["name"], configuration.get("managedEBSVolume")
    if ebs is None:
        raise invalid_parameter(f"managedEBSVolume must be specified for the volume '{name}'.")
    if not _ROLE.fullmatch(ebs.get("roleArn", "")):
        raise _invalid(name, "roleArn must be the ARN of an IAM role")
    kind = ebs.get("volumeType", DEFAULT_TYPE)
    if kind == "standard":  # Source: ECS API, `volumeType`
        raise _invalid(name, "the volumeType standard is not supported on Fargate")
    if kind not in _SIZES_GIB:
        raise _invalid(name, f"volumeType must be one of {', '.join(_SIZES_GIB)}")
    _check_source(name, ebs, kind)
    _check_performance(name, ebs, kind)
    if ebs.get("filesystemType", DEFAULT_FILE_SYSTEM) not in _FILE_SYSTEMS:
        raise _invalid(name, f"filesystemType must be one of {', '.join(_FILE_SYSTEMS)}")
    _check_tags(name, ebs.get("tagSpecifications", []))
    return ManagedVolume(
        name=name,
        role_arn=ebs["roleArn"],
        size_gib=ebs.get("sizeInGiB"),
        snapshot_id=ebs.get("snapshotId"),
        filesystem_type=ebs.get("filesystemType", DEFAULT_FILE_SYSTEM),
        delete_on_termination=ebs.get("terminationPolicy", {}).get("deleteOnTermination", True),
    )


def _check_source(name: str, ebs: Json, kind: str) -> None:
    """Check what the volume begins as, and its size."""
    if "sizeInGiB" not in ebs and "snapshotId" not in ebs:
        raise _invalid(name, "sizeInGiB or snapshotId must be specified")
    _check_range(name, ebs, "sizeInGiB", _SIZES_GIB[kind], kind)
    if "snapshotId" in ebs and not _SNAPSHOT.fullmatch(ebs["snapshotId"]):
        raise _invalid(
            name, "snapshotId must be the id of a snapshot, such as snap-1234567890abcdef0"
        )
    if "volumeInitializationRate" in ebs and "snapshotId" not in ebs:
        raise _invalid(name, "volumeInitializationRate is only for volumes from a snapshot")
    _check_range(name, ebs, "volumeInitializationRate", _INITIALIZATION_MIB_S, kind)


def _check_performance(name: str, ebs: Json, kind: str) -> None:
    if "iops" in ebs and kind not in _IOPS:
        raise _invalid(name, f"iops is not supported for the volumeType {kind}")
    if "iops" not in ebs and kind in _WITH_IOPS:
        raise _invalid(name, f"iops is required for the volumeType {kind}")
    if kind in _IOPS:
        _check_range(name, ebs, "iops", _IOPS[kind], kind)
    if "throughput" in ebs and kind != "gp3":
        raise _invalid(name, "throughput is only supported for the volumeType gp3")
    _check_range(name, ebs, "throughput", _THROUGHPUT_MIB_S, kind)


def _check_tags(name: str, specifications: Sequence[Json]) -> None:
    for specification in specifications:
        check_tags(specification.get("tags", []))
        for tag in specification.get("tags", []):
            if tag["key"] in _RESERVED_TAGS:
                raise _invalid(name, f"the tag key {tag['key']} is reserved")
        if specification.get("propagateTags") == "SERVICE":
            raise _invalid(name, "propagateTags SERVICE is only for volumes of a service")


def _check_range(name: str, ebs: Json, member: str, bounds: tuple[int, int], kind: str) -> None:
    least, most = bounds
    if member in ebs and not least <= ebs[member] <= most:
        raise _invalid(name, f"{member} must be from {least} to {most} for the volumeType {kind}")


def _invalid(name: str, what: str) -> ApiError:
    return invalid_parameter(f"Invalid configuration of the volume '{name}': {what}.")
