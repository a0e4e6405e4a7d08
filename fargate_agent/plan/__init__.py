"""What a task needs, decided before anything is touched.

A plan is made once from a message and never changes. Every name in it (network namespace,
container ids) follows from the task id alone, so an agent that restarts finds what its predecessor
left behind by making the same plan again. The ids that containers ask for metadata with follow from
a random key as well, which the record of the task keeps.
"""

from fargate_agent.plan.changes import find_refused
from fargate_agent.plan.containers import plan_containers, render_runtime_id
from fargate_agent.plan.dns import plan_dns
from fargate_agent.plan.enis import change_groups, change_messages, plan_enis
from fargate_agent.plan.firelens import add_firelens, plan_firelens, route_output
from fargate_agent.plan.host_paths import HostPaths
from fargate_agent.plan.model import (
    METADATA_IFNAME,
    TIME_ADDRESS,
    TMDS_ADDRESS,
    VPC_RESOLVER,
    Condition,
    ContainerPlan,
    DependencyPlan,
    DnsPlan,
    EniPlan,
    FilePlan,
    FirelensPlan,
    HealthCheckPlan,
    LogPlan,
    Replacement,
    RestartPlan,
    RolePlan,
    Site,
    TaskPlan,
    TmpfsPlan,
    UlimitPlan,
)
from fargate_agent.plan.replacements import plan_replacements
from fargate_agent.plan.roles import plan_role, read_keys
from fargate_agent.plan.support import refuse_unsupported
from fargate_agent.plan.volume_plans import (
    EbsPlan,
    EfsPlan,
    EfsRoot,
    MountPlan,
    PersistentPlan,
    VolumePlan,
    VolumesFromPlan,
)
from fargate_agent.plan.volumes import STORAGE_DIRECTORY, plan_volumes
from fargate_agent.wire.arns import parse_task_arn
from fargate_agent.wire.messages import TaskMessage

__all__ = [
    "METADATA_IFNAME",
    "TIME_ADDRESS",
    "TMDS_ADDRESS",
    "VPC_RESOLVER",
    "Condition",
    "ContainerPlan",
    "DependencyPlan",
    "DnsPlan",
    "EbsPlan",
    "EfsPlan",
    "EfsRoot",
    "EniPlan",
    "FilePlan",
    "FirelensPlan",
    "HealthCheckPlan",
    "HostPaths",
    "LogPlan",
    "MountPlan",
    "PersistentPlan",
    "Replacement",
    "RestartPlan",
    "RolePlan",
    "Site",
    "TaskPlan",
    "TmpfsPlan",
    "UlimitPlan",
    "VolumePlan",
    "VolumesFromPlan",
    "change_groups",
    "change_messages",
    "find_refused",
    "plan_task",
    "read_keys",
    "render_runtime_id",
]


def plan_task(message: TaskMessage, site: Site, metadata_key: str = "") -> TaskPlan:
    """Decide everything about a task.

    Without a `metadata_key` the metadata ids are those that agents before it gave.

    Raises:
        ResourceInitializationError: the task asks for what can't be done here.
        TaskDependencyError: its containers wait for each other, or for one that isn't there.
    """
    arn = parse_task_arn(message.arn)
    refuse_unsupported(message)
    message = route_output(message)
    enis = plan_enis(message.elastic_network_interfaces, site.eni_ifname)
    directory = site.tasks_dir / arn.task_id
    volumes = plan_volumes(message, directory, site)
    firelens = plan_firelens(message, directory)
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
        traceparent=message.traceparent,
        vpc_id=message.vpc_id,
        ephemeral_storage_gib=message.ephemeral_storage_gib,
        netns=site.netns(arn.task_id),
        directory=directory,
        storage=directory / STORAGE_DIRECTORY,
        logs_dir=site.logs_dir / arn.task_id,
        cgroup=f"/ecs/{arn.task_id}",
        lease=f"fargate-{arn.task_id}",
        enis=enis,
        dns=plan_dns(primary, enis[0]),
        volumes=tuple(volumes.values()),
        containers=tuple(
            add_firelens(container, firelens)
            for container in plan_containers(message, site, volumes, metadata_key)
        ),
        execution_role=plan_role(message.execution_role_credentials),
        task_role=plan_role(message.role_credentials),
        firelens=firelens,
        shares_pid_namespace=bool(message.pid_mode),
        may_inject_faults=message.enable_fault_injection,
        replacements=plan_replacements(message, site),
    )
