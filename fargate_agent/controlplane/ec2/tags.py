"""Tags of what EC2's calls name."""

from collections import defaultdict
from collections.abc import Collection

from sqlalchemy import select

from fargate_agent.controlplane.state.networks import ResourceTag
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json


async def read_tags(session: Session, ids: Collection[str]) -> defaultdict[str, list[Json]]:
    """Return the tags of each of some resources, in the order of their keys."""
    chosen = select(ResourceTag).where(ResourceTag.resource_id.in_(ids)).order_by(ResourceTag.key)
    found: defaultdict[str, list[Json]] = defaultdict(list)
    for tag in await session.scalars(chosen):
        found[tag.resource_id].append({"Key": tag.key, "Value": tag.value})
    return found
