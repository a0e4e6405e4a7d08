"""What a task needs, decided before anything is touched.

A plan is made once from a message and never changes. Every name in it (network namespace,
container ids) follows from the task id alone, so an agent that restarts finds what its predecessor
left behind by making the same plan again.
"""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Final

from fargate_agent.errors import ResourceInitializationError, TaskDependencyError
from fargate_agent.wire.arns import parse_task_arn
from fargate_agent.wire.messages import (
    ContainerMessage,
    Dependency,
    EniMessage,
    TaskMessage,
    Volume,
)

TMDS_ADDRESS: Final = IPv4Address("169.254.170.2")
"""Where a task finds its metadata. Source: ECS developer guide, task metadata endpoint v4."""

DEFAULT_STOP_TIMEOUT_S: Final = 30
"""Source: ECS API, ContainerDefinition.stopTimeout."""

MAX_CPU_SHARES: Final = 262_144
MIN_CPU_SHARES: Final = 2
"""Source: amazon-ecs-agent, agent/api/task/task_linux.go, `minimumCPUShare`; Linux' own bounds."""

DEFAULT_LOG_DRIVER: Final = "json-file"

_UNSUPPORTED_OF_CONTAINER: Final[Mapping[str, str]] = {
    "health_check": "healthCheck",
    "secrets": "secrets",
    "environment_files": "environmentFiles",
    "restart_policy": "restartPolicy",
    "firelens_configuration": "firelensConfiguration",
    "repository_credentials": "repositoryCredentials",
    "system_controls": "systemControls",
}
"""What this agent doesn't do yet. A task that needs it is refused, never run without it."""


class EniKind(StrEnum):
    """How an ENI comes into the network namespace."""

    VETH = "veth"
    MACVLAN = "macvlan"


class Condition(StrEnum):
    """What a dependency must have reached."""

    START = "START"
    COMPLETE = "COMPLETE"
    SUCCESS = "SUCCESS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a plan has to know of the machine it is for; the same for every task of an agent."""

    netns_dir: Path
    """Network namespaces are bind-mounted here."""
    tasks_dir: Path
    """Each task has a directory here, for its files and volumes."""
    logs_dir: Path
    """Each task has a directory here, for the local copy of its output."""
    eni_ifname: str = "eth1"
    """Name of the first interface in a task. Source: amazon-ecs-agent, netlib, managed platform."""
    region: str = "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class EniPlan:
    """One interface inside the task's network namespace."""

    kind: EniKind
    id: str
    """`eni-…`."""
    attachment_arn: str
    ifname: str
    mac: str
    address: IPv4Interface
    gateway: IPv4Address
    ipv6_address: IPv6Interface | None = None
    ipv6_gateway: IPv6Address | None = None
    mtu: int | None = None
    """Bytes; None leaves the kernel's choice."""
    parent: str | None = None
    """NIC of the host that a macvlan hangs on."""
    primary: bool = True
    """The first interface: it carries the default route."""
    private_dns_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsPlan:
    """How names are resolved inside the task, and by the agent when it pulls for the task."""

    servers: tuple[str, ...]
    """Empty: those of the host."""
    search: tuple[str, ...]
    hostname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlan:
    """Where a container's output goes."""

    driver: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MountPlan:
    """A directory or file of the host, seen inside a container."""

    source: Path
    destination: str
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TmpfsPlan:
    """A tmpfs inside a container; its pages count towards the container's memory."""

    destination: str
    size_mib: int
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UlimitPlan:
    """A resource limit; -1 is unlimited."""

    name: str
    """As in a task definition, e.g. `nofile`."""
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyPlan:
    """What another container of the task must have reached first."""

    container: str
    condition: Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPlan:
    """One container, with everything that doesn't depend on its image."""

    name: str
    id: str
    """Id in containerd, and the `runtimeId` of ECS: `<task id>-<10 digits>`."""
    arn: str
    metadata_id: str
    """What stands in the metadata URI of this container."""
    image: str
    essential: bool
    entry_point: tuple[str, ...] | None
    command: tuple[str, ...] | None
    environment: Mapping[str, str]
    user: str | None
    working_directory: str | None
    cgroup: str
    cpu_shares: int
    memory_mib: int | None
    memory_reservation_mib: int | None
    mounts: tuple[MountPlan, ...]
    tmpfs: tuple[TmpfsPlan, ...]
    ulimits: tuple[UlimitPlan, ...]
    add_capabilities: tuple[str, ...]
    drop_capabilities: tuple[str, ...]
    readonly_rootfs: bool
    terminal: bool
    labels: Mapping[str, str]
    log: LogPlan
    log_path: Path
    """Local copy of the output, whatever the driver."""
    depends_on: tuple[DependencyPlan, ...]
    start_timeout_s: int | None
    stop_timeout_s: int
    ports: tuple[tuple[int, str], ...] = ()
    """Port and protocol, for the metadata only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """One task; see the module's docstring."""

    arn: str
    id: str
    cluster_arn: str
    cluster: str
    """Short name."""
    family: str
    revision: str
    cpu_units: int | None
    memory_mib: int | None
    architecture: str
    """As images name it: `amd64` or `arm64`."""
    launch_type: str
    group: str | None
    service_name: str | None
    zone: str | None
    vpc_id: str | None
    ephemeral_storage_gib: int
    netns: Path
    directory: Path
    """Files and volumes of the task; gone when it has stopped."""
    logs_dir: Path
    cgroup: str
    lease: str
    """Keeps the images and snapshots of the task from containerd's garbage collector."""
    enis: tuple[EniPlan, ...]
    dns: DnsPlan
    volumes: tuple[Path, ...]
    containers: tuple[ContainerPlan, ...] = field(default=())
    """In an order in which each comes after those it depends on."""


