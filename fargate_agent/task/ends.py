"""What the end of a run of a container means; pure."""

from datetime import datetime

from fargate_agent.drivers import ExitStatus
from fargate_agent.errors import OutOfMemoryError
from fargate_agent.plan import RestartPlan


def explain_end(status: ExitStatus) -> str | None:
    """Return why a container ended, for its owner; None if it ended by itself.

    Source: ECS developer guide, stopped task error messages.
    """
    if status.oom_killed:
        return OutOfMemoryError("container killed due to memory usage").reason
    return status.stop_failed


def is_restarted(policy: RestartPlan | None, status: ExitStatus, ran_s: float) -> bool:
    """Whether a container that has run so long is started again.

    Source: amazon-ecs-agent, ecs-agent/api/container/restart, `ShouldRestart`.
    """
    if policy is None or status.code in policy.ignored_exit_codes:
        return False
    return ran_s >= policy.attempt_period_s


def seconds_between(then: datetime, now: datetime) -> float:
    """Of wall-clock times: 0 if the clock was put back meanwhile."""
    return max(0.0, (now - then).total_seconds())
