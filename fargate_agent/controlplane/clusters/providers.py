"""Capacity providers: the two that Fargate has. Both mean the same agents here."""

from collections.abc import Sequence
from typing import Final

from fargate_agent.controlplane.clusters.clusters import find_cluster
from fargate_agent.controlplane.clusters.strategies import PROVIDERS
from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.pages import cut, parse_page
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.model import Cluster
from fargate_agent.controlplane.validate import Json

MAX_NAMED: Final = 100
"""Source: ECS API, DescribeCapacityProviders.capacityProviders."""
MAX_RESULTS: Final = 10
"""Source: ECS API, DescribeCapacityProviders.maxResults."""


async def describe_capacity_providers(plane: Plane, call: Call) -> Json:
    """Describe those that are named, or all; of a cluster if one is given."""
    request = call.request
    page = parse_page(request, MAX_RESULTS)
    named = request.get("capacityProviders", [])
    if len(named) > MAX_NAMED:  # unverified
        raise invalid_parameter(f"capacityProviders can have at most {MAX_NAMED} items.")
    there: Sequence[str] = sorted(PROVIDERS)
    if "cluster" in request:
        async with plane.store.read() as session:
            name = await find_cluster(plane.arns, plane.settings, session, request)
            cluster = await session.get_one(Cluster, name)
        there = sorted(cluster.document.get("capacityProviders", []))
    prefix = _arn(plane.arns, "")
    asked = dict.fromkeys(reference.removeprefix(prefix) for reference in named)
    chosen = [name for name in there if name in asked or not asked]
    missing = [name if name.startswith("arn:") else prefix + name for name in asked]
    return {
        **page.render(
            cut(chosen, page), "capacityProviders", lambda name: _render(plane.arns, name)
        ),
        "failures": [
            {"arn": arn, "reason": "MISSING"}
            for name, arn in zip(asked, missing, strict=True)
            if name not in there
        ],
    }


def _render(arns: Arns, name: str) -> Json:
    return {
        "capacityProviderArn": _arn(arns, name),
        "name": name,
        "status": "ACTIVE",
        "type": name,
        "tags": [],
    }


def _arn(arns: Arns, name: str) -> str:
    return f"arn:aws:ecs:{arns.region}:{arns.account}:capacity-provider/{name}"


OPERATIONS: Final[dict[str, Operation]] = {
    "DescribeCapacityProviders": describe_capacity_providers,
}