def plan_task(message: TaskMessage, site: Site) -> TaskPlan:
    """Decide everything about a task.

    Raises:
        ResourceInitializationError: the task asks for what can't be done here.
        TaskDependencyError: its containers wait for each other, or for one that isn't there.
    """
    arn = parse_task_arn(message.arn)
    _refuse_unsupported(message)
    enis = tuple(
        _plan_eni(position, eni, site.eni_ifname)
        for position, eni in enumerate(
            sorted(message.elastic_network_interfaces, key=lambda eni: eni.index)
        )
    )
    if not enis:
        raise ResourceInitializationError("the task has no network interface")
    directory = site.tasks_dir / arn.task_id
    volumes = {volume.name: directory / "volumes" / volume.name for volume in message.volumes}
    ordered = _order_containers(message.containers)
    mounts = _plan_mounts(ordered, volumes)
    primary = min(message.elastic_network_interfaces, key=lambda eni: eni.index)
    return TaskPlan(
        arn=message.arn,
        id=arn.task_id,
        cluster_arn=message.task_cluster_arn,
        cluster=arn.cluster,
        family=message.family,
        revision=message.version,
        cpu_units=round(message.cpu * 1024) if message.cpu else None,
        memory_mib=message.memory,
        architecture={"X86_64": "amd64", "ARM64": "arm64"}[message.cpu_architecture],
        launch_type=message.launch_type,
        group=message.group,
        service_name=message.service_name,
        zone=message.zone,
        vpc_id=message.vpc_id,
        ephemeral_storage_gib=message.ephemeral_storage_gib,
        netns=site.netns_dir / f"fargate-{arn.task_id}",
        directory=directory,
        logs_dir=site.logs_dir / arn.task_id,
        cgroup=f"/ecs/{arn.task_id}",
        lease=f"fargate-{arn.task_id}",
        enis=enis,
        dns=DnsPlan(
            servers=primary.domain_name_servers,
            search=primary.domain_name,
            hostname=primary.private_dns_name or f"ip-{str(enis[0].address.ip).replace('.', '-')}",
        ),
        volumes=tuple(volumes.values()),
        containers=tuple(
            _plan_container(container, message, site, mounts[container.name])
            for container in ordered
        ),
    )


def render_runtime_id(task_id: str, container_name: str) -> str:
    """Name a container as Fargate does: the task's id and ten digits, here made from the name."""
    number = int.from_bytes(hashlib.sha256(f"{task_id}/{container_name}".encode()).digest()[:8])
    return f"{task_id}-{number % 10**10:010d}"


def _refuse_unsupported(message: TaskMessage) -> None:
    if not message.containers:
        raise ResourceInitializationError("the task has no containers")
    if message.pid_mode is not None:
        raise ResourceInitializationError(f"pidMode '{message.pid_mode}' is not supported here")
    names = [container.name for container in message.containers]
    if len(set(names)) != len(names):
        raise ResourceInitializationError("two containers of the task have the same name")
    for container in message.containers:
        _refuse_unsupported_of(container)
    for volume in message.volumes:
        _refuse_unsupported_volume(volume)


