"""What the volumes of a task are made from, where that isn't empty scratch space."""

from typing import Annotated, Final, Literal

from pydantic import Field

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
    encrypted: bool = False
