"""The volumes of a task in its plan, a class for each kind that needs more than a name; frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fargate_agent.settings_efs import NFS_PORT
from fargate_agent.wire.volume_kinds import VolumeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class MountPlan:
    """A directory or file of the host, seen inside a container."""

    source: Path
    destination: str
    read_only: bool
    volume: str = ""
    """Name of the volume that it is of; empty: of none."""
    taken_from: str = ""
    """Name of the container whose mount it is, by `volumesFrom`; empty: it is the container's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumesFromPlan:
    """A container whose mounts another one takes over."""

    container: str
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EbsPlan:
    """An EBS volume, which has a file system of its own."""

    volume_id: str
    """`vol-…`."""
    size_gib: int | None
    """None: as large as the snapshot."""
    snapshot_id: str | None
    """What it begins as; None: it begins empty."""
    filesystem_type: str
    """`ext3`, `ext4` or `xfs`."""
    delete_on_termination: bool
    """Whether it goes with the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistentPlan:
    """A named volume that outlives the task."""

    autoprovision: bool = False
    """Whether it is made if it isn't there."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EfsRoot:
    """How the directory that a task sees as the root of a volume is made, if it isn't there."""

    uid: int
    gid: int
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EfsPlan:
    """Where the files of an EFS volume are: in `directory`, or on `server`."""

    file_system_id: str
    path: str
    """Of the directory that the task sees, in the file system; `/` is its root."""
    directory: Path | None = None
    """Stands for the file system."""
    is_made: bool = False
    """Whether `directory` is made when it isn't there."""
    server: str = ""
    """Name or address, without the port."""
    port: int = NFS_PORT
    export: str = "/"
    """The path on the server that is the root of the file system."""
    tls: bool = False
    """Whether the server is spoken to over TLS."""
    root: EfsRoot | None = None
    """None: `path` has to be there."""
    fault: str = ""
    """Why the volume can't be mounted here. A task that has mounted it before the settings changed
    goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumePlan:
    """A volume of a task; its driver is that of its kind."""

    kind: VolumeKind
    name: str
    """In the task definition."""
    source: Path
    """The directory of the host that containers mount, once the driver has made it."""
    ebs: EbsPlan | None = None
    persistent: PersistentPlan | None = None
    efs: EfsPlan | None = None
    host_path: Path | None = None
    """Of a volume of this machine: `host.sourcePath`."""
