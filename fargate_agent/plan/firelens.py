"""FireLens: one container of a task, its router, takes the output of others and sends it on; pure.

Source: amazon-ecs-agent, agent/api/task/task.go and agent/engine/docker_task_engine_linux.go;
ECS developer guide, "Send Amazon ECS logs to an AWS service or AWS Partner".
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan.fluent import HOST, KINDS, PORT, SOCKET_PATH, RouterInput, RouterKind
from fargate_agent.plan.model import ContainerPlan, FirelensPlan
from fargate_agent.plan.volume_plans import MountPlan
from fargate_agent.wire.arns import parse_task_arn
from fargate_agent.wire.containers import ContainerMessage, Dependency
from fargate_agent.wire.log_options import COMMON_NAMES, ROUTER_BUFFER
from fargate_agent.wire.messages import TaskMessage

DRIVER: Final = "awsfirelens"
LOGGER_OPTIONS: Final = COMMON_NAMES | {ROUTER_BUFFER.name}
"""Options for the logger, not for the router."""
DEFAULT_MEMORY_MIB: Final = 25
TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
"""Source: Go, strconv.ParseBool."""

_ROOT: Final = frozenset({"0", "root"})


def route_output(message: TaskMessage) -> TaskMessage:
    """Have the containers that send to a router start after it, and know where it listens.

    A router that waits for others itself is left alone, so that nothing waits in a circle.

    Raises:
        ResourceInitializationError: there are two routers, or none where one is needed.
    """
    router = _find_router(message)
    if router is None:
        return message
    return message.model_copy(
        update={"containers": tuple(_route(one, router) for one in message.containers)}
    )


def plan_firelens(message: TaskMessage, directory: Path) -> FirelensPlan | None:
    """Decide what the router of a task is given; `directory` is that of the task.

    Raises:
        ResourceInitializationError: an option is wrong or missing.
    """
    router = _find_router(message)
    if router is None:
        return None
    kind = _kind_of(router)
    config, socket = directory / "fluent.conf", directory / "fluent" / "fluent.sock"
    return FirelensPlan(
        container=router.name,
        config=config,
        config_text=kind.render(_plan_input(message, router, kind)),
        socket=socket,
        socket_owner=_plan_owner(router),
        mounts=(
            # Writable, as entry points of routers want to change who owns it.
            MountPlan(source=config, destination=kind.config_path, read_only=False),
            MountPlan(
                source=socket.parent,
                destination=str(PurePosixPath(SOCKET_PATH).parent),
                read_only=False,
            ),
        ),
        secrets={
            variable: reference
            for sender in _find_senders(message)
            for variable, reference in _name_secrets(message, sender).values()
        },
    )


def add_firelens(container: ContainerPlan, firelens: FirelensPlan | None) -> ContainerPlan:
    """Give the router what it needs; the secrets of output options are for it and nobody else."""
    if firelens is None:
        return container
    if container.log.driver == DRIVER:
        container = replace(container, log=replace(container.log, secrets={}))
    if container.name != firelens.container:
        return container
    return replace(
        container,
        mounts=(*container.mounts, *firelens.mounts),
        secrets={**container.secrets, **firelens.secrets},
    )


def _find_router(message: TaskMessage) -> ContainerMessage | None:
    """Texts are those of RegisterTaskDefinition, which refuses such tasks already."""
    routers = [one for one in message.containers if one.firelens_configuration is not None]
    if len(routers) > 1:
        raise ResourceInitializationError(
            "A task definition can have at most one firelens configuration."
        )
    if not routers and _find_senders(message):
        raise ResourceInitializationError(
            "When awsfirelens log driver is specified in log configuration, a firelens "
            "configuration object must be configured in one of the containers."
        )
    return routers[0] if routers else None


def _find_senders(message: TaskMessage) -> list[ContainerMessage]:
    return [one for one in message.containers if _sends(one)]


def _sends(container: ContainerMessage) -> bool:
    log = container.log_configuration
    return log is not None and log.log_driver == DRIVER


def _route(container: ContainerMessage, router: ContainerMessage) -> ContainerMessage:
    environment = dict(container.environment)
    depends_on, user = container.depends_on, container.user
    if _sends(container):
        environment |= {"FLUENT_HOST": HOST, "FLUENT_PORT": PORT}
        if not (router.depends_on or router.volumes_from or _knows(container, router)):
            start = Dependency(container_name=router.name, condition="START")
            depends_on = (*depends_on, start)
    if container.name == router.name:
        environment |= _kind_of(router).environment
        user = user or "0"
    return container.model_copy(
        update={"environment": environment, "depends_on": depends_on, "user": user}
    )


def _knows(container: ContainerMessage, router: ContainerMessage) -> bool:
    names = {container.name, *(one.container_name for one in container.depends_on)}
    return router.name in names


def _kind_of(router: ContainerMessage) -> RouterKind:
    name = str((router.firelens_configuration or {}).get("type"))
    if name not in KINDS:
        raise ResourceInitializationError(
            f"invalid firelens configuration type: {name}", container=router.name
        )
    return KINDS[name]


def _plan_input(message: TaskMessage, router: ContainerMessage, kind: RouterKind) -> RouterInput:
    options = _options_of(router)
    fields = {
        "ecs_cluster": parse_task_arn(message.arn).cluster,
        "ecs_task_arn": message.arn,
        "ecs_task_definition": f"{message.family}:{message.version}",
    }
    memory = router.memory_reservation or router.memory or 0
    return RouterInput(
        senders={one.name: _plan_options(message, one, kind) for one in _find_senders(message)},
        fields=fields if options.get("enable-ecs-log-metadata", "true") in TRUE else {},
        included_file=_plan_included_file(options, router.name),
        memory_mib=memory // 2 or DEFAULT_MEMORY_MIB,
    )


def _options_of(router: ContainerMessage) -> Mapping[str, str]:
    options = (router.firelens_configuration or {}).get("options") or {}
    return {str(name): str(value) for name, value in options.items()}


def _plan_options(
    message: TaskMessage, sender: ContainerMessage, kind: RouterKind
) -> Mapping[str, str]:
    """Return the options that are for the router; a secret is the name of a variable in them."""
    options = sender.log_configuration.options if sender.log_configuration else {}
    return {
        **{name: value for name, value in options.items() if name not in LOGGER_OPTIONS},
        **{
            name: kind.variable.format(variable)
            for name, (variable, _) in _name_secrets(message, sender).items()
        },
    }


def _name_secrets(message: TaskMessage, sender: ContainerMessage) -> Mapping[str, tuple[str, str]]:
    """Return variable and reference by the name of the option.

    A variable ends with the container's place in the task, as names of containers may have
    characters that the routers' languages don't take there.
    """
    log, place = sender.log_configuration, message.containers.index(sender)
    secrets = () if log is None else log.secret_options
    return {one.name: (f"{one.name}_{place}", one.value_from) for one in secrets}


def _plan_included_file(options: Mapping[str, str], container: str) -> str | None:
    kind = options.get("config-file-type")
    if kind is None:
        return None
    if kind == "s3":
        why = "Fargate launch type does not support FirelensConfiguration config file from 's3'"
    elif kind != "file":
        why = f"invalid value {kind} is specified for option config-file-type"
    elif "config-file-value" not in options:
        why = "option config-file-type is specified but config-file-value is not specified"
    else:
        return options["config-file-value"]
    raise ResourceInitializationError(why, container=container)


def _plan_owner(router: ContainerMessage) -> tuple[int, int]:
    """Return who has to be able to make the socket: uid and gid; -1 is root's group.

    Source: amazon-ecs-agent, `SetOwnership`: the user is a uid, the group whatever it is.
    """
    user, _, group = (router.user or "0").partition(":")
    if user in _ROOT:
        return 0, 0
    if not user.isdecimal():
        raise ResourceInitializationError(
            f"container '{router.name}': the user of a firelens container is root or a number, "
            f"not '{user}'",
            container=router.name,
        )
    return int(user), int(group) if group.isdecimal() else -1
