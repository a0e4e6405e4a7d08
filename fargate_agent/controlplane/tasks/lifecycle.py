"""How a task moves on: the only functions that change the row of a task. They do no I/O.

A status only moves to the right, a container is restarted ever more often, and its health is of a
moment: by these a report that comes late is known, and changes nothing, as one that comes twice.
Every change that a client can see raises the task's version.
"""

import re
from typing import Final

from fargate_agent.controlplane.state.model import Task, is_after
from fargate_agent.controlplane.tasks.health import judge
from fargate_agent.controlplane.tasks.replacements import note_replacements
from fargate_agent.controlplane.validate import Json
from fargate_agent.errors import MAX_REASON_CHARS

STOPPED_BY_USER: Final = "Task stopped by user"
ESSENTIAL_EXITED: Final = "Essential container in task exited"
FAILED_TO_START: Final = "Task failed to start"
NO_INTERFACE: Final = "Timeout waiting for network interface provisioning to complete."
"""Source: AWS re:Post, network interface provisioning errors of ECS on Fargate."""
MACHINE_LOST: Final = (
    "The agent was away for longer than lost_task_timeout_s: the task's machine is taken for lost."
)
TERMINATED: Final = "TerminationNotice"
"""Stop code of tasks whose machine is taken away. Unverified."""

_ERROR_REASON: Final = re.compile(r"[A-Za-z]+Error: |TaskFailedToStart: ")
"""What the reason of an agent that sends no code begins with, if an error ended the task."""

_CONTAINER_STATUSES: Final = ("PENDING", "RUNNING", "STOPPED")
_FACTS_OF_CONTAINER: Final = ("reason", "runtimeId", "imageDigest", "restartCount")


def note_sent(task: Task) -> None:
    """An agent is about to be told: from now on a stop is for it to carry out."""
    if task.delivery == "WAITING":
        task.delivery = "SENT"
        task.eni.status = "ATTACHING"
        task.version += 1


def note_start_acked(task: Task) -> None:
    """An agent answers for the task."""
    task.delivery = "ACKED"


def note_stop_acked(task: Task, now: float) -> None:
    """An agent has begun to stop the task."""
    if is_after("STOPPING", task.last_status):
        task.last_status = "STOPPING"
        task.stopping_at = now
        task.version += 1


def note_connected(task: Task, *, connected: bool) -> None:
    """The task's agent can be reached again, or can't any more."""
    task.connected = connected
    task.version += 1


def request_stop(
    task: Task, reason: str | None, now: float, stop_code: str = "UserInitiated"
) -> None:
    """Somebody wants the task to end; it has ended if no agent has heard of it."""
    if task.desired_status == "STOPPED":
        return
    task.desired_status = "STOPPED"
    task.stop_code = stop_code
    task.stopped_reason = (reason or STOPPED_BY_USER)[:MAX_REASON_CHARS]
    task.version += 1
    if task.delivery == "WAITING":
        _end(task, now)


def refuse_start(task: Task, reason: str, now: float) -> bool:
    """What the task can't do without isn't to be had: it is to end, unless it runs already.

    Returns whether it ends.
    """
    if task.started_at is not None and task.desired_status != "STOPPED":
        return False
    request_stop(task, reason, now, "TaskFailedToStart")
    return True


def give_up(task: Task, now: float) -> None:
    """No agent has taken the task in time: it has ended."""
    request_stop(task, NO_INTERFACE, now, "TaskFailedToStart")
    apply_change(task, {"status": "STOPPED"}, now)


def lose(task: Task, now: float) -> None:
    """The task's machine is taken for lost: it has ended, whatever becomes of its containers."""
    request_stop(task, MACHINE_LOST, now, TERMINATED)
    apply_change(task, {"status": "STOPPED"}, now)


def apply_change(task: Task, change: Json, now: float) -> bool:
    """Take over what an agent reports; return whether anything is new.

    Args:
        task: as it is known so far.
        change: a SubmitTaskStateChange.
        now: the time to note where the agent sent none.
    """
    if task.last_status == "STOPPED":
        return False
    news = [
        _note_times(task, change),
        _note_containers(task, change.get("containers", []), now),
        _note_attached(task, change, now),
        note_replacements(task, change.get("replacements", [])),
        _move(task, change, now),
    ]
    if any(news):
        task.version += 1
    return any(news)


def _note_times(task: Task, change: Json) -> bool:
    news = False
    for member, attribute in (
        ("pullStartedAt", "pull_started_at"),
        ("pullStoppedAt", "pull_stopped_at"),
        ("executionStoppedAt", "execution_stopped_at"),
    ):
        if member in change and getattr(task, attribute) is None:
            setattr(task, attribute, change[member])
            news = True
    return news


