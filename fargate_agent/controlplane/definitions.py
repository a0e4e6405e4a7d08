"""Task definitions: registered, described, listed. A revision never changes."""

import time
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fargate_agent.controlplane.definition_rules import check_definition, is_fargate_compatible
from fargate_agent.controlplane.errors import client_error, invalid_parameter
from fargate_agent.controlplane.model import TaskDefinition
from fargate_agent.controlplane.pages import render_page
from fargate_agent.controlplane.payload import render_container, render_volume
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.sizes import parse_cpu, parse_memory
from fargate_agent.controlplane.tags import check_tags
from fargate_agent.controlplane.validate import Json

_LISTS_OF_CONTAINER: Final = (
    "environment",
    "mountPoints",
    "volumesFrom",
    "portMappings",
    "systemControls",
)
"""Answered as empty lists where they were not given."""

_HEALTH_CHECK: Final = {"interval": 30, "timeout": 5, "retries": 3}
"""Seconds, seconds, times. Source: ECS API, HealthCheck."""


async def register_task_definition(plane: Plane, call: Call) -> Json:
    """Register the next revision of a family."""
    request = {member: value for member, value in call.request.items() if member != "tags"}
    tags = call.request.get("tags", [])
    check_tags(tags)
    if "cpu" in request:
        request["cpu"] = str(parse_cpu(request["cpu"]))
    if "memory" in request:
        request["memory"] = str(parse_memory(request["memory"]))
    check_definition(request)
    _check_deliverable(request)
    document = _fill_defaults(request)
    async with plane.store.write() as session:
        family = request["family"]
        newest = await session.scalar(
            select(func.max(TaskDefinition.revision)).where(TaskDefinition.family == family)
        )
        revision = (newest or 0) + 1
        document |= {
            "taskDefinitionArn": plane.arns.task_definition(family, revision),
            "revision": revision,
            "status": "ACTIVE",
            "registeredAt": round(time.time(), 3),
            "registeredBy": plane.arns.user(call.caller.principal),
        }
        session.add(
            TaskDefinition(
                family=family, revision=revision, status="ACTIVE", document=document, tags=tags
            )
        )
    return {"taskDefinition": document, **({"tags": tags} if tags else {})}


async def describe_task_definition(plane: Plane, call: Call) -> Json:
    """Describe one revision, or the newest active one of a family."""
    async with plane.store.read() as session:
        found = await find_definition(plane, session, call.request["taskDefinition"])
    if found is None:
        raise client_error("Unable to describe task definition.")
    answer: Json = {"taskDefinition": found.document}
    if "TAGS" in call.request.get("include", []):
        answer["tags"] = found.tags
    return answer


async def list_task_definitions(plane: Plane, call: Call) -> Json:
    """List the ARNs of revisions, by family and revision."""
    request = call.request
    chosen = select(TaskDefinition.family, TaskDefinition.revision).where(
        TaskDefinition.status == request.get("status", "ACTIVE")
    )
    if "familyPrefix" in request:
        chosen = chosen.where(TaskDefinition.family == request["familyPrefix"])
    order = [TaskDefinition.family, TaskDefinition.revision]
    if request.get("sort") == "DESC":
        chosen = chosen.order_by(*(column.desc() for column in order))
    else:
        chosen = chosen.order_by(*order)
    async with plane.store.read() as session:
        rows = (await session.execute(chosen)).all()
    arns = [plane.arns.task_definition(family, revision) for family, revision in rows]
    return render_page(arns, request, "taskDefinitionArns")


async def find_definition(
    plane: Plane, session: AsyncSession, reference: str
) -> TaskDefinition | None:
    """Return what `family`, `family:revision` or an ARN means; None if it means nothing."""
    name = plane.arns.parse_task_definition(reference)
    if name is None:
        return None
    if name.revision is not None:
        return await session.get(TaskDefinition, (name.family, name.revision))
    return (
        await session.scalars(
            select(TaskDefinition)
            .where(TaskDefinition.family == name.family, TaskDefinition.status == "ACTIVE")
            .order_by(TaskDefinition.revision.desc())
            .limit(1)
        )
    ).first()


def _check_deliverable(request: Json) -> None:
    """Refuse here what could not be put into a message to an agent later."""
    try:
        for container in request["containerDefinitions"]:
            render_container(container, container_arn="")
        for volume in request.get("volumes", []):
            render_volume(volume)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise invalid_parameter(f"{where}: {first['msg']}") from None


def _fill_defaults(request: Json) -> Json:
    compatibilities = ["EC2", "MANAGED_INSTANCES"]
    attributes = ["com.amazonaws.ecs.capability.docker-remote-api.1.18"]
    if is_fargate_compatible(request):
        compatibilities.append("FARGATE")
    if request.get("networkMode") == "awsvpc":
        attributes.append("ecs.capability.task-eni")
    return {
        **request,
        "containerDefinitions": [_fill_container(c) for c in request["containerDefinitions"]],
        "volumes": request.get("volumes", []),
        "placementConstraints": request.get("placementConstraints", []),
        "compatibilities": compatibilities,
        "requiresAttributes": [{"name": name} for name in attributes],
    }


def _fill_container(container: Json) -> Json:
    filled: dict[str, Any] = {
        "cpu": 0,
        "essential": True,
        **{member: [] for member in _LISTS_OF_CONTAINER},
        **container,
    }
    filled["portMappings"] = [_fill_port(port) for port in filled["portMappings"]]
    if "healthCheck" in filled:
        filled["healthCheck"] = {**_HEALTH_CHECK, **filled["healthCheck"]}
    return filled


def _fill_port(port: Json) -> Json:
    filled = {"protocol": "tcp", **port}
    if "containerPort" in port:
        filled.setdefault("hostPort", port["containerPort"])
    return filled


OPERATIONS: Final[dict[str, Operation]] = {
    "RegisterTaskDefinition": register_task_definition,
    "DescribeTaskDefinition": describe_task_definition,
    "ListTaskDefinitions": list_task_definitions,
}
