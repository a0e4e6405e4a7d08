"""A container as the control plane tells an agent of it, and a volume.

Field names are those of ACS. Knobs that ACS hides in Docker's JSON strings (user, ulimits, log
driver and so on) are fields here, named and shaped as in a task definition.

Source: amazon-ecs-agent, ecs-agent/acs/model/ecsacs/api.go.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from fargate_agent.wire.message import Message
from fargate_agent.wire.unsupported import (
    UnsupportedByContainers,
    UnsupportedByLinux,
    UnsupportedByVolumes,
)
from fargate_agent.wire.volumes import DockerVolumeMessage, EbsMessage, EfsMessage


class Dependency(Message):
    """What another container must have reached before this one starts."""

    container_name: str
    condition: Literal["START", "COMPLETE", "SUCCESS", "HEALTHY"]


class PortMapping(Message):
    """A port that a container listens on. Nothing is mapped with awsvpc; metadata shows it."""

    container_port: int | None = None
    host_port: int | None = None
    protocol: Literal["tcp", "udp"] = "tcp"


class MountPoint(Message):
    """Where a container sees a volume of its task."""

    source_volume: str
    container_path: str
    read_only: bool = False


class VolumeFrom(Message):
    """All mounts of another container, taken over."""

    source_container: str
    read_only: bool = False


class Ulimit(Message):
    """A resource limit of a container's processes."""

    name: str
    soft_limit: int
    hard_limit: int


class CapabilitiesMessage(Message):
    """Changes to the default Linux capabilities; names without `CAP_`."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class TmpfsMessage(Message):
    """A tmpfs mount; `size` in MiB."""

    container_path: str
    size: int
    mount_options: tuple[str, ...] = ()


class HealthCheckMessage(Message):
    """A command that says whether a container works. Source: ECS API, HealthCheck."""

    command: tuple[str, ...]
    """`CMD` and arguments, `CMD-SHELL` and one line for /bin/sh, or `NONE`."""
    interval: int = 30
    """Seconds between two checks."""
    timeout: int = 5
    """Seconds that a check may take."""
    retries: int = 3
    """Failures in a row that make a container UNHEALTHY."""
    start_period: int = 0
    """Seconds after a start in which failures don't count; a success ends it."""


class RestartPolicyMessage(Message):
    """Whether a container that ended is started again. Source: ECS API, ContainerRestartPolicy."""

    enabled: bool
    ignored_exit_codes: tuple[int, ...] = ()
    restart_attempt_period: int = 300
    """Seconds that a container has to run before it is restarted."""


class SystemControlMessage(Message):
    """A kernel parameter of the namespaces of a container. Source: ECS API, SystemControl."""

    namespace: str
    value: str


class LinuxParameters(UnsupportedByLinux):
    """The part of Docker's host configuration that Fargate lets a task set."""

    init_process_enabled: bool | None = None
    capabilities: CapabilitiesMessage = CapabilitiesMessage()
    tmpfs: tuple[TmpfsMessage, ...] = ()
    shared_memory_size: Annotated[int | None, Field(ge=0)] = None
    """MiB of /dev/shm; 0 and None are Docker's 64."""


class SecretMessage(Message):
    """A value that stands elsewhere. Source: `Secret`, shaped as in a task definition."""

    name: str
    value_from: str
    """ARN in Secrets Manager, or name or ARN of a parameter of Systems Manager."""
    type: Literal["ENVIRONMENT_VARIABLE", "MOUNT_POINT", "ALL_KEYS"] = "ENVIRONMENT_VARIABLE"
    """`MOUNT_POINT`: a file at `container_path`. `ALL_KEYS`, which is ours: each member of the JSON
    object is a variable, its name preceded by `prefix`."""
    container_path: str | None = None
    prefix: str = ""


class EnvironmentFileMessage(Message):
    """A file of variables in S3. Source: ECS API, EnvironmentFile."""

    value: str
    """`arn:aws:s3:::bucket/key.env`"""
    type: Literal["s3"] = "s3"


class RepositoryCredentialsMessage(Message):
    """The secret that holds `{"username": …, "password": …}` of a registry.

    Source: ECS API, RepositoryCredentials.
    """

    credentials_parameter: str
    """ARN or name of a secret of Secrets Manager."""


class FileMessage(Message):
    """A text that a container has as a file. Not in ACS: ours."""

    container_path: str
    text: str


class LogConfiguration(Message):
    """Where a container's output goes."""

    log_driver: str
    options: dict[str, str] = {}
    secret_options: tuple[SecretMessage, ...] = ()


class ContainerMessage(UnsupportedByContainers):
    """One container of a task."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")]
    container_arn: str | None = None
    image: str
    essential: bool = True
    entry_point: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    environment: dict[str, str] = {}
    user: str | None = None
    working_directory: str | None = None
    cpu: int = 0
    """CPU units, 1024 to a vCPU, as relative weight; 0 means the least."""
    memory: int | None = None
    """Hard limit in MiB."""
    memory_reservation: int | None = None
    """Soft limit in MiB."""
    depends_on: tuple[Dependency, ...] = ()
    start_timeout: int | None = None
    """Seconds that containers which depend on this one wait for it."""
    stop_timeout: int | None = None
    """Seconds between the stop signal and SIGKILL."""
    port_mappings: tuple[PortMapping, ...] = ()
    mount_points: tuple[MountPoint, ...] = ()
    volumes_from: tuple[VolumeFrom, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    linux_parameters: LinuxParameters = LinuxParameters()
    readonly_root_filesystem: bool = False
    docker_labels: dict[str, str] = {}
    log_configuration: LogConfiguration | None = None
    pseudo_terminal: bool = False
    interactive: bool | None = None
    """Whether stdin stays open."""
    health_check: HealthCheckMessage | None = None
    restart_policy: RestartPolicyMessage | None = None
    system_controls: tuple[SystemControlMessage, ...] = ()
    firelens_configuration: dict[str, Any] | None = None
    secrets: tuple[SecretMessage, ...] = ()
    environment_files: tuple[EnvironmentFileMessage, ...] = ()
    repository_credentials: RepositoryCredentialsMessage | None = None
    files: tuple[FileMessage, ...] = ()


class HostPathMessage(Message):
    """Where on the machine a volume lies. Source: ECS API, HostVolumeProperties."""

    source_path: str | None = None


class Volume(UnsupportedByVolumes):
    """A volume of a task. Without a configuration it is scratch space that ends with the task."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")]
    configured_at_launch: bool = False
    docker_volume_configuration: DockerVolumeMessage | None = None
    ebs: EbsMessage | None = None
    """Of a volume that is configured at launch. Ours."""
    host: HostPathMessage | None = None
    efs_volume_configuration: EfsMessage | None = None
