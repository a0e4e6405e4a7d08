"""Tags of namespaces and services."""

from collections.abc import Sequence
from typing import Final

from fargate_agent.controlplane.cloudmap.calls import (
    invalid_input,
    namespace_arn,
    registry_arn,
)
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.cloudmap import DiscoverableService, Namespace
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

MAX_TAGS: Final = 50
"""Source: Cloud Map API reference, TagResource."""


def check_tags(tags: Sequence[Json], arn: str | None = None) -> None:
    """Return if something can have these tags.

    Raises:
        ApiError: there are too many, one is there twice, or is AWS's.
    """
    keys = [tag["Key"] for tag in tags]
    if len(set(keys)) < len(keys):
        raise invalid_input("A tag key is there twice.")
    if any(key.lower().startswith("aws:") for key in keys):
        raise invalid_input("Tag keys with the prefix aws: are reserved.")
    if len(keys) > MAX_TAGS:
        raise ApiError(
            "TooManyTagsException",
            f"A resource can have at most {MAX_TAGS} tags.",
            ResourceName=arn or "",
        )


async def tag_resource(plane: Plane, call: Call) -> Json:
    """Add tags to a namespace or a service; those with the same keys get new values."""
    request = call.request
    check_tags(request["Tags"])
    async with plane.store.write() as session:
        row = await _find(plane.arns, session, request["ResourceARN"])
        merged = {tag["Key"]: tag for tag in [*row.tags, *request["Tags"]]}
        check_tags([*merged.values()], request["ResourceARN"])
        row.tags = [*merged.values()]
    return {}


async def untag_resource(plane: Plane, call: Call) -> Json:
    """Take tags away; keys that aren't there change nothing."""
    request = call.request
    async with plane.store.write() as session:
        row = await _find(plane.arns, session, request["ResourceARN"])
        row.tags = [tag for tag in row.tags if tag["Key"] not in request["TagKeys"]]
    return {}


async def list_tags_for_resource(plane: Plane, call: Call) -> Json:
    """List the tags of a namespace or a service."""
    async with plane.store.read() as session:
        row = await _find(plane.arns, session, call.request["ResourceARN"])
    return {"Tags": row.tags}


async def _find(arns: Arns, session: Session, arn: str) -> Namespace | DiscoverableService:
    row: Namespace | DiscoverableService | None = None
    if arn.startswith(prefix := namespace_arn(arns, "")):
        row = await session.get(Namespace, arn.removeprefix(prefix))
    if arn.startswith(prefix := registry_arn(arns, "")):
        row = await session.get(DiscoverableService, arn.removeprefix(prefix))
    if row is None:
        raise ApiError(
            "ResourceNotFoundException", f"There is no namespace or service {arn[:128]}."
        )
    return row


OPERATIONS: Final[dict[str, Operation]] = {
    "ListTagsForResource": list_tags_for_resource,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
}
