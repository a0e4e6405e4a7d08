"""What a service says: its own events, and those in EventBridge's shape.

Source: Amazon ECS developer guide, "Viewing Amazon ECS service event messages", "Amazon ECS service
action events" and "Amazon ECS service deployment state change events".
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from fargate_agent.controlplane.history.events import DEPLOYMENT_STATE_CHANGE, SERVICE_ACTION
from fargate_agent.controlplane.names import Arns, new_uuid
from fargate_agent.controlplane.services.names import service_arn
from fargate_agent.controlplane.state.model import Deployment, Event, Service
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import add_event

MAX_EVENTS: Final = 100
"""Source: ECS API, Service.events."""

BLOCKED: Final = (
    "was unable to stop or start tasks during a deployment because of the service deployment "
    "configuration. Update the minimumHealthyPercent or maximumPercent value and try again."
)
INCONSISTENT: Final = "is unable to consistently start tasks successfully."
STEADY: Final = "has reached a steady state."

_LEVELS: Final = {"SERVICE_STEADY_STATE": "INFO", "SERVICE_TASK_PLACEMENT_FAILURE": "ERROR"}
_DEPLOYMENT_LEVELS: Final = {"SERVICE_DEPLOYMENT_FAILED": "ERROR"}


def tell(service: Service, text: str, detail: str = "") -> bool:
    """Add an event to those of the service; return whether it is news.

    What the newest one says already isn't said again, nor is the same with another detail.
    """
    message = f"(service {service.name}) {text}"
    if service.events and service.events[0]["message"].startswith(message):
        return False
    message = f"{message} {detail}".strip()
    event = {"id": new_uuid(), "createdAt": round(time.time(), 3), "message": message}
    service.events = [event, *service.events][:MAX_EVENTS]
    return True


def tell_started(service: Service, task_ids: Sequence[str]) -> None:
    """Say which tasks were started."""
    if task_ids:
        tell(service, f"has started {len(task_ids)} tasks: {_list(task_ids)}.")


def tell_stopped(service: Service, task_ids: Sequence[str]) -> None:
    """Say which tasks are being stopped."""
    if task_ids:
        tell(service, f"has stopped {len(task_ids)} running tasks: {_list(task_ids)}.")


def tell_steady(arns: Arns, session: Session, service: Service) -> None:
    """Say that everything is as it should be."""
    tell(service, STEADY)
    note_action(arns, session, service, "SERVICE_STEADY_STATE")


def tell_inconsistent(arns: Arns, session: Session, service: Service) -> None:
    """Say that tasks fail again and again."""
    tell(service, INCONSISTENT)
    note_action(arns, session, service, "SERVICE_TASK_START_IMPAIRED")


def tell_not_placed(
    arns: Arns, session: Session, service: Service, reason: str, detail: str = ""
) -> None:
    """Say that a task could not be started, and why; `detail` may change from try to try."""
    text = f"was unable to place a task. Reason: {reason.removesuffix('.')}."
    if tell(service, text, detail):
        whole = f"{reason.removesuffix('.')}. {detail}" if detail else reason
        note_action(arns, session, service, "SERVICE_TASK_PLACEMENT_FAILURE", reason=whole)


def note_action(arns: Arns, session: Session, service: Service, name: str, **more: str) -> None:
    """Write down an event "ECS Service Action"."""
    level = _LEVELS.get(name, "WARN")
    detail = {"createdAt": _iso(time.time()), **more}
    _note(arns, session, service, (SERVICE_ACTION, level, name), detail)


def note_deployment(
    arns: Arns, session: Session, service: Service, deployment: Deployment, name: str
) -> None:
    """Write down an event "ECS Deployment State Change"."""
    level = _DEPLOYMENT_LEVELS.get(name, "INFO")
    detail = {
        "deploymentId": deployment.id,
        "updatedAt": _iso(deployment.updated_at),
        "reason": deployment.rollout_reason,
    }
    _note(arns, session, service, (DEPLOYMENT_STATE_CHANGE, level, name), detail)


def _note(
    arns: Arns,
    session: Session,
    service: Service,
    what: tuple[str, str, str],
    detail: dict[str, str],
) -> None:
    kind, level, name = what
    shown = {
        "eventType": level,
        "eventName": name,
        "clusterArn": arns.cluster(service.cluster),
        "serviceArn": service_arn(arns, service),  # of `resources`; AWS has it there only
        **detail,
    }
    now = round(time.time(), 3)
    event = Event(at=now, cluster=service.cluster, kind=kind, subject=service.id, detail=shown)
    add_event(session, event)


def _list(task_ids: Sequence[str]) -> str:
    return " ".join(f"(task {task_id})" for task_id in task_ids)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
