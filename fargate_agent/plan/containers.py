"""From the containers of a message to those of a plan; pure."""

import hashlib
import uuid
from collections.abc import Mapping
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan.files import plan_files, plan_secret_objects
from fargate_agent.plan.model import (
    TMDS_ADDRESS,
    ContainerPlan,
    HealthCheckPlan,
    LogPlan,
    RestartPlan,
    Site,
    TmpfsPlan,
    UlimitPlan,
)
from fargate_agent.plan.order import StartOrder, has_check, plan_order
from fargate_agent.plan.volume_plans import MountPlan, VolumePlan, VolumesFromPlan
from fargate_agent.plan.volumes import plan_mounts
from fargate_agent.wire.arns import parse_task_arn
from fargate_agent.wire.container_paths import normalize_path
from fargate_agent.wire.containers import ContainerMessage
from fargate_agent.wire.log_options import DRIVER_OPTIONS
from fargate_agent.wire.messages import TaskMessage

DEFAULT_STOP_TIMEOUT_S: Final = 30
"""Source: ECS API, ContainerDefinition.stopTimeout."""

DEFAULT_CHECK_INTERVAL_S: Final = 30
DEFAULT_CHECK_TIMEOUT_S: Final = 5
DEFAULT_CHECK_RETRIES: Final = 3
"""Source: ECS API, HealthCheck."""

_CHECKS: Final = {"CMD": (), "CMD-SHELL": ("/bin/sh", "-c")}
"""What goes before the arguments of a health check, by its first word."""

MAX_CPU_SHARES: Final = 262_144
MIN_CPU_SHARES: Final = 2
"""Source: amazon-ecs-agent, agent/api/task/task_linux.go, `minimumCPUShare`; Linux' own bounds."""

REGIONS: Final = frozenset({"AWS_REGION", "AWS_DEFAULT_REGION"})
"""Variables that Fargate adds unless there is one of them."""
INJECTED: Final = frozenset(
    {
        "AWS_EXECUTION_ENV",
        "ECS_AGENT_URI",
        "ECS_CONTAINER_METADATA_URI",
        "ECS_CONTAINER_METADATA_URI_V4",
    }
)
"""Variables that Fargate adds whatever a task definition says."""

LOG_FAULTS_DIRECTORY: Final = "log-faults"
STDIN_DIRECTORY: Final = "stdin"
EXECS_DIRECTORY: Final = "execs"
"""Below the directory of the task."""


def plan_containers(
    message: TaskMessage, site: Site, volumes: Mapping[str, VolumePlan], metadata_key: str
) -> tuple[ContainerPlan, ...]:
    """Decide everything about every container; each comes after those it depends on.

    Raises:
        ResourceInitializationError: a volume is unknown.
        TaskDependencyError: no order does what they depend on.
    """
    order = plan_order(message)
    mounts = plan_mounts(order.containers, volumes)
    return tuple(
        _plan_container(container, message, order, site, mounts[container.name], metadata_key)
        for container in order.containers
    )


def render_runtime_id(task_id: str, container_name: str) -> str:
    """Name a container as Fargate does: the task's id and ten digits, here made from the name."""
    number = int.from_bytes(hashlib.sha256(f"{task_id}/{container_name}".encode()).digest()[:8])
    return f"{task_id}-{number % 10**10:010d}"


