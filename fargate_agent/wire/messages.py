"""What the control plane and the agent say to each other over the agent's websocket (ACS).

Envelope and field names are those of ACS. Knobs that ACS hides in Docker's JSON strings (user,
ulimits, log driver and so on) are fields here, named and shaped as in a task definition.

Source: amazon-ecs-agent, ecs-agent/acs/model/ecsacs/api.go.
"""

import json
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AwareDatetime, Field, SecretStr

from fargate_agent.wire.arns import parse_task_arn
from fargate_agent.wire.message import Message
from fargate_agent.wire.unsupported import (
    UnsupportedByContainers,
    UnsupportedByLinux,
    UnsupportedByTasks,
    UnsupportedByVolumes,
)

type_names: Final[dict[str, type["Message"]]] = {}
"""Every message that may stand in an envelope, by the name it has there."""


def _check_task_arn(arn: str) -> str:
    parse_task_arn(arn)
    return arn


TaskArnField = Annotated[str, AfterValidator(_check_task_arn)]
DesiredStatus = Literal["RUNNING", "STOPPED"]


class Frame(Message):
    """Base of the messages that travel in an envelope of their own."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Note the name under which the class travels."""
        super().__init_subclass__(**kwargs)  # type: ignore[arg-type]
        type_names[cls.__name__] = cls


class Ipv4Assignment(Message):
    """One IPv4 address of an ENI."""

    private_address: IPv4Address
    primary: bool = False


class Ipv6Assignment(Message):
    """One IPv6 address of an ENI."""

    address: IPv6Address
    primary: bool = False


class MacvlanProperties(Message):
    """Where a macvlan ENI hangs. Not in ACS: ours."""

    parent_interface: str
    """Name of a NIC of the host."""


class EniMessage(Message):
    """One elastic network interface of a task.

    Source: `ElasticNetworkInterface`; the association protocol `macvlan` and `mtu` are ours.
    """

    attachment_arn: str
    ec2_id: str
    index: int = 0
    name: str | None = None
    mac_address: Annotated[str, Field(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]
    ipv4_addresses: tuple[Ipv4Assignment, ...]
    ipv6_addresses: tuple[Ipv6Assignment, ...] = ()
    subnet_gateway_ipv4_address: IPv4Interface
    """The gateway with the subnet's prefix length, e.g. `10.0.1.1/24`."""
    subnet_gateway_ipv6_address: IPv6Interface | None = None
    domain_name: tuple[str, ...] = ()
    domain_name_servers: tuple[str, ...] = ()
    private_dns_name: str | None = None
    interface_association_protocol: str = "default"
    """One of `EniKind`; ACS knows `default`, `tunnel` and `vlan` besides, which plans refuse."""
    interface_macvlan_properties: MacvlanProperties | None = None
    mtu: Annotated[int, Field(ge=576, le=65535)] | None = None


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


class SecretMessage(Message):
    """A value that stands elsewhere. Source: `Secret`, shaped as in a task definition."""

    name: str
    value_from: str
    """ARN in Secrets Manager, or name or ARN of a parameter of Systems Manager."""


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


class Volume(UnsupportedByVolumes):
    """A volume of a task. Without a configuration it is scratch space that ends with the task."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")]
    host: dict[str, Any] | None = None


class RoleCredentialsMessage(Message):
    """A role of a task, and its credentials if the control plane has assumed it already.

    Source: `IAMRoleCredentials`. Without the keys, which is ours, the agent assumes the role.
    """

    credentials_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    """Where the metadata endpoint has them. Whoever knows it gets them, so nobody must guess it."""
    role_arn: str
    access_key_id: str | None = None
    secret_access_key: Annotated[SecretStr | None, Field(exclude=True)] = None
    session_token: Annotated[SecretStr | None, Field(exclude=True)] = None
    """Neither is ever written down again, not even masked."""
    expiration: AwareDatetime | None = None


class TaskMessage(UnsupportedByTasks):
    """A task and the status it should have."""

    arn: TaskArnField
    task_cluster_arn: str
    desired_status: DesiredStatus
    family: str
    version: str
    """Revision of the task definition."""
    cpu: float | None = None
    """vCPUs."""
    memory: int | None = None
    """MiB."""
    execution_role_credentials: RoleCredentialsMessage | None = None
    """For what the agent and the loggers do for the task."""
    role_credentials: RoleCredentialsMessage | None = None
    """For what the containers of the task do."""
    containers: tuple[ContainerMessage, ...]
    elastic_network_interfaces: tuple[EniMessage, ...] = ()
    volumes: tuple[Volume, ...] = ()
    launch_type: str = "FARGATE"
    pid_mode: str | None = None
    """`task`: all containers share one PID namespace."""
    group: str | None = None
    service_name: str | None = None
    zone: str | None = None
    vpc_id: str | None = None
    cpu_architecture: Literal["X86_64", "ARM64"] = "X86_64"
    """First-class here; ACS says it nowhere."""
    ephemeral_storage_gib: int = 20


class PayloadMessage(Frame):
    """Tasks to start or to stop. Each is checked alone: one bad task doesn't spoil the others."""

    message_id: str
    cluster_arn: str
    container_instance_arn: str
    generated_at: int
    seq_num: int = 0
    tasks: tuple[dict[str, Any], ...] = ()
    """Each a `TaskMessage`."""


class TaskIdentifier(Message):
    """A task and the status it should have, without its definition."""

    task_arn: str
    task_cluster_arn: str
    desired_status: DesiredStatus


class TaskManifestMessage(Frame):
    """Every task that this agent should have, at a point of the timeline."""

    message_id: str
    cluster_arn: str
    container_instance_arn: str
    generated_at: int
    timeline: int
    tasks: tuple[TaskIdentifier, ...] = ()


class TaskStopVerificationMessage(Frame):
    """Tasks the agent has and the manifest lacks: may they be stopped?"""

    message_id: str
    stop_candidates: tuple[TaskIdentifier, ...]


class TaskStopVerificationAck(Frame):
    """The candidates that are indeed to be stopped."""

    message_id: str
    generated_at: int = 0
    stop_tasks: tuple[TaskIdentifier, ...] = ()


class HeartbeatMessage(Frame):
    """The control plane is there."""

    message_id: str
    healthy: bool = True


class HeartbeatAckRequest(Frame):
    """The agent is there."""

    message_id: str


class AckRequest(Frame):
    """A message was taken over: from now on the agent answers for it."""

    message_id: str
    cluster: str
    container_instance: str


class NackRequest(Frame):
    """A message was refused."""

    message_id: str
    cluster: str
    container_instance: str
    reason: str


class ErrorMessage(Frame):
    """The control plane could not do what it was asked."""

    message: str


def parse_frame(text: str | bytes) -> Frame | None:
    """Read one envelope, `{"type": …, "message": {…}}`; None for a type this side doesn't know.

    Raises:
        ValueError: it is not JSON, not an envelope, or its message lacks a field. The text says
            which; pydantic's `ValidationError` is one.
    """
    envelope = json.loads(text)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("type"), str):
        raise ValueError("a frame is an object with the members type and message")
    kind = type_names.get(envelope["type"])
    if kind is None:
        return None
    frame = kind.model_validate(envelope.get("message"))
    if not isinstance(frame, Frame):
        raise TypeError(f"{kind.__name__} is not a frame")
    return frame


def render_frame(frame: Frame) -> str:
    """Write one envelope."""
    message = frame.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps({"type": type(frame).__name__, "message": message})