def _note_containers(task: Task, changes: list[Json], now: float) -> bool:
    by_name = {change.get("containerName"): change for change in changes}
    containers = [_merge(known, by_name.get(known["name"], {}), now) for known in task.containers]
    news = containers != task.containers
    task.containers = containers
    task.health_status = judge(containers, task.essential)
    return news


def _merge(known: Json, change: Json, now: float) -> Json:
    """Return a container with what a report says of it; the newest holds."""
    if _is_late(known, change):
        return known
    merged = dict(known)
    if change.get("restartCount", 0) > known.get("restartCount", 0):
        merged.pop("reason", None)  # what was wrong with the run before
    if change.get("status") in _CONTAINER_STATUSES:
        merged["lastStatus"] = change["status"]
    merged |= {fact: change[fact] for fact in _FACTS_OF_CONTAINER if fact in change}
    if "reason" in merged:
        merged["reason"] = merged["reason"][:MAX_REASON_CHARS]
    if "exitCode" in change and merged["lastStatus"] == "STOPPED":
        merged["exitCode"] = change["exitCode"]
    if "healthStatus" in change and _is_newer(known, change, now):
        merged["healthStatus"] = change["healthStatus"]
        merged["healthStatusSince"] = change.get("healthStatusSince")
    return merged


def _is_late(known: Json, change: Json) -> bool:
    status = change.get("status")
    has_moved_on = status in _CONTAINER_STATUSES and _CONTAINER_STATUSES.index(
        status
    ) < _CONTAINER_STATUSES.index(known["lastStatus"])
    restarts: int = known.get("restartCount", 0)
    return has_moved_on or change.get("restartCount", restarts) < restarts


def _is_newer(known: Json, change: Json, now: float) -> bool:
    """Whether a report knows of a later verdict; a restart takes back the one before.

    A moment that is yet to come is one of a clock that was wrong, and whatever comes is later.
    """
    since = known.get("healthStatusSince") or 0.0
    before = (known.get("restartCount", 0), since if since <= now else 0.0)
    after = (change.get("restartCount", before[0]), change.get("healthStatusSince", 0.0))
    return after > before


def _note_attached(task: Task, change: Json, now: float) -> bool:
    attached = change.get("status") == "RUNNING" or any(
        attachment["status"] == "ATTACHED"
        and attachment["attachmentArn"].endswith(f":attachment/{task.eni.attachment_id}")
        for attachment in change.get("attachments", [])
    )
    if not attached or task.eni.status == "ATTACHED":
        return False
    task.eni.status = "ATTACHED"
    task.connectivity_at = now
    return True


def _move(task: Task, change: Json, now: float) -> bool:
    status = change.get("status")
    if status is None or not is_after(status, task.last_status):
        return False
    if status == "STOPPED":
        _derive_stop(task, change)
        _end(task, now)
        return True
    task.last_status = status
    if status == "RUNNING":
        task.started_at = now
    return True


def _derive_stop(task: Task, change: Json) -> None:
    """Say why the task ended, as ECS does: one that has run hasn't failed to start."""
    if task.stop_code is not None:
        return
    essential_exited = any(
        container["name"] in task.essential and "exitCode" in container
        for container in task.containers
    )
    if task.started_at is not None or (essential_exited and not _is_failure(change)):
        task.stop_code, fallback = "EssentialContainerExited", ESSENTIAL_EXITED
    else:
        task.stop_code, fallback = "TaskFailedToStart", FAILED_TO_START
    task.stopped_reason = (change.get("reason") or fallback)[:MAX_REASON_CHARS]


def _is_failure(change: Json) -> bool:
    """Whether an error ended the task, and not an exit or a request."""
    if "stopCode" in change:
        return bool(change["stopCode"] == "TaskFailedToStart")
    return _ERROR_REASON.match(change.get("reason", "")) is not None


def _end(task: Task, now: float) -> None:
    """The task has stopped, and its address is free."""
    task.desired_status = "STOPPED"
    task.last_status = "STOPPED"
    if task.started_at is not None and task.execution_stopped_at is None:
        task.execution_stopped_at = now
    task.stopping_at = min(
        moment for moment in (task.stopping_at, task.execution_stopped_at, now) if moment
    )
    task.stopped_at = now
    task.containers = [{**container, "lastStatus": "STOPPED"} for container in task.containers]
    task.eni.status = "DELETED"
    task.eni.in_use = False
