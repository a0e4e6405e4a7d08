"""What a task and its containers are told about themselves; pure.

All names in it follow from the plan, so it is right from the first moment of a container on. Facts
are added as they become known.
"""

from typing import Final, Protocol

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
    EphemeralStorageMetrics,
    Health,
    Limits,
    Network,
    Port,
    TaskMetadataResponse,
    VolumeMount,
)

MIB_PER_GIB: Final = 1024
CPU_UNITS_PER_VCPU: Final = 1024


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


def describe_task(
    task: TaskView, snapshotter: str, clock: ClockDrift | None
) -> TaskMetadataResponse:
    """Return the metadata of a task."""
    plan, facts = task.plan, task.facts
    limits = Limits(
        cpu=None if plan.cpu_units is None else plan.cpu_units / CPU_UNITS_PER_VCPU,
        memory=plan.memory_mib,
    )
    return TaskMetadataResponse(
        cluster=plan.cluster_arn,
        task_arn=plan.arn,
        family=plan.family,
        revision=plan.revision,
        desired_status=_desired_status(facts),
        known_status=facts.status,
        limits=limits if limits != Limits() else None,
        pull_started_at=facts.pull_started_at,
        pull_stopped_at=facts.pull_stopped_at,
        execution_stopped_at=facts.execution_stopped_at,
        availability_zone=plan.zone,
        launch_type=plan.launch_type,
        containers=tuple(
            describe_container(task, container, snapshotter) for container in plan.containers
        ),
        vpc_id=plan.vpc_id,
        service_name=plan.service_name,
        group=plan.group,
        clock_drift=clock,
        ephemeral_storage_metrics=EphemeralStorageMetrics(
            reserved=plan.ephemeral_storage_gib * MIB_PER_GIB
        ),
    )


def describe_container(
    task: TaskView, container: ContainerPlan, snapshotter: str
) -> ContainerMetadata:
    """Return the metadata of one container of a task."""
    facts = task.facts.containers.get(container.name) or ContainerFacts(
        name=container.name, runtime_id=container.id
    )
    return ContainerMetadata(
        docker_id=container.id,
        name=container.name,
        docker_name=container.name,
        image=container.image,
        image_id=facts.image_digest or "",
        ports=tuple(
            Port(container_port=port, protocol=protocol, host_port=port)
            for port, protocol in container.ports
        )
        or None,
        labels=dict(container.labels) or None,
        desired_status=_desired_status(task.facts),
        known_status=facts.status,
        exit_code=facts.exit_code,
        limits=Limits(cpu=container.cpu_shares, memory=container.memory_mib),
        created_at=facts.created_at,
        started_at=facts.started_at,
        finished_at=facts.finished_at,
        health=_describe_health(facts.health) if container.health is not None else None,
        volumes=tuple(
            VolumeMount(docker_name=mount.source.name, destination=mount.destination)
            for mount in container.mounts
        )
        or None,
        log_driver=container.log.driver,
        log_options=dict(container.log.options) or None,
        container_arn=container.arn,
        networks=tuple(
            _describe_network(task.plan, eni, index) for index, eni in enumerate(task.plan.enis)
        ),
        snapshotter=snapshotter,
        restart_count=None if container.restart is None else facts.restart_count,
    )


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


def _describe_network(plan: TaskPlan, eni: EniPlan, index: int) -> Network:
    ipv6 = eni.ipv6_address
    return Network(
        ipv4_addresses=(str(eni.address.ip),),
        ipv6_addresses=(str(ipv6.ip),) if ipv6 else None,
        attachment_index=index,
        mac_address=eni.mac,
        ipv4_subnet_cidr_block=str(eni.address.network),
        ipv6_subnet_cidr_block=str(ipv6.network) if ipv6 else None,
        domain_name_servers=plan.dns.servers or None,
        domain_name_search_list=plan.dns.search or None,
        private_dns_name=eni.private_dns_name,
        subnet_gateway_ipv4_address=f"{eni.gateway}/{eni.address.network.prefixlen}",
    )
