"""What a container waits for in another one, and when that will never be; pure.

Source: amazon-ecs-agent, agent/engine/dependencygraph/graph.go: conditions and texts.
"""

from fargate_agent.errors import TaskDependencyError
from fargate_agent.plan import Condition
from fargate_agent.task.status import ContainerFacts, ContainerStatus, HealthStatus


def has_reached(facts: ContainerFacts, condition: Condition, target: str) -> bool:
    """Whether a container is as the container `target` wants it.

    Raises:
        TaskDependencyError: it never will be.
    """
    has_stopped = facts.status is ContainerStatus.STOPPED
    why = _why_never(facts, condition) if has_stopped else None
    if why is not None:
        raise TaskDependencyError(
            f"dependency graph: failed to resolve container ordering dependency [{facts.name}] "
            f"for target [{target}] {why}",
            container=target,
        )
    match condition:
        case Condition.CREATE:
            return bool(facts.runs)
        case Condition.START:
            return facts.started_at is not None
        case Condition.HEALTHY:
            return _is_healthy(facts)
        case _:
            return has_stopped


def _why_never(facts: ContainerFacts, condition: Condition) -> str | None:
    """Return what is wrong with the end of a container for a condition, if something is."""
    if facts.started_at is None:
        return "because dependency will never start"
    match condition:
        case Condition.HEALTHY if not _is_healthy(facts):
            return "as dependency ended before it was healthy."
        case Condition.SUCCESS if facts.exit_code != 0:
            return "as dependency did not exit successfully."
        case Condition.COMPLETE if facts.exit_code is None:
            return "as nobody knows how dependency ended."
    return None


def _is_healthy(facts: ContainerFacts) -> bool:
    return facts.health is not None and facts.health.status is HealthStatus.HEALTHY


def is_timed(condition: Condition) -> bool:
    """Whether the `startTimeout` of a container limits how long others wait for this."""
    return condition in (Condition.COMPLETE, Condition.SUCCESS, Condition.HEALTHY)


def time_out(facts: ContainerFacts, target: str) -> TaskDependencyError:
    """Return what to raise when the `startTimeout` of a container has passed."""
    return TaskDependencyError(
        f"dependency graph: container ordering dependency [{facts.name}] for target [{target}] "
        "has timed out.",
        container=target,
    )
