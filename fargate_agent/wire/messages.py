"""What the control plane and the agent say to each other over the agent's websocket (ACS).

Envelope and field names are those of ACS.

Source: amazon-ecs-agent, ecs-agent/acs/model/ecsacs/api.go.
"""

import json
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AwareDatetime, Field, SecretStr, field_serializer
from pydantic.alias_generators import to_camel

from fargate_agent.wire.arns import parse_task_arn
from fargate_agent.wire.containers import ContainerMessage, Volume
from fargate_agent.wire.eni_kinds import CNI_NETWORK_NAME
from fargate_agent.wire.message import Message
from fargate_agent.wire.names import VpcZones
from fargate_agent.wire.security_groups import SecurityGroupMessage
from fargate_agent.wire.unsupported import UnsupportedByTasks

type_names: Final[dict[str, type["Message"]]] = {}
"""Every message that may stand in an envelope, by the name it has there."""


def _check_task_arn(arn: str) -> str:
    parse_task_arn(arn)
    return arn


TaskArnField = Annotated[str, AfterValidator(_check_task_arn)]
TRACEPARENT: Final = r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
"""Source: W3C, "Trace Context"."""
DesiredStatus = Literal["RUNNING", "STOPPED"]


class Frame(Message):
    """Base of the messages that travel in an envelope of their own."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Note the name under which the class travels."""
        super().__init_subclass__(**kwargs)  # type: ignore[arg-type]
        type_names[cls.__name__] = cls


MAC: Final = r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"


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


class VlanProperties(Message):
    """Where a branch ENI hangs. Source: `NetworkInterfaceVlanProperties`."""

    vlan_id: Annotated[str, Field(pattern=r"^[0-9]{1,4}$")]
    trunk_interface_mac_address: Annotated[str, Field(pattern=MAC)] | None = None
    trunk_interface: str | None = None
    """Name of a NIC of the host, where the MAC isn't told. Ours."""


class CniProperties(Message):
    """Whose plugins make a CNI ENI. Not in ACS: ours."""

    network: Annotated[str, Field(pattern=CNI_NETWORK_NAME)]
    """Name of a network that is configured on the host."""


class EniMessage(Message):
    """One elastic network interface of a task.

    Source: `ElasticNetworkInterface`; the association protocols `cni`, `macvlan`, `nic` and `veth`
    without properties, and `mtu`, are ours.
    """

    attachment_arn: str
    ec2_id: str
    index: int = 0
    name: str | None = None
    mac_address: Annotated[str, Field(pattern=MAC)]
    ipv4_addresses: tuple[Ipv4Assignment, ...]
    ipv6_addresses: tuple[Ipv6Assignment, ...] = ()
    subnet_gateway_ipv4_address: IPv4Interface
    """The gateway with the subnet's prefix length, e.g. `10.0.1.1/24`."""
    subnet_gateway_ipv6_address: IPv6Interface | None = None
    domain_name: tuple[str, ...] = ()
    domain_name_servers: tuple[str, ...] = ()
    private_dns_name: str | None = None
    interface_association_protocol: str = "default"
    """One of `EniKind`; ACS knows `default` besides, which is `nic`, and `tunnel`, which plans
    refuse."""
    interface_macvlan_properties: MacvlanProperties | None = None
    interface_vlan_properties: VlanProperties | None = None
    interface_cni_properties: CniProperties | None = None
    mtu: Annotated[int, Field(ge=576, le=65535)] | None = None
    security_groups: tuple[str, ...] | None = None
    """Ids of the groups whose rules hold for it; None: of an older control plane, which allowed
    everything out and nothing in. Ours."""
    vpc_cidr_blocks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Ranges of its VPC: what goes there leaves no VPC and is not translated. Ours."""
    nat: bool = True
    """Whether it reaches other networks than its VPC, by an address of the machine. Ours."""


class RoleCredentialsMessage(Message):
    """A role of a task, and its credentials if the control plane has assumed it already.

    Source: `IAMRoleCredentials`. Without the keys, they come in an `IAMRoleCredentialsMessage`.
    """

    credentials_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    """Where the metadata endpoint has them. Whoever knows it gets them, so nobody must guess it."""
    role_arn: str
    access_key_id: str | None = None
    secret_access_key: Annotated[SecretStr | None, Field(exclude=True)] = None
    session_token: Annotated[SecretStr | None, Field(exclude=True)] = None
    """Neither is ever written down again, not even masked."""
    expiration: AwareDatetime | None = None
    endpoint_urls: dict[str, str] = {}
    """Where containers with this role find AWS, by what stands behind `AWS_ENDPOINT_URL_`; under an
    empty name for all other services. Ours."""
    made_from: str | None = None
    """What the role was replaced by, in words; None: it was assumed. Ours."""

    def to_wire(self) -> dict[str, Any]:
        """Return the message with the keys, which go over the wire and nowhere else."""
        shown: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        for name in ("secret_access_key", "session_token"):
            secret: SecretStr | None = getattr(self, name)
            if secret is not None:
                shown[to_camel(name)] = secret.get_secret_value()
        return shown


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
    enable_fault_injection: bool = False
    """Whether its containers may make the network of the task worse."""
    pid_mode: str | None = None
    """`task`: all containers share one PID namespace."""
    group: str | None = None
    service_name: str | None = None
    zone: str | None = None
    vpc_id: str | None = None
    cpu_architecture: Literal["X86_64", "ARM64"] = "X86_64"
    """First-class here; ACS says it nowhere."""
    ephemeral_storage_gib: int = 20
    security_groups: tuple[SecurityGroupMessage, ...] = ()
    """Those of its ENIs, and those that their rules name. Not in ACS: ours."""
    traceparent: Annotated[str, Field(pattern=TRACEPARENT)] | None = None
    """The trace that its start is a part of. Not in ACS: ours."""


class PayloadMessage(Frame):
    """Tasks to start or to stop. Each is checked alone: one bad task doesn't spoil the others."""

    message_id: str
    cluster_arn: str
    container_instance_arn: str
    generated_at: int
    seq_num: int = 0
    tasks: tuple[dict[str, Any], ...] = ()
    """Each a `TaskMessage`."""


class SecurityGroupsMessage(Frame):
    """Security groups that have changed, for every task of the agent. Not in ACS: ours."""

    message_id: str
    cluster_arn: str
    container_instance_arn: str
    groups: tuple[SecurityGroupMessage, ...] = ()
    """Each as a whole: it replaces what was known of it."""
    is_whole: bool = False
    """Whether groups that aren't here are gone: so it is after a connection is made."""


class VpcNamesMessage(Frame):
    """The private zones of VPCs that the agent has tasks in, or may get. Not in ACS: ours."""

    message_id: str
    cluster_arn: str
    container_instance_arn: str
    vpcs: tuple[VpcZones, ...] = ()
    """All there are: what isn't here is gone."""


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


RoleType = Literal["TaskApplication", "TaskExecution"]


class IAMRoleCredentialsMessage(Frame):
    """New credentials of a role of a task. Source: `IAMRoleCredentialsMessage`."""

    message_id: str
    task_arn: TaskArnField
    task_cluster_arn: str = ""
    role_type: RoleType
    role_credentials: RoleCredentialsMessage

    @field_serializer("role_credentials")
    def _show_keys(self, credentials: RoleCredentialsMessage) -> dict[str, Any]:
        """A frame is written for the wire alone."""
        return credentials.to_wire()


class IAMRoleCredentialsAckRequest(Frame):
    """The agent has taken them. Source: `IAMRoleCredentialsAckRequest`."""

    message_id: str
    credentials_id: str
    expiration: str = ""


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
