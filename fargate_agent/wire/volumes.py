"""What the volumes of a task are made from, where that isn't empty scratch space."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from fargate_agent.settings_efs import AccessPointId, FileSystemId, check_export
from fargate_agent.wire.message import Message
from fargate_agent.wire.unsupported import UnsupportedByDockerVolumes

MAX_EBS_GIB: Final = 16384
"""Source: ECS API, TaskManagedEBSVolumeConfiguration.sizeInGiB."""


class DockerVolumeMessage(UnsupportedByDockerVolumes):
    """A volume as Docker has them. Source: `DockerVolumeConfiguration`."""

    scope: Literal["task", "shared"] = "task"
    """`shared`: it outlives the task, and the next task that names it has the same files."""
    autoprovision: bool = False
    """Whether a shared volume that isn't there is made."""
    driver: str = "local"
    labels: dict[str, str] = {}


class EbsMessage(Message):
    """An EBS volume that was configured at launch.

    Source: `EBSVolumeConfiguration` for the names that ACS has; the others are ours.
    """

    volume_id: Annotated[str, Field(pattern=r"^vol-[0-9a-f]{17}$")]
    size_gib: Annotated[int, Field(ge=1, le=MAX_EBS_GIB)] | None = None
    """None: as large as the snapshot."""
    snapshot_id: str | None = None
    """What the volume begins as; None: it begins empty."""
    filesystem_type: Literal["ext3", "ext4", "xfs"] = "xfs"
    delete_on_termination: bool = True
    """Whether the volume goes with the task."""


def _take_relative(value: object) -> object:
    """`data` is `/data`, and the empty path `/`. Source: amazon-efs-utils, mount by path."""
    return f"/{value}" if isinstance(value, str) and not value.startswith("/") else value


class EfsAuthorizationMessage(Message):
    """As what a task comes to a file system of EFS."""

    access_point_id: AccessPointId | None = None
    iam: Literal["ENABLED", "DISABLED"] | None = None


class EfsMessage(Message):
    """A file system of EFS. Source: ECS API, `EFSVolumeConfiguration`."""

    file_system_id: FileSystemId
    root_directory: Annotated[
        str, BeforeValidator(_take_relative), AfterValidator(check_export)
    ] = "/"
    transit_encryption: Literal["ENABLED", "DISABLED"] | None = None
    transit_encryption_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    authorization_config: EfsAuthorizationMessage = EfsAuthorizationMessage()
