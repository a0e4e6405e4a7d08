"""What a task and its containers are told about themselves; pure.

Facts are added as they become known. A container that isn't created yet has no id, as in ECS.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fargate_agent.plan import ContainerPlan, EniPlan, TaskPlan
from fargate_agent.task.status import (
    ContainerFacts,
    HealthFacts,
    HealthStatus,
    TaskFacts,
    TaskStatus,
)
from fargate_agent.wire.metadata import (
    ClockDrift,
    ContainerMetadata,
    ContainerMetadataV2,
    EphemeralStorageMetrics,
    Health,
    Limits,
    Network,
    NetworkAddresses,
    Port,
    TagError,
    TaskMetadataResponse,
    TaskMetadataV2,
    VolumeMount,
)

MIB: Final = 1024 * 1024
MIB_PER_GIB: Final = 1024
CPU_UNITS_PER_VCPU: Final = 1024
FARGATE: Final = "FARGATE"


class TaskView(Protocol):
    """What is planned for a task, and what has happened to it."""

    @property
    def plan(self) -> TaskPlan:
        """The plan."""
        ...

    @property
    def facts(self) -> TaskFacts:
        """The facts, as of now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What metadata say of the machine, and what was measured for the task."""

    snapshotter: str
    clock: ClockDrift | None = None
    storage_bytes: int | None = None
    """In use on the ephemeral volume; None: not known."""


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags of a task, or why they aren't known."""

    tags: Mapping[str, str]
    errors: tuple[TagError, ...] = ()


NO_TAGS: Final = Tags({})


def describe_task(task: TaskView, site: Site, tags: Tags = NO_TAGS) -> TaskMetadataResponse:
    """Return the metadata of a task, version 4."""
    plan = task.plan
    on_fargate = plan.launch_type == FARGATE
    return TaskMetadataResponse(
        **_describe_task(task, tags),
        launch_type=plan.launch_type,
        containers=tuple(describe_container(task, one, site) for one in plan.containers),
        vpc_id=None if on_fargate else plan.vpc_id,
        service_name=None if on_fargate else plan.service_name,
        group=plan.group,
        clock_drift=site.clock,
        ephemeral_storage_metrics=EphemeralStorageMetrics(
            utilized=None if site.storage_bytes is None else site.storage_bytes // MIB,
            reserved=plan.ephemeral_storage_gib * MIB_PER_GIB,
        ),
        fault_injection_enabled=plan.may_inject_faults,
    )


def describe_task_v2(task: TaskView, tags: Tags = NO_TAGS) -> TaskMetadataV2:
    """Return the metadata of a task, versions 2 and 3."""
    created = tuple(
        describe_container_v2(task, one) for one in task.plan.containers if is_created(task, one)
    )
    return TaskMetadataV2(**_describe_task(task, tags), containers=created or None)


def describe_container(task: TaskView, container: ContainerPlan, site: Site) -> ContainerMetadata:
    """Return the metadata of one container of a task, version 4."""
    return ContainerMetadata(
        **_describe_container(task, container),
        log_driver=container.log.driver,
        log_options=_log_options(task.plan, container) or None,
        container_arn=container.arn,
        networks=tuple(
            _describe_network(task.plan, eni, index, site)
            for index, eni in enumerate(task.plan.enis)
        ),
        snapshotter=site.snapshotter,
        restart_count=(
            None if container.restart is None else _find_facts(task, container).restart_count
        ),
    )


def describe_container_v2(task: TaskView, container: ContainerPlan) -> ContainerMetadataV2:
    """Return the metadata of one container of a task, versions 2 and 3."""
    enis = task.plan.enis
    return ContainerMetadataV2(
        **_describe_container(task, container),
        networks=(
            NetworkAddresses(
                ipv4_addresses=tuple(str(eni.address.ip) for eni in enis),
                ipv6_addresses=tuple(str(eni.ipv6_address.ip) for eni in enis if eni.ipv6_address)
                or None,
            ),
        ),
    )


def is_created(task: TaskView, container: ContainerPlan) -> bool:
    """Whether the container has been made, be it that it has ended since."""
    return bool(_find_facts(task, container).runs)