def _refuse_unsupported_of(container: ContainerMessage) -> None:
    for attribute, name in _UNSUPPORTED_OF_CONTAINER.items():
        if getattr(container, attribute):
            raise ResourceInitializationError(
                f"container '{container.name}': {name} is not supported here",
                container=container.name,
            )
    if container.linux_parameters.init_process_enabled:
        raise ResourceInitializationError(
            f"container '{container.name}': initProcessEnabled is not supported here",
            container=container.name,
        )


def _refuse_unsupported_volume(volume: Volume) -> None:
    if (volume.host or {}).get("sourcePath"):
        raise ResourceInitializationError(
            f"volume '{volume.name}': a directory of the host can't be mounted"
        )
    if (
        volume.efs_volume_configuration is not None
        or volume.docker_volume_configuration is not None
        or volume.configured_at_launch
    ):
        raise ResourceInitializationError(
            f"volume '{volume.name}': only scratch volumes are supported here"
        )


def _plan_eni(position: int, eni: EniMessage, first_ifname: str) -> EniPlan:
    protocol = eni.interface_association_protocol
    if protocol not in set(EniKind):
        raise ResourceInitializationError(
            f"ENI {eni.ec2_id}: an interface of kind '{protocol}' is not supported here"
        )
    macvlan = eni.interface_macvlan_properties
    if protocol == EniKind.MACVLAN and macvlan is None:
        raise ResourceInitializationError(f"ENI {eni.ec2_id}: macvlan without a parent interface")
    primary = next((a.private_address for a in eni.ipv4_addresses if a.primary), None)
    if primary is None:
        raise ResourceInitializationError(f"ENI {eni.ec2_id} has no primary IPv4 address")
    gateway = eni.subnet_gateway_ipv4_address
    ipv6, ipv6_gateway = _plan_ipv6(eni)
    return EniPlan(
        kind=EniKind(protocol),
        id=eni.ec2_id,
        attachment_arn=eni.attachment_arn,
        ifname=_number_ifname(first_ifname, position),
        mac=eni.mac_address,
        address=IPv4Interface((primary, gateway.network.prefixlen)),
        gateway=gateway.ip,
        ipv6_address=ipv6,
        ipv6_gateway=ipv6_gateway,
        mtu=eni.mtu,
        parent=macvlan.parent_interface if macvlan else None,
        primary=position == 0,
        private_dns_name=eni.private_dns_name,
    )


def _plan_ipv6(eni: EniMessage) -> tuple[IPv6Interface | None, IPv6Address | None]:
    gateway = eni.subnet_gateway_ipv6_address
    address = next((a.address for a in eni.ipv6_addresses), None)
    if address is None:
        return None, None
    prefix_length = gateway.network.prefixlen if gateway else 64
    return IPv6Interface((address, prefix_length)), gateway.ip if gateway else None


def _number_ifname(first: str, position: int) -> str:
    stem = first.rstrip("0123456789")
    return f"{stem}{int(first[len(stem) :] or 0) + position}"


def _order_containers(containers: tuple[ContainerMessage, ...]) -> tuple[ContainerMessage, ...]:
    waiting = {container.name: container for container in containers}
    ordered: dict[str, ContainerMessage] = {}
    while waiting:
        free = [
            container
            for container in waiting.values()
            if all(name in ordered for name in _names_before(container, waiting.keys() | ordered))
        ]
        if not free:
            raise TaskDependencyError(
                f"containers {', '.join(sorted(waiting))} wait for each other and never start"
            )
        for container in free:
            ordered[container.name] = waiting.pop(container.name)
    return tuple(ordered.values())


def _names_before(container: ContainerMessage, known: set[str]) -> list[str]:
    names = [dependency.container_name for dependency in container.depends_on]
    names += [volume.source_container for volume in container.volumes_from]
    for name in names:
        if name not in known:
            raise TaskDependencyError(
                f"container '{container.name}' depends on container '{name}', which does not exist",
                container=container.name,
            )
    return names


def _plan_mounts(
    ordered: tuple[ContainerMessage, ...], volumes: Mapping[str, Path]
) -> dict[str, tuple[MountPlan, ...]]:
    mounts: dict[str, tuple[MountPlan, ...]] = {}
    for container in ordered:
        own: list[MountPlan] = []
        for point in container.mount_points:
            if point.source_volume not in volumes:
                raise ResourceInitializationError(
                    f"container '{container.name}': unknown volume '{point.source_volume}'",
                    container=container.name,
                )
            own.append(
                MountPlan(
                    source=volumes[point.source_volume],
                    destination=point.container_path,
                    read_only=point.read_only,
                )
            )
        for other in container.volumes_from:
            own += [
                MountPlan(
                    source=mount.source,
                    destination=mount.destination,
                    read_only=mount.read_only or other.read_only,
                )
                for mount in mounts[other.source_container]
            ]
        mounts[container.name] = tuple(own)
    return mounts


