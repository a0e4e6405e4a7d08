"""Tasks as the local socket shows them: what only their agent knows."""

from datetime import datetime
from typing import Any

from fargate_agent.task.runner import TaskRun
from fargate_agent.task.status import ContainerFacts, HealthFacts


def render_task(run: TaskRun) -> dict[str, Any]:
    """Return how a task and its containers stand; what isn't known is null."""
    facts = run.facts
    return {
        "taskArn": run.plan.arn,
        "status": facts.status,
        "health": facts.health,
        "containers": [_render_container(container) for container in facts.containers.values()],
    }


def _render_container(facts: ContainerFacts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "status": facts.status,
        "restartCount": facts.restart_count,
        "health": None if facts.health is None else _render_health(facts.health),
        "runs": [
            {
                "createdAt": _render_moment(run.created_at),
                "startedAt": _render_moment(run.started_at),
                "finishedAt": _render_moment(run.finished_at),
                "exitCode": run.exit_code,
            }
            for run in facts.runs
        ],
    }


def _render_health(facts: HealthFacts) -> dict[str, Any]:
    return {
        "status": facts.status,
        "since": _render_moment(facts.since),
        "failingStreak": facts.failing_streak,
        "exitCode": facts.exit_code,
        "output": facts.output,
    }


def _render_moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