def _find_facts(task: TaskView, container: ContainerPlan) -> ContainerFacts:
    return task.facts.containers.get(container.name) or ContainerFacts(
        name=container.name, runtime_id=container.id
    )


def _describe_task(task: TaskView, tags: Tags) -> dict[str, Any]:
    """Return the members that all versions have."""
    plan, facts = task.plan, task.facts
    limits = Limits(
        cpu=None if plan.cpu_units is None else plan.cpu_units / CPU_UNITS_PER_VCPU,
        memory=plan.memory_mib,
    )
    return {
        "cluster": plan.cluster_arn,
        "task_arn": plan.arn,
        "family": plan.family,
        "revision": plan.revision,
        "desired_status": _desired_status(facts),
        "known_status": facts.status,
        "limits": limits if limits != Limits() else None,
        "pull_started_at": facts.pull_started_at,
        "pull_stopped_at": facts.pull_stopped_at,
        "execution_stopped_at": facts.execution_stopped_at,
        "availability_zone": plan.zone,
        "task_tags": dict(tags.tags) or None,
        "errors": tags.errors or None,
    }


def _describe_container(task: TaskView, container: ContainerPlan) -> dict[str, Any]:
    """Return the members that all versions have."""
    facts = _find_facts(task, container)
    created = bool(facts.runs)
    return {
        "docker_id": container.id if created else "",
        "name": container.name,
        "docker_name": container.name if created else "",
        "image": container.image,
        "image_id": (facts.image_digest or "") if created else "",
        "ports": tuple(
            Port(container_port=port, protocol=protocol, host_port=port)
            for port, protocol in container.ports
        )
        or None,
        "labels": dict(container.labels) or None,
        "desired_status": _desired_status(task.facts),
        "known_status": facts.status,
        "exit_code": facts.exit_code,
        "limits": Limits(cpu=container.cpu_shares, memory=container.memory_mib),
        "created_at": facts.created_at,
        "started_at": facts.started_at,
        "finished_at": facts.finished_at,
        "health": _describe_health(facts.health) if container.health is not None else None,
        "volumes": tuple(
            VolumeMount(docker_name=mount.source.name, destination=mount.destination)
            for mount in container.mounts
        )
        or None,
    }


def _log_options(task: TaskPlan, container: ContainerPlan) -> dict[str, str]:
    """Return the options, sorted; those of awslogs name the stream in place of its prefix.

    Source: ECS developer guide, task metadata endpoint version 4 for tasks on Fargate, examples.
    """
    options = dict(container.log.options)
    if container.log.driver == "awslogs":
        prefix = options.pop("awslogs-stream-prefix", None)
        options["awslogs-stream"] = (
            f"{prefix}/{container.name}/{task.id}" if prefix else container.id
        )
    return dict(sorted(options.items()))


def _describe_health(facts: HealthFacts | None) -> Health:
    if facts is None:  # it hasn't been started
        return Health()
    return Health(
        status=None if facts.status is HealthStatus.UNKNOWN else facts.status.value,
        status_since=facts.since,
        exit_code=facts.exit_code or None,
        output=facts.output or None,
    )


def _desired_status(facts: TaskFacts) -> str:
    return "STOPPED" if facts.status.is_after(TaskStatus.RUNNING) else "RUNNING"


def _describe_network(plan: TaskPlan, eni: EniPlan, index: int, site: Site) -> Network:
    ipv6 = eni.ipv6_address
    return Network(
        ipv4_addresses=(str(eni.address.ip),),
        ipv6_addresses=(str(ipv6.ip),) if ipv6 else None,
        attachment_index=index,
        mac_address=eni.mac,
        ipv4_subnet_cidr_block=str(eni.address.network),
        ipv6_subnet_cidr_block=str(ipv6.network) if ipv6 else None,
        domain_name_servers=plan.dns.servers,
        domain_name_search_list=plan.dns.search or None,
        private_dns_name=eni.private_dns_name,
        subnet_gateway_ipv4_address=f"{eni.gateway}/{eni.address.network.prefixlen}",
    )