def _plan_container(
    container: ContainerMessage, task: TaskMessage, site: Site, mounts: tuple[MountPlan, ...]
) -> ContainerPlan:
    arn = parse_task_arn(task.arn)
    runtime_id = render_runtime_id(arn.task_id, container.name)
    metadata_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{task.arn}/{container.name}"))
    log = container.log_configuration
    parameters = container.linux_parameters
    return ContainerPlan(
        name=container.name,
        id=runtime_id,
        arn=container.container_arn or f"{task.arn.replace(':task/', ':container/')}/{metadata_id}",
        metadata_id=metadata_id,
        image=container.image,
        essential=container.essential,
        entry_point=container.entry_point,
        command=container.command,
        environment=_plan_environment(container, metadata_id, site.region),
        user=container.user,
        working_directory=container.working_directory,
        cgroup=f"/ecs/{arn.task_id}/{runtime_id}",
        cpu_shares=min(max(container.cpu, MIN_CPU_SHARES), MAX_CPU_SHARES),
        memory_mib=container.memory,
        memory_reservation_mib=container.memory_reservation,
        mounts=mounts,
        tmpfs=tuple(
            TmpfsPlan(destination=t.container_path, size_mib=t.size, options=t.mount_options)
            for t in parameters.tmpfs
        ),
        ulimits=tuple(
            UlimitPlan(name=u.name, soft=u.soft_limit, hard=u.hard_limit) for u in container.ulimits
        ),
        add_capabilities=parameters.capabilities.add,
        drop_capabilities=parameters.capabilities.drop,
        readonly_rootfs=container.readonly_root_filesystem,
        terminal=container.pseudo_terminal,
        labels={**container.docker_labels, **_ecs_labels(container.name, task)},
        log=LogPlan(
            driver=log.log_driver if log else DEFAULT_LOG_DRIVER, options=log.options if log else {}
        ),
        log_path=site.logs_dir / arn.task_id / f"{container.name}.log",
        depends_on=tuple(_plan_dependency(container.name, d) for d in container.depends_on),
        start_timeout_s=container.start_timeout,
        stop_timeout_s=(
            DEFAULT_STOP_TIMEOUT_S if container.stop_timeout is None else container.stop_timeout
        ),
        ports=tuple(
            (port.container_port, port.protocol)
            for port in container.port_mappings
            if port.container_port is not None
        ),
    )


def _plan_dependency(container: str, dependency: Dependency) -> DependencyPlan:
    if dependency.condition == "HEALTHY":
        raise TaskDependencyError(
            f"container '{container}' waits for '{dependency.container_name}' to be HEALTHY, "
            "and health checks are not supported here",
            container=container,
        )
    return DependencyPlan(
        container=dependency.container_name, condition=Condition(dependency.condition)
    )


def _plan_environment(
    container: ContainerMessage, metadata_id: str, region: str
) -> Mapping[str, str]:
    """The definition's environment and what Fargate adds, which wins but for the region.

    Source: amazon-ecs-agent, agent/api/task/task.go; features of Fargate 1.4.
    """
    own = container.environment
    regions = {"AWS_REGION", "AWS_DEFAULT_REGION"}
    base = f"http://{TMDS_ADDRESS}"
    return {
        **({} if regions & own.keys() else dict.fromkeys(sorted(regions), region)),
        **own,
        "ECS_CONTAINER_METADATA_URI": f"{base}/v3/{metadata_id}",
        "ECS_CONTAINER_METADATA_URI_V4": f"{base}/v4/{metadata_id}",
        "ECS_AGENT_URI": f"{base}/api/{metadata_id}",
        "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
    }


def _ecs_labels(container: str, task: TaskMessage) -> dict[str, str]:
    """Source: amazon-ecs-agent, agent/engine/docker_task_engine.go, `labelPrefix`."""
    prefix = "com.amazonaws.ecs."
    return {
        f"{prefix}cluster": task.task_cluster_arn,
        f"{prefix}container-name": container,
        f"{prefix}task-arn": task.arn,
        f"{prefix}task-definition-family": task.family,
        f"{prefix}task-definition-version": task.version,
    }
