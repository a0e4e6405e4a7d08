"""Events in EventBridge's shape, as they are written down.

Source: Amazon ECS developer guide, "Amazon ECS task state change events".
"""

from datetime import UTC, datetime
from typing import Any, Final

from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.state.model import Event, Task
from fargate_agent.controlplane.tasks.render import render_task
from fargate_agent.controlplane.validate import Json

TASK_STATE_CHANGE: Final = "ECS Task State Change"
SERVICE_ACTION: Final = "ECS Service Action"
DEPLOYMENT_STATE_CHANGE: Final = "ECS Deployment State Change"
PLACEMENT_FAILURE: Final = "Fargate Task Placement Failure"
"""Ours: ECS has no event for tasks that RunTask could not place."""
TASK_REPLACEMENTS: Final = "Fargate Task Replacements"
"""Ours: what stands for something of a task's definition on the machine of the task."""

_TYPES: Final = {"ElasticNetworkInterface": "eni"}
"""What attachments are called in events, by what DescribeTasks says."""


def render_task_event(arns: Arns, task: Task, now: float) -> Event:
    """Return the event that says how a task is now."""
    shown = render_task(task, arns)
    for member in ("tags", "replacements"):
        shown.pop(member, None)
    detail: Json = {
        **_render_times(shown),
        "attachments": [
            {**attachment, "type": _TYPES.get(attachment["type"], attachment["type"])}
            for attachment in shown["attachments"]
        ],
        "updatedAt": render_time(now),
    }
    return Event(
        at=now, cluster=task.cluster, kind=TASK_STATE_CHANGE, subject=task.id, detail=detail
    )


def render_replacements(arns: Arns, task: Task, news: list[Json], now: float) -> Event:
    """Return the event that says what was replaced on the machine of a task.

    `news` are those that no event has told of, as `tasks.replacements` keeps them.
    """
    detail: Json = {
        "eventType": "INFO",
        "eventName": "TASK_REPLACEMENTS",
        "clusterArn": arns.cluster(task.cluster),
        "taskArn": arns.task(task.cluster, task.id),
        "replacements": news,
        "createdAt": render_time(now),
    }
    return Event(
        at=now, cluster=task.cluster, kind=TASK_REPLACEMENTS, subject=task.id, detail=detail
    )


def render_placement_failure(
    arns: Arns, cluster: str, definition_arn: str, failure: Json, now: float
) -> Event:
    """Return the event that says why RunTask has made fewer tasks than it was asked for."""
    detail: Json = {
        "eventType": "ERROR",
        "eventName": "TASK_PLACEMENT_FAILURE",
        "clusterArn": arns.cluster(cluster),
        "taskDefinitionArn": definition_arn,
        "reason": ". ".join(filter(None, (failure["reason"], failure.get("detail")))),
        "createdAt": render_time(now),
    }
    return Event(at=now, cluster=cluster, kind=PLACEMENT_FAILURE, subject=cluster, detail=detail)


def render_envelope(event: Event, arns: Arns) -> Json:
    """Return an event as EventBridge delivers it; its number stands for the id.

    As there, the time of the envelope has whole seconds; those of the detail are exact.
    """
    resource = event.detail.get("taskArn") or event.detail.get("serviceArn")
    return {
        "version": "0",
        "id": f"00000000-0000-0000-0000-{event.seq:012x}",
        "detail-type": event.kind,
        "source": "aws.ecs",
        "account": arns.account,
        "time": _iso(event.at, "seconds"),
        "region": arns.region,
        "resources": [resource] if resource else [],
        "detail": event.detail,
    }


def render_time(at: float) -> str:
    """Return seconds since 1970 as the details of events have them: ISO 8601, in UTC."""
    return _iso(at, "milliseconds")


def _render_times(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return a document with its times as text, however deep they are."""
    match value:
        case dict():
            return {
                member: render_time(inner)
                if member.endswith("At") and isinstance(inner, int | float)
                else _render_times(inner)
                for member, inner in value.items()
            }
        case list():
            return [_render_times(inner) for inner in value]
        case _:
            return value


def _iso(at: float, precision: str) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec=precision).replace("+00:00", "Z")
