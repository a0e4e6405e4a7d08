"""Tags of what EC2's calls name.

Source: EC2 user guide, "Tag restrictions"; EC2 API reference, CreateTags, DeleteTags, DescribeTags.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Final

from sqlalchemy import delete, select

from fargate_agent.controlplane.ec2.changes import DONE, Change, invalid_value, missing
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.model import Eni
from fargate_agent.controlplane.state.networks import (
    GroupRow,
    NetworkObject,
    ResourceTag,
    RuleRow,
    SubnetRow,
    VpcRow,
)
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

MAX_TAGS: Final = 50
MAX_KEY_CHARS: Final = 127
MAX_VALUE_CHARS: Final = 255

_KINDS: Final = {
    "eipalloc": "elastic-ip",
    "eni": "network-interface",
    "igw": "internet-gateway",
    "eigw": "egress-only-internet-gateway",
    "nat": "natgateway",
    "pl": "prefix-list",
    "rtb": "route-table",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "subnet": "subnet",
    "vpc": "vpc",
}
"""`ResourceType` by what an id begins with."""
_TABLES: Final = {
    "eni": Eni,
    "sg": GroupRow,
    "sgr": RuleRow,
    "subnet": SubnetRow,
    "vpc": VpcRow,
}
"""The others are a `NetworkObject`."""


async def read_tags(session: Session, ids: Collection[str]) -> defaultdict[str, list[Json]]:
    """Return the tags of each of some resources, in the order of their keys."""
    chosen = select(ResourceTag).where(ResourceTag.resource_id.in_(ids)).order_by(ResourceTag.key)
    found: defaultdict[str, list[Json]] = defaultdict(list)
    for tag in await session.scalars(chosen):
        found[tag.resource_id].append({"Key": tag.key, "Value": tag.value})
    return found


async def put_tags(session: Session, request: Json, kind: str, id_: str) -> list[Json]:
    """Give something new the tags that its request has for things of its kind.

    Raises:
        ApiError: they can't be, or are for another kind.
    """
    tags: list[Json] = []
    for each in request.get("TagSpecifications", []):
        if each.get("ResourceType") != kind:
            raise invalid_value(
                f"'{str(each.get('ResourceType'))[:64]}' is not a valid taggable resource type for"
                " this operation."
            )
        tags += each.get("Tags", [])
    _check_tags(tags)
    if len({tag["Key"] for tag in tags}) < len(tags):
        raise invalid_value(
            "Duplicate tag keys found. Please note that Tag keys are case sensitive."
        )
    await _write(session, id_, tags)
    return [{"Key": tag["Key"], "Value": tag.get("Value", "")} for tag in tags]


async def drop_tags(session: Session, ids: Collection[str]) -> None:
    """Forget the tags of what is deleted."""
    await session.execute(delete(ResourceTag).where(ResourceTag.resource_id.in_(ids)))


async def create_tags(plane: Plane, session: Session, request: Json) -> Json:
    """Add tags to resources, or give those that are there another value."""
    del plane
    tags = request.get("Tags", [])
    if not tags:
        raise missing("Tag")
    _check_tags(tags)
    for id_ in await _find_resources(session, request):
        await _write(session, id_, tags)
    return DONE


async def delete_tags(plane: Plane, session: Session, request: Json) -> Json:
    """Take tags away: those of some keys, of some keys and values, or all."""
    del plane
    for id_ in await _find_resources(session, request):
        of_resource = ResourceTag.resource_id == id_
        if "Tags" not in request:
            ours = ~ResourceTag.key.startswith("aws:")
            await session.execute(delete(ResourceTag).where(of_resource, ours))
        for tag in request.get("Tags", []):
            meant = [of_resource, ResourceTag.key == tag.get("Key", "")]
            if "Value" in tag:
                meant.append(ResourceTag.value == tag["Value"])
            await session.execute(delete(ResourceTag).where(*meant))
    return DONE


async def read_all_tags(
    plane: Plane, session: Session, ids: Collection[str] | None, after: str
) -> AsyncIterator[Json]:
    """Give the tags of all resources, those behind `after`."""
    del plane, ids
    chosen = select(ResourceTag).order_by(ResourceTag.resource_id, ResourceTag.key)
    for tag in await session.scalars(chosen):
        place = f"{tag.resource_id} {tag.key}"
        if place > after:
            yield {
                "Key": tag.key,
                "Place": place,
                "ResourceId": tag.resource_id,
                "ResourceType": _KINDS.get(tag.resource_id.partition("-")[0], ""),
                "Value": tag.value,
            }


async def _find_resources(session: Session, request: Json) -> list[str]:
    ids = request.get("Resources", [])
    if not ids:
        raise missing("ResourceId")
    for id_ in ids:
        kind = id_.partition("-")[0]
        table = _TABLES.get(kind, NetworkObject)
        if kind not in _KINDS or await session.get(table, id_) is None:
            raise ApiError("InvalidID", f"The ID '{id_[:128]}' is not valid")
    return list(dict.fromkeys(ids))


def _check_tags(tags: Sequence[Json]) -> None:
    for tag in tags:
        key, value = tag.get("Key", ""), tag.get("Value", "")
        if not key:
            raise missing("Tag.Key")
        if len(key) > MAX_KEY_CHARS or len(value) > MAX_VALUE_CHARS:
            raise invalid_value(
                f"Tag key or value exceeds the maximum length: {MAX_KEY_CHARS} and"
                f" {MAX_VALUE_CHARS} characters"
            )
        if key.lower().startswith("aws:"):
            raise invalid_value("Tag keys starting with 'aws:' are reserved for internal use")


async def _write(session: Session, id_: str, tags: Sequence[Json]) -> None:
    for tag in tags:
        await session.merge(
            ResourceTag(resource_id=id_, key=tag["Key"], value=tag.get("Value", ""))
        )
    await session.flush()
    if len((await read_tags(session, [id_]))[id_]) > MAX_TAGS:
        raise ApiError("TagLimitExceeded", f"The maximum number of Tags is {MAX_TAGS}")


CHANGES: Final[dict[str, Change]] = {"CreateTags": create_tags, "DeleteTags": delete_tags}
