"""In which order the containers of a task start and stop; pure, and decided here alone.

Source: ECS API, ContainerDependency; amazon-ecs-agent, agent/engine/dependencygraph.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from fargate_agent.errors import TaskDependencyError
from fargate_agent.plan.model import Condition, DependencyPlan
from fargate_agent.wire.containers import ContainerMessage
from fargate_agent.wire.messages import TaskMessage

NO_CHECK: Final = "NONE"
"""The command of a health check that isn't one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOrder:
    """What each container waits for, by its name."""

    containers: tuple[ContainerMessage, ...]
    """Each comes after those it depends on."""
    depends_on: Mapping[str, tuple[DependencyPlan, ...]]
    stops_after: Mapping[str, tuple[str, ...]]
    """The containers that depend on it."""


def plan_order(message: TaskMessage) -> StartOrder:
    """Decide the order of the containers.

    Raises:
        TaskDependencyError: they wait for each other, for one that isn't there, or for the health
            of one that has no check.
    """
    depends_on = {one.name: _dependencies_of(one) for one in message.containers}
    _check(message, depends_on)
    ordered = _order(message, depends_on)
    return StartOrder(
        containers=ordered,
        depends_on=depends_on,
        stops_after={
            one.name: tuple(
                other.name
                for other in ordered
                if any(dependency.container == one.name for dependency in depends_on[other.name])
            )
            for one in ordered
        },
    )


def has_check(container: ContainerMessage) -> bool:
    """Whether the health of a container is looked at."""
    check = container.health_check
    return check is not None and check.command[:1] != (NO_CHECK,)


def _dependencies_of(container: ContainerMessage) -> tuple[DependencyPlan, ...]:
    """Those of the definition, and the creation of containers whose volumes are used."""
    named = tuple(
        DependencyPlan(container=one.container_name, condition=Condition(one.condition))
        for one in container.depends_on
    )
    known = {dependency.container for dependency in named}
    sources = dict.fromkeys(volume.source_container for volume in container.volumes_from)
    implied = tuple(
        DependencyPlan(container=name, condition=Condition.CREATE)
        for name in sources
        if name not in known
    )
    return named + implied


def _check(message: TaskMessage, depends_on: Mapping[str, Collection[DependencyPlan]]) -> None:
    containers = {container.name: container for container in message.containers}
    for name, dependencies in depends_on.items():
        for dependency in dependencies:
            target = containers.get(dependency.container)
            if target is None:
                why = f"depends on container '{dependency.container}', which does not exist"
            elif dependency.condition is Condition.HEALTHY and not has_check(target):
                why = (
                    f"depends on the health of container '{dependency.container}', which has no "
                    "health check"
                )
            else:
                continue
            raise _unresolvable(message, f"container '{name}' {why}", name)


def _order(
    message: TaskMessage, depends_on: Mapping[str, Collection[DependencyPlan]]
) -> tuple[ContainerMessage, ...]:
    waiting = {container.name: container for container in message.containers}
    ordered: list[ContainerMessage] = []
    while waiting:
        free = [
            name
            for name in waiting
            if not any(dependency.container in waiting for dependency in depends_on[name])
        ]
        if not free:
            circle = f"containers {', '.join(sorted(waiting))} wait for each other and never start"
            raise _unresolvable(message, circle, None)
        ordered += [waiting.pop(name) for name in free]
    return tuple(ordered)


def _unresolvable(message: TaskMessage, why: str, container: str | None) -> TaskDependencyError:
    """Source: amazon-ecs-agent, agent/engine/errors.go, `TaskDependencyError`."""
    return TaskDependencyError(
        f"Task dependencies cannot be resolved, taskArn: {message.arn}: {why}", container=container
    )
