"""Task protection: a service doesn't choose a protected task when it has to stop some."""

import time
from typing import Final

from fargate_agent.controlplane.agents.own import check_own_tasks
from fargate_agent.controlplane.clusters.clusters import find_cluster
from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.announcements import SERVICES
from fargate_agent.controlplane.state.model import Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.state.store import announce
from fargate_agent.controlplane.tasks.queries import find_tasks
from fargate_agent.controlplane.validate import Json

MAX_READ: Final = 100
"""Source: ECS API, GetTaskProtection.tasks."""
MAX_UPDATED: Final = 10
"""Source: ECS API, UpdateTaskProtection.tasks."""
MAX_MINUTES: Final = 2880
DEFAULT_MINUTES: Final = 120
"""Source: ECS API, UpdateTaskProtection.expiresInMinutes."""

_NOT_OF_A_SERVICE: Final = "TASK_NOT_VALID"
"""Source: ECS developer guide, "API failure reasons"."""


async def get_task_protection(plane: Plane, call: Call) -> Json:
    """Say which tasks of services are protected, and for how long."""
    async with plane.store.read() as session:
        tasks, failures = await _find_tasks(plane, call, session, MAX_READ)
    return _answer(plane.arns, tasks, failures)


async def update_task_protection(plane: Plane, call: Call) -> Json:
    """Protect tasks of services for some time from now, or no longer."""
    request = call.request
    minutes = request.get("expiresInMinutes", DEFAULT_MINUTES)
    if not 1 <= minutes <= MAX_MINUTES:  # unverified
        raise invalid_parameter(f"expiresInMinutes must be between 1 and {MAX_MINUTES}.")
    until = round(time.time() + minutes * 60, 3) if request["protectionEnabled"] else None
    async with plane.store.write() as session:
        tasks, failures = await _find_tasks(plane, call, session, MAX_UPDATED)
        for task in tasks:
            task.protected_until = until
        announce(session, SERVICES)
    return _answer(plane.arns, tasks, failures)


async def _find_tasks(
    plane: Plane, call: Call, session: Session, most: int
) -> tuple[list[Task], list[Json]]:
    arns, request = plane.arns, call.request
    references = request.get("tasks", [])
    if not 1 <= len(references) <= most:  # unverified
        raise invalid_parameter(f"Specify 1 to {most} tasks.")
    cluster = await find_cluster(arns, plane.settings, session, request)
    ids = dict.fromkeys(arns.parse_task(reference, cluster) for reference in references)
    known = await find_tasks(session, cluster, ids)
    await check_own_tasks(session, call.caller, known.values())
    found, failures = list[Task](), list[Json]()
    for task_id in ids:
        task = known.get(task_id)
        if task is not None and task.deployment_id is not None:
            found.append(task)
            continue
        reason = "MISSING" if task is None else _NOT_OF_A_SERVICE
        failures.append({"arn": arns.task(cluster, task_id), "reason": reason})
    return found, failures


def _answer(arns: Arns, tasks: list[Task], failures: list[Json]) -> Json:
    return {"protectedTasks": [_render(arns, task) for task in tasks], "failures": failures}


def _render(arns: Arns, task: Task) -> Json:
    shown: Json = {"taskArn": arns.task(task.cluster, task.id), "protectionEnabled": False}
    if task.protected_until is not None and task.protected_until > time.time():
        shown |= {"protectionEnabled": True, "expirationDate": task.protected_until}
    return shown


OPERATIONS: Final[dict[str, Operation]] = {
    "GetTaskProtection": get_task_protection,
    "UpdateTaskProtection": update_task_protection,
}
