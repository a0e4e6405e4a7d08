"""DescribeTasks and ListTasks."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import Select, false, select

from fargate_agent.controlplane.clusters.clusters import find_cluster, find_known_cluster
from fargate_agent.controlplane.errors import ApiError, invalid_parameter, unsupported
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.pages import parse_page
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.services.names import parse_service
from fargate_agent.controlplane.state.model import Deployment, Service, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.tasks.render import render_task
from fargate_agent.controlplane.validate import Json

MAX_TASKS: Final = 100
"""Source: ECS API, DescribeTasks.tasks."""


async def describe_tasks(plane: Plane, call: Call) -> Json:
    """Describe tasks by id or ARN; those that aren't there are failures."""
    references = call.request["tasks"]
    if not references:
        raise invalid_parameter("Tasks cannot be empty.")
    if len(references) > MAX_TASKS:
        raise invalid_parameter(f"Tasks cannot have more than {MAX_TASKS} elements.")
    async with plane.store.read() as session:
        cluster = await find_known_cluster(plane.arns, plane.settings, session, call.request)
        ids = dict.fromkeys(plane.arns.parse_task(reference, cluster) for reference in references)
        known = await find_tasks(session, cluster, ids)
    shown = [render_task(known[i], plane.arns) for i in ids if i in known]
    if "TAGS" not in call.request.get("include", []):
        for task in shown:
            task["tags"] = []
    failures = [
        {"arn": plane.arns.task(cluster, i), "reason": "MISSING"} for i in ids if i not in known
    ]
    return {"tasks": shown, "failures": failures}


async def list_tasks(plane: Plane, call: Call) -> Json:
    """List the ARNs of tasks; without a desired status, of those that should run."""
    request = call.request
    _check_filters(request)
    page = parse_page(request)
    async with plane.store.read() as session:
        cluster = await find_cluster(plane.arns, plane.settings, session, request)
        chosen = _select_ids(plane.arns, request, cluster)
        if "serviceName" in request:
            name = parse_service(plane.arns, request["serviceName"], cluster)
            service = await _find_service(session, name, cluster)
            deployments = select(Deployment.id).where(Deployment.service_id == service)
            chosen = chosen.where(Task.deployment_id.in_(deployments))
        ids = (await session.scalars(page.select(chosen, Task.id))).all()
    return page.render(ids, "taskArns", lambda task_id: plane.arns.task(cluster, task_id))


async def find_tasks(session: Session, cluster: str, ids: Collection[str]) -> dict[str, Task]:
    """Return the tasks of a cluster that have one of these ids, by id.

    The database is asked by id alone. Told the cluster too, it may look through all its tasks:
    SQLite does, and PostgreSQL while it has no statistics.
    """
    rows = await session.scalars(select(Task).where(Task.id.in_(ids)))
    return {task.id: task for task in rows if task.cluster == cluster}


def _check_filters(request: Json) -> None:
    if "daemonName" in request:
        raise unsupported("Daemons are not supported here.")
    others = {"family", "containerInstance", "launchType", "serviceName"} & request.keys()
    if "startedBy" in request and others:  # unverified
        raise invalid_parameter(
            f"startedBy must be the only filter; {sorted(others)[0]} is given as well."
        )


def _select_ids(arns: Arns, request: Json, cluster: str) -> Select[str]:
    chosen = select(Task.id).where(
        Task.cluster == cluster, Task.desired_status == request.get("desiredStatus", "RUNNING")
    )
    if "family" in request:
        chosen = chosen.where(Task.family == request["family"])
    if "startedBy" in request:
        chosen = chosen.where(Task.started_by == request["startedBy"])
    if request.get("launchType", "FARGATE") != "FARGATE":
        chosen = chosen.where(false())
    if "containerInstance" in request:
        instance_id = arns.parse_container_instance(request["containerInstance"], cluster)
        chosen = chosen.where(Task.instance_id == instance_id)
    return chosen


async def _find_service(session: Session, name: str, cluster: str) -> str:
    """Return the id of the service with a name; of several the last that was made.

    One that was deleted is found too: its tasks can still be asked about.

    Raises:
        ApiError: there was never one.
    """
    chosen = select(Service.id).where(Service.cluster == cluster, Service.name == name)
    found = await session.scalar(chosen.order_by(Service.created_at.desc()).limit(1))
    if found is None:
        raise ApiError("ServiceNotFoundException", "Service not found.")
    return found


OPERATIONS: Final[dict[str, Operation]] = {
    "DescribeTasks": describe_tasks,
    "ListTasks": list_tasks,
}
