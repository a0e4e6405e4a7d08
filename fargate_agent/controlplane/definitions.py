"""Task definitions: registered, described, listed, and taken back. A revision never changes.

Nor is its number used again: the row of a definition that was deleted stays, with its status.
"""

import re
import time
from typing import Final

from pydantic import ValidationError
from sqlalchemy import func, select, tuple_

from fargate_agent.controlplane.errors import client_error, invalid_parameter
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.pages import MAX_RESULTS, render_page
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.roles.passing import check_pass_role
from fargate_agent.controlplane.rules.computed import complete
from fargate_agent.controlplane.rules.definition import check_definition
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.state.model import TaskDefinition
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.tags import check_tags
from fargate_agent.controlplane.tasks.payload import render_container, render_volume
from fargate_agent.controlplane.validate import Json

MAX_DELETED: Final = 10
"""In one request. Source: ECS API, DeleteTaskDefinitions."""

_TOKEN: Final = re.compile(r"(?P<family>[A-Za-z0-9_-]{1,255})::(?P<revision>0\d{9})", re.ASCII)


_STILL_ACTIVE: Final = (
    "The specified task definition is still in ACTIVE status. Please deregister the target and try "
    "again."
)
_MISSING: Final = (
    "The specified task definition does not exist. Specify a valid account, family, revision and "
    "try again."
)
_INVALID: Final = (  # unverified
    "The specified task definition identifier is invalid. Specify a valid name or ARN and try "
    "again."
)


