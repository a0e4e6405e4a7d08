"""What the task metadata endpoint answers, versions 2, 3 and 4.

Members stand in the order in which ECS has them, and are left out where ECS leaves them out.

Source: amazon-ecs-agent, ecs-agent/tmds/handlers/v4/state/response.go and v2/response.go; ECS
developer guide, task metadata endpoint version 4 for tasks on Fargate.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel, to_pascal


def render_moment(moment: datetime) -> str:
    """Write a time as Go does: RFC 3339, no more digits of a second than there are."""
    text = f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"
    return text.rstrip("0").removesuffix(".") + "Z"


def _without_zero_fraction(number: float) -> int | float:
    return int(number) if number == int(number) else number


Moment = Annotated[datetime, PlainSerializer(render_moment)]
Number = Annotated[float, PlainSerializer(_without_zero_fraction)]


class Shape(BaseModel):
    """Base of every shape; None is left out."""

    model_config = ConfigDict(
        alias_generator=to_pascal, defer_build=True, extra="forbid", populate_by_name=True
    )

    def to_json(self) -> bytes:
        """Return the shape as it goes over the wire."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class Port(Shape):
    """A port that a container says it listens on."""

    container_port: int
    protocol: str
    host_port: int
    """The same: with awsvpc nothing is mapped."""


class Limits(Shape):
    """What a container or a task may use. Of a task, `cpu` is in vCPUs, else in CPU units."""

    cpu: Annotated[Number | None, Field(alias="CPU")] = None
    memory: int | None = None
    """MiB."""


class VolumeMount(Shape):
    """Where a container sees a volume of its task."""

    docker_name: str
    destination: str


class Network(Shape):
    """One ENI of the task."""

    network_mode: Literal["awsvpc"] = "awsvpc"
    ipv4_addresses: Annotated[tuple[str, ...], Field(alias="IPv4Addresses")]
    ipv6_addresses: Annotated[tuple[str, ...] | None, Field(alias="IPv6Addresses")] = None
    attachment_index: int
    mac_address: Annotated[str, Field(alias="MACAddress")]
    ipv4_subnet_cidr_block: Annotated[str, Field(alias="IPv4SubnetCIDRBlock")]
    ipv6_subnet_cidr_block: Annotated[str | None, Field(alias="IPv6SubnetCIDRBlock")] = None
    domain_name_servers: tuple[str, ...] | None = None
    domain_name_search_list: tuple[str, ...] | None = None
    private_dns_name: Annotated[str | None, Field(alias="PrivateDNSName")] = None
    subnet_gateway_ipv4_address: Annotated[str, Field(alias="SubnetGatewayIpv4Address")]
    """With the subnet's prefix length."""


class NetworkAddresses(Shape):
    """All ENIs of the task, as versions 2 and 3 have them."""

    network_mode: Literal["awsvpc"] = "awsvpc"
    ipv4_addresses: Annotated[tuple[str, ...], Field(alias="IPv4Addresses")]
    ipv6_addresses: Annotated[tuple[str, ...] | None, Field(alias="IPv6Addresses")] = None


class Health(Shape):
    """What a container's health check has found; what says nothing is left out."""

    model_config = ConfigDict(alias_generator=to_camel)

    status: str | None = None
    """HEALTHY or UNHEALTHY; None: nothing yet."""
    status_since: Moment | None = None
    exit_code: int | None = None
    """Of the last check, if it failed."""
    output: str | None = None
    """The end of what the last check wrote."""


class _Container(Shape):
    """What every version has of a container, as far as the order goes."""

    docker_id: str
    """Empty until it is created, as the next two are."""
    name: str
    docker_name: str
    image: str
    image_id: Annotated[str, Field(alias="ImageID")]
    ports: tuple[Port, ...] | None = None
    labels: dict[str, str] | None = None
    desired_status: str
    known_status: str
    exit_code: int | None = None
    limits: Limits
    created_at: Moment | None = None
    started_at: Moment | None = None
    finished_at: Moment | None = None
    type: Literal["NORMAL"] = "NORMAL"


class ContainerMetadataV2(_Container):
    """One container, in versions 2 and 3."""

    networks: tuple[NetworkAddresses, ...]
    health: Health | None = None
    volumes: tuple[VolumeMount, ...] | None = None


class ContainerMetadata(_Container):
    """One container, in version 4."""

    health: Health | None = None
    """Of a container with a health check."""
    volumes: tuple[VolumeMount, ...] | None = None
    log_driver: str
    log_options: dict[str, str] | None = None
    container_arn: Annotated[str, Field(alias="ContainerARN")]
    networks: tuple[Network, ...]
    snapshotter: str
    restart_count: int | None = None
    """Of a container with a restart policy."""


class ClockDrift(Shape):
    """How wrong the machine's clock may be."""

    clock_error_bound: Number
    """Milliseconds."""
    reference_timestamp: Moment
    clock_synchronization_status: Literal["SYNCHRONIZED", "NOT_SYNCHRONIZED"]


class EphemeralStorageMetrics(Shape):
    """The ephemeral volume of the task, in MiB."""

    utilized: int | None = None
    """None: nothing bounds the task, or it can't be measured now."""
    reserved: int


class TagError(Shape):
    """Why tags are missing."""

    error_field: str
    """Which member they would be."""
    error_code: str | None = None
    error_message: str
    status_code: int | None = None
    """Of HTTP."""
    request_id: str | None = None
    resource_arn: Annotated[str, Field(alias="ResourceARN")]


class _Task(Shape):
    """What every version has of a task, as far as the order goes."""

    cluster: str
    task_arn: Annotated[str, Field(alias="TaskARN")]
    family: str
    revision: str
    desired_status: str
    known_status: str


class TaskMetadataV2(_Task):
    """One task, in versions 2 and 3; only the containers that were created."""

    containers: tuple[ContainerMetadataV2, ...] | None = None
    limits: Limits | None = None
    pull_started_at: Moment | None = None
    pull_stopped_at: Moment | None = None
    execution_stopped_at: Moment | None = None
    availability_zone: str | None = None
    task_tags: dict[str, str] | None = None
    errors: tuple[TagError, ...] | None = None


class TaskMetadataResponse(_Task):
    """One task, in version 4."""

    limits: Limits | None = None
    pull_started_at: Moment | None = None
    pull_stopped_at: Moment | None = None
    execution_stopped_at: Moment | None = None
    availability_zone: str | None = None
    task_tags: dict[str, str] | None = None
    launch_type: str
    errors: tuple[TagError, ...] | None = None
    containers: tuple[ContainerMetadata, ...]
    vpc_id: Annotated[str | None, Field(alias="VPCID")] = None
    """Not of the launch type FARGATE, nor is the next."""
    service_name: str | None = None
    group: str | None = None
    clock_drift: ClockDrift | None = None
    ephemeral_storage_metrics: EphemeralStorageMetrics
    fault_injection_enabled: bool = False
