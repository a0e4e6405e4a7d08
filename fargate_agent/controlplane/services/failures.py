"""Tasks of a service that fail: how long to wait before the next one, and when it is enough. Pure.

Two things are counted. *Failed tasks* of a deployment, for the circuit breaker: those that never
ran, or that a health check has ended. *Failed starts* of a service, for the back-off: rounds in
which a task never ran, or not for long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fargate_agent.controlplane.state.model import Deployment, Service, Task
from fargate_agent.controlplane.tasks import health
from fargate_agent.controlplane.validate import Json

FIRST_DELAY_S: Final = 1.0
MAX_DELAY_S: Final = 60.0
"""Each round waits twice as long as the one before. AWS goes up to 15 minutes; whoever waits for
a mistake on an own machine to be mended doesn't want to wait so long."""
MIN_UPTIME_S: Final = 10.0
"""A task that has run for less has failed to start, as far as the back-off goes."""
INCONSISTENT_STARTS: Final = 3
"""Rounds after which the service's owner is told."""

MIN_FAILED_TASKS: Final = 3
MAX_FAILED_TASKS: Final = 200
DEFAULT_THRESHOLD: Final = {"type": "BOUNDED_PERCENT", "value": 50}
"""Source: Amazon ECS developer guide, "How the Amazon ECS deployment circuit breaker detects
failures", failure threshold."""

_DELIBERATE: Final = ("UserInitiated", "ServiceSchedulerInitiated")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The failures of a service, and of its primary deployment."""

    failed_starts: int
    start_not_before: float
    """Seconds since 1970."""
    failed_tasks: int


def judge(
    service: Service,
    primary: Deployment,
    ended: Sequence[Task],
    live: Sequence[Task],
    now: float,
) -> Record:
    """Return the record with what the tasks that have ended add to it.

    Args:
        service: with the failed starts so far.
        primary: with the failed tasks so far.
        ended: tasks that count for the first time.
        live: the others.
        now: seconds since 1970.
    """
    mine = [task for task in [*live, *ended] if task.deployment_id == primary.id]
    starts = 0 if _has_lasted(service, mine, now) else service.failed_starts
    not_before = service.start_not_before if starts else 0.0
    failed = 0 if _has_recovered(service, primary, mine) else primary.failed_tasks
    for task in ended:
        if task.deployment_id != primary.id:
            continue
        failed += _is_failed(task)
        if _is_failed_start(task) and task.created_at >= not_before:  # else: of the same round
            starts += 1
            not_before = now + delay_s(starts)
    return Record(failed_starts=starts, start_not_before=not_before, failed_tasks=failed)


def delay_s(failed_starts: int) -> float:
    """Return how many seconds to wait after so many rounds that failed."""
    return min(FIRST_DELAY_S * 2.0 ** min(failed_starts - 1, 10), MAX_DELAY_S)


def reaches_threshold(service: Service, record: Record) -> bool:
    """Whether the circuit breaker ends the deployment."""
    breaker = service.document["deploymentConfiguration"]["deploymentCircuitBreaker"]
    return breaker["enable"] and record.failed_tasks >= threshold(breaker, service.desired_count)


def threshold(breaker: Json, desired_count: int) -> int:
    """Return how many tasks have to fail, in a row, for a deployment to fail."""
    wanted = breaker.get("thresholdConfiguration", DEFAULT_THRESHOLD)
    if wanted["type"] == "COUNT":
        return int(wanted["value"])
    share = -(-desired_count * int(wanted["value"]) // 100)
    if wanted["type"] == "UNBOUNDED_PERCENT":
        return max(share, 1)
    return min(max(share, MIN_FAILED_TASKS), MAX_FAILED_TASKS)


def _has_lasted(service: Service, tasks: Sequence[Task], now: float) -> bool:
    """Whether a task that was started after the latest back-off has run for long enough."""
    return any(
        task.started_at is not None
        and task.created_at >= service.start_not_before
        and (task.stopped_at or now) - task.started_at >= MIN_UPTIME_S
        for task in tasks
    )


def _has_recovered(service: Service, primary: Deployment, tasks: Sequence[Task]) -> bool:
    """Whether a task has got to run, and is healthy, since the latest one failed.

    Failures count in a row.
    """
    breaker = service.document["deploymentConfiguration"]["deploymentCircuitBreaker"]
    return breaker.get("resetOnHealthyTask", True) and any(
        task.last_status == "RUNNING"
        and health.is_passed(task.health_status)
        and (task.started_at or 0.0) > primary.updated_at
        for task in tasks
    )


def _is_failed(task: Task) -> bool:
    is_unhealthy = task.health_status == health.UNHEALTHY
    if task.stop_code in _DELIBERATE:
        return is_unhealthy and task.stop_code == "ServiceSchedulerInitiated"
    return task.started_at is None


def _is_failed_start(task: Task) -> bool:
    if task.stop_code in _DELIBERATE:
        return False
    ran_s = 0.0 if task.started_at is None else (task.stopped_at or 0.0) - task.started_at
    return ran_s < MIN_UPTIME_S
