"""Tags: of what is created, and put on what is there.

The texts of the refusals are unverified, where nothing else is said.
"""

import re
import unicodedata
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sqlalchemy import select

from fargate_agent.controlplane.access.auth import Caller
from fargate_agent.controlplane.access.keys import AGENT
from fargate_agent.controlplane.agents.own import check_own_tasks
from fargate_agent.controlplane.errors import (
    ApiError,
    client_error,
    invalid_parameter,
    unsupported,
)
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.model import (
    Cluster,
    ContainerInstance,
    Service,
    Task,
    TaskDefinition,
)
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

MAX_TAGS: Final = 50
"""Of one resource, not counting those of AWS. Source: ECS API, TagResource.tags."""

_SIGNS: Final = "_.:/=+-@"
_RESERVED: Final = "aws:"

_REVISION: Final = re.compile(r"(?P<family>[A-Za-z0-9_-]{1,255}):(?P<revision>[1-9][0-9]{0,8})")

_Tagged = Cluster | ContainerInstance | Service | Task | TaskDefinition


def check_tags(tags: list[Any]) -> None:
    """Return if the tags can be stored; their number and lengths were checked with the request.

    Raises:
        ApiError: a key is missing, reserved, or there twice, or a character can't be in a tag.
    """
    seen: set[str] = set()
    for tag in tags:
        key = tag.get("key")
        if not key:
            raise invalid_parameter("Tag keys can not be null or empty.")
        if _is_reserved(key):
            raise invalid_parameter(f"Tag key '{key}' has the prefix aws:, which is reserved.")
        if not all(map(_is_allowed, key + tag.get("value", ""))):
            raise invalid_parameter(
                "Tag keys and values can have letters, numbers, spaces, and the characters "
                f"{_SIGNS}"
            )
        if key in seen:
            raise invalid_parameter(f"Tag key '{key}' is there twice.")
        seen.add(key)


async def tag_resource(plane: Plane, call: Call) -> Json:
    """Add tags to a resource; those with the same keys get new values."""
    tags = call.request["tags"]
    check_tags(tags)
    async with plane.store.write() as session:
        tagged = await _find(plane.arns, session, call.request["resourceArn"])
        merged = {tag["key"]: tag for tag in [*tagged.tags, *tags]}
        if sum(not _is_reserved(key) for key in merged) > MAX_TAGS:
            raise ApiError(
                "LimitExceededException", f"A resource can have no more than {MAX_TAGS} tags."
            )
        tagged.tags = list(merged.values())
    return {}


async def untag_resource(plane: Plane, call: Call) -> Json:
    """Take tags from a resource; keys that it doesn't have change nothing."""
    keys = set(call.request["tagKeys"])
    if any(map(_is_reserved, keys)):
        raise invalid_parameter("Tags whose keys have the prefix aws: can not be taken away.")
    async with plane.store.write() as session:
        tagged = await _find(plane.arns, session, call.request["resourceArn"])
        tagged.tags = [tag for tag in tagged.tags if tag["key"] not in keys]
    return {}


async def list_tags_for_resource(plane: Plane, call: Call) -> Json:
    """List the tags of a resource."""
    async with plane.store.read() as session:
        tagged = await _find(plane.arns, session, call.request["resourceArn"])
        await _check_agent(session, call.caller, tagged)
    return {"tags": tagged.tags}


async def _check_agent(session: Session, caller: Caller, tagged: _Tagged) -> None:
    """Return unless the caller is an agent and asks for more than the tags of its own tasks.

    Raises:
        ApiError: it does.
    """
    if isinstance(tagged, Task):
        await check_own_tasks(session, caller, [tagged])
    elif caller.principal == AGENT:
        raise ApiError("AccessDeniedException", "An agent reads the tags of its tasks alone.")


def _is_allowed(char: str) -> bool:
    """Source: ECS API, Tag: letters, separators, numbers, and some signs."""
    return char in _SIGNS or unicodedata.category(char)[0] in "LZN"


def _is_reserved(key: str) -> bool:
    return key.lower().startswith(_RESERVED)


async def _find(arns: Arns, session: Session, arn: str) -> _Tagged:
    """Return what has an ARN of the new form.

    Only the one way to write it is taken, because policies speak of the ARN as it is written.

    Raises:
        ApiError: there is no such resource, or it can't have tags any more.
    """
    prefix = f"arn:aws:ecs:{arns.region}:{arns.account}:"
    kind, _, path = arn.removeprefix(prefix).partition("/")
    if not arn.startswith(prefix) or not path:
        raise invalid_parameter("Invalid resource ARN.")
    if kind not in _FINDERS:
        raise unsupported(f"Tags of {kind} are not supported here.")
    return await _FINDERS[kind](session, path)


async def _find_cluster(session: Session, name: str) -> Cluster:
    found = await session.get(Cluster, name)
    if found is None:
        raise _missing("cluster")
    if found.status != "ACTIVE":
        # Source: ECS API, as Terraform's provider knows it
        raise invalid_parameter(
            "The specified cluster is inactive. Specify an active cluster and try again."
        )
    return found


async def _find_definition(session: Session, path: str) -> TaskDefinition:
    match = _REVISION.fullmatch(path)
    key = (match["family"], int(match["revision"])) if match else None
    found = await session.get(TaskDefinition, key) if key else None
    if found is None:
        raise client_error("Unable to describe task definition.")
    return found


async def _find_service(session: Session, path: str) -> Service:
    cluster, _, name = path.partition("/")
    chosen = select(Service).where(
        Service.cluster == cluster, Service.name == name, Service.status != "INACTIVE"
    )
    found = (await session.scalars(chosen)).one_or_none()
    if found is None:
        raise _missing("service")
    return found


async def _find_task(session: Session, path: str) -> Task:
    cluster, _, task_id = path.partition("/")
    found = await session.get(Task, task_id)
    if found is None or found.cluster != cluster:
        raise _missing("task")
    if found.last_status == "STOPPED":
        raise invalid_parameter(
            "The specified task is stopped. Specify a running task and try again."
        )
    return found


async def _find_instance(session: Session, path: str) -> ContainerInstance:
    cluster, _, instance_id = path.partition("/")
    found = await session.get(ContainerInstance, instance_id)
    if found is None or found.cluster != cluster:
        raise _missing("container instance")
    if found.status == "INACTIVE":
        raise invalid_parameter(
            "The specified container instance is inactive. Specify an active container instance "
            "and try again."
        )
    return found


def _missing(what: str) -> ApiError:
    return invalid_parameter(f"The specified {what} does not exist.")


_FINDERS: Final[dict[str, Callable[[Session, str], Awaitable[_Tagged]]]] = {
    "cluster": _find_cluster,
    "container-instance": _find_instance,
    "service": _find_service,
    "task": _find_task,
    "task-definition": _find_definition,
}

OPERATIONS: Final[dict[str, Operation]] = {
    "ListTagsForResource": list_tags_for_resource,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
}