async def register_task_definition(plane: Plane, call: Call) -> Json:
    """Register the next revision of a family."""
    tags = call.request.get("tags", [])
    check_tags(tags)
    draft = Draft(call.request, plane.settings.account, plane.settings.has_32_vcpus)
    check_definition(draft)
    _check_deliverable(call.request)
    document = complete(draft)
    check_pass_role(plane, call, document)
    async with plane.store.write() as session:
        family = document["family"]
        newest = await session.scalar(
            select(func.max(TaskDefinition.revision)).where(TaskDefinition.family == family)
        )
        revision = (newest or 0) + 1
        document |= {
            "taskDefinitionArn": plane.arns.task_definition(family, revision),
            "revision": revision,
            "status": "ACTIVE",
            "registeredAt": _now(),
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
        found = await find_definition(plane.arns, session, call.request["taskDefinition"])
    if found is None:
        raise client_error("Unable to describe task definition.")
    answer: Json = {"taskDefinition": found.document}
    if "TAGS" in call.request.get("include", []):
        answer["tags"] = found.tags
    return answer


async def deregister_task_definition(plane: Plane, call: Call) -> Json:
    """Let no new tasks be made from a revision; those that run go on. It may be repeated."""
    reference = call.request["taskDefinition"]
    _check_revision(reference)
    async with plane.store.write() as session:
        found = await find_definition(plane.arns, session, reference)
        if found is None:  # the text is as clients of ECS know it
            raise client_error("The specified task definition does not exist.")
        if found.status == "ACTIVE":
            _move(found, "INACTIVE", "deregisteredAt")
    return {"taskDefinition": found.document}


async def delete_task_definitions(plane: Plane, call: Call) -> Json:
    """Delete revisions that were deregistered; each alone, so that one can fail."""
    references = call.request["taskDefinitions"]
    if not 1 <= len(references) <= MAX_DELETED:  # unverified
        raise invalid_parameter(f"Specify 1 to {MAX_DELETED} task definitions.")
    deleted, failures = list[Json](), list[Json]()
    async with plane.store.write() as session:
        for reference in references:
            name = plane.arns.parse_task_definition(reference)
            if name is None or name.revision is None:
                failures.append({"arn": reference, "reason": _INVALID})
                continue
            arn = plane.arns.task_definition(name.family, name.revision)
            found = await session.get(TaskDefinition, (name.family, name.revision))
            if found is None:
                failures.append({"arn": arn, "reason": _MISSING})
            elif found.status == "ACTIVE":
                failures.append({"arn": arn, "reason": _STILL_ACTIVE})
            else:
                if found.status == "INACTIVE":
                    _move(found, "DELETE_IN_PROGRESS", "deleteRequestedAt")
                deleted.append(found.document)
    return {"taskDefinitions": deleted, "failures": failures}


async def list_task_definitions(plane: Plane, call: Call) -> Json:
    """List the ARNs of revisions, by family and revision."""
    request = call.request
    size = request.get("maxResults", MAX_RESULTS)
    if not 1 <= size <= MAX_RESULTS:  # unverified
        raise invalid_parameter(f"maxResults must be between 1 and {MAX_RESULTS}.")
    async with plane.store.read() as session:
        # one more than the page holds tells whether there is another page
        rows = await _read_definitions(session, request, size + 1)
    page = rows[:size]
    arns = [plane.arns.task_definition(family, revision) for family, revision in page]
    answer: Json = {"taskDefinitionArns": arns}
    if len(rows) > size:
        family, revision = page[-1]
        answer["nextToken"] = f"{family}::{revision:010d}"
    return answer


async def list_task_definition_families(plane: Plane, call: Call) -> Json:
    """List the families that have an active revision, that have none any more, or both."""
    request = call.request
    prefix, wanted = request.get("familyPrefix", ""), request.get("status", "ALL")
    chosen = (
        select(TaskDefinition.family, TaskDefinition.status)
        .where(
            func.substr(TaskDefinition.family, 1, len(prefix)) == prefix,
            TaskDefinition.status != "DELETE_IN_PROGRESS",
        )
        .distinct()
    )
    async with plane.store.read() as session:
        found = {(family, status) for family, status in await session.execute(chosen)}
    families = {"ACTIVE": {family for family, status in found if status == "ACTIVE"}}
    families["ALL"] = {family for family, _ in found}
    families["INACTIVE"] = families["ALL"] - families["ACTIVE"]
    return render_page(sorted(families[wanted]), request, "families")


async def find_definition(arns: Arns, session: Session, reference: str) -> TaskDefinition | None:
    """Return what `family`, `family:revision` or an ARN means; None if it means nothing."""
    name = arns.parse_task_definition(reference)
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


def _check_revision(reference: str) -> None:
    _, _, revision = reference.rpartition("/")[2].partition(":")
    if not revision:
        raise client_error("Revision is missing.")
    if not re.fullmatch(r"[1-9]\d{0,8}", revision, re.ASCII):
        raise invalid_parameter(f"Invalid revision number. Number: {revision}")


def _move(definition: TaskDefinition, status: str, dated: str) -> None:
    definition.status = status
    definition.document = {**definition.document, "status": status, dated: _now()}


async def _read_definitions(session: Session, request: Json, count: int) -> list[tuple[str, int]]:
    key = (TaskDefinition.family, TaskDefinition.revision)
    chosen = select(*key).where(TaskDefinition.status == request.get("status", "ACTIVE"))
    is_descending = request.get("sort") == "DESC"
    if "familyPrefix" in request:
        # in spite of its name it is a whole family
        chosen = chosen.where(TaskDefinition.family == request["familyPrefix"])
    if "nextToken" in request:
        match = _TOKEN.fullmatch(request["nextToken"])
        if match is None:  # unverified
            raise invalid_parameter("Invalid token.")
        last = tuple_(match["family"], int(match["revision"]))
        chosen = chosen.where(tuple_(*key) < last if is_descending else tuple_(*key) > last)
    order = (column.desc() if is_descending else column for column in key)
    rows = await session.execute(chosen.order_by(*order).limit(count))
    return [(family, revision) for family, revision in rows]


def _now() -> float:
    return round(time.time(), 3)


OPERATIONS: Final[dict[str, Operation]] = {
    "RegisterTaskDefinition": register_task_definition,
    "DescribeTaskDefinition": describe_task_definition,
    "DeregisterTaskDefinition": deregister_task_definition,
    "DeleteTaskDefinitions": delete_task_definitions,
    "ListTaskDefinitions": list_task_definitions,
    "ListTaskDefinitionFamilies": list_task_definition_families,
}