def _plan_container(
    container: ContainerMessage,
    task: TaskMessage,
    order: StartOrder,
    site: Site,
    mounts: tuple[MountPlan, ...],
    metadata_key: str,
) -> ContainerPlan:
    arn = parse_task_arn(task.arn)
    runtime_id = render_runtime_id(arn.task_id, container.name)
    public_id = uuid.uuid5(uuid.NAMESPACE_URL, f"{task.arn}/{container.name}")
    metadata_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{metadata_key}{task.arn}/{container.name}"))
    parameters = container.linux_parameters
    return ContainerPlan(
        name=container.name,
        id=runtime_id,
        arn=container.container_arn or f"{task.arn.replace(':task/', ':container/')}/{public_id}",
        metadata_id=metadata_id,
        image=container.image,
        essential=container.essential,
        entry_point=container.entry_point,
        command=container.command,
        environment={
            **_endpoint_environment(task),
            **_plan_environment(container, metadata_id, site.region),
            **_role_environment(task),
        },
        secrets={
            secret.name: secret.value_from
            for secret in container.secrets
            if secret.type == "ENVIRONMENT_VARIABLE"
        },
        environment_files=tuple(file.value for file in container.environment_files),
        injected=INJECTED | _role_environment(task).keys(),
        gives_way=(
            *(() if REGIONS & container.environment.keys() else (REGIONS,)),
            *(
                frozenset({name})
                for name in _endpoint_environment(task)
                if name not in container.environment
            ),
        ),
        user=container.user,
        working_directory=container.working_directory,
        cgroup=f"/ecs/{arn.task_id}/{runtime_id}",
        cpu_shares=min(max(container.cpu, MIN_CPU_SHARES), MAX_CPU_SHARES),
        memory_mib=container.memory,
        memory_reservation_mib=container.memory_reservation,
        mounts=mounts,
        tmpfs=tuple(
            TmpfsPlan(
                destination=normalize_path(t.container_path),
                size_mib=t.size,
                options=t.mount_options,
            )
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
        log=_plan_log(container, task.arn, site),
        log_path=site.logs_dir / arn.task_id / f"{container.name}.log",
        log_fault_path=site.tasks_dir / arn.task_id / LOG_FAULTS_DIRECTORY / container.name,
        execs_dir=site.tasks_dir / arn.task_id / EXECS_DIRECTORY / container.name,
        depends_on=order.depends_on[container.name],
        stops_after=order.stops_after[container.name],
        health=_plan_health(container),
        restart=_plan_restart(container),
        start_timeout_s=container.start_timeout,
        stop_timeout_s=(
            DEFAULT_STOP_TIMEOUT_S if container.stop_timeout is None else container.stop_timeout
        ),
        ports=tuple(
            (port.container_port, port.protocol)
            for port in container.port_mappings
            if port.container_port is not None
        ),
        stdin=(
            site.tasks_dir / arn.task_id / STDIN_DIRECTORY / container.name
            if container.interactive
            else None
        ),
        init=parameters.init_process_enabled is True,
        repository_credentials=(
            container.repository_credentials.credentials_parameter
            if container.repository_credentials
            else None
        ),
        sysctls={control.namespace: control.value for control in container.system_controls},
        secret_objects=plan_secret_objects(container),
        files=plan_files(container),
        volumes_from=tuple(
            VolumesFromPlan(container=other.source_container, read_only=other.read_only)
            for other in container.volumes_from
        ),
        shm_size_mib=parameters.shared_memory_size or None,
    )


def _plan_log(container: ContainerMessage, task_arn: str, site: Site) -> LogPlan:
    """Put secrets apart, so that nobody shows them who shows options."""
    log = container.log_configuration
    if log is None:
        return LogPlan(driver=site.default_log_driver, options={})
    known = DRIVER_OPTIONS.get(log.log_driver)
    hidden = known.secrets if known else frozenset()
    key = f"{site.secrets_key}/{task_arn}/{container.name}"
    return LogPlan(
        driver=log.log_driver,
        options={name: value for name, value in log.options.items() if name not in hidden},
        secrets={secret.name: secret.value_from for secret in log.secret_options},
        plain_secrets={name: value for name, value in log.options.items() if name in hidden},
        secrets_id=str(uuid.uuid5(uuid.NAMESPACE_URL, key)),
        is_local=log.log_driver == "awslogs" and site.logs_are_local,
    )


def _plan_health(container: ContainerMessage) -> HealthCheckPlan | None:
    """What is 0 is the default, as with Docker.

    Raises:
        ResourceInitializationError: nobody knows how to run the command.
    """
    check = container.health_check
    if check is None or not has_check(container):
        return None
    kind, *rest = check.command or ("",)
    if kind not in _CHECKS or not rest:
        raise ResourceInitializationError(
            f"container '{container.name}': the command of a health check begins with CMD or "
            "CMD-SHELL, and has more",
            container=container.name,
        )
    return HealthCheckPlan(
        argv=(*_CHECKS[kind], *rest),
        interval_s=check.interval or DEFAULT_CHECK_INTERVAL_S,
        timeout_s=check.timeout or DEFAULT_CHECK_TIMEOUT_S,
        retries=check.retries or DEFAULT_CHECK_RETRIES,
        start_period_s=check.start_period,
    )


def _plan_restart(container: ContainerMessage) -> RestartPlan | None:
    policy = container.restart_policy
    if policy is None or not policy.enabled:
        return None
    return RestartPlan(
        ignored_exit_codes=frozenset(policy.ignored_exit_codes),
        attempt_period_s=policy.restart_attempt_period,
    )


def _plan_environment(
    container: ContainerMessage, metadata_id: str, region: str
) -> Mapping[str, str]:
    """The definition's environment and what Fargate adds, which wins but for the region.

    What comes by reference is added when the container is made: see `secrets.environment`.

    Source: amazon-ecs-agent, agent/api/task/task.go; features of Fargate 1.4.
    """
    own = container.environment
    base = f"http://{TMDS_ADDRESS}"
    return {
        **({} if REGIONS & own.keys() else dict.fromkeys(sorted(REGIONS), region)),
        **own,
        "ECS_CONTAINER_METADATA_URI": f"{base}/v3/{metadata_id}",
        "ECS_CONTAINER_METADATA_URI_V4": f"{base}/v4/{metadata_id}",
        "ECS_AGENT_URI": f"{base}/api/{metadata_id}",
        "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
    }


def _endpoint_environment(task: TaskMessage) -> Mapping[str, str]:
    """Where containers find AWS, if it isn't where SDKs look by themselves.

    Whatever the definition sets comes before. Source: AWS SDKs and tools reference guide,
    "Service-specific endpoints".
    """
    role = task.role_credentials
    urls = role.endpoint_urls if role is not None else {}
    return {
        f"AWS_ENDPOINT_URL_{service.upper()}" if service else "AWS_ENDPOINT_URL": url
        for service, url in urls.items()
    }


def _role_environment(task: TaskMessage) -> Mapping[str, str]:
    """Where the SDKs of AWS find the credentials of the task's role, if it has one.

    Source: ECS developer guide, "Task IAM role".
    """
    role = task.role_credentials
    if role is None:
        return {}
    return {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": f"/v2/credentials/{role.credentials_id}"}


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
