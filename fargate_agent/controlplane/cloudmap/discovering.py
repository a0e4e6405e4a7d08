"""DiscoverInstances: instances by the names of their service and namespace.

Source: Cloud Map API reference, DiscoverInstances; developer guide, "AWS Cloud Map service health
check configuration", for what is answered unless something else is asked for.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from fargate_agent.controlplane.cloudmap.instances import MAX_ATTRIBUTES
from fargate_agent.controlplane.cloudmap.members import (
    HEALTHY,
    UNHEALTHY,
    Instance,
    read_instances,
)
from fargate_agent.controlplane.cloudmap.references import find_named_service
from fargate_agent.controlplane.cloudmap.refusals import invalid_input, namespace_not_found
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.validate import Json

DEFAULT_RESULTS: Final = 100
"""Source: Cloud Map API reference, DiscoverInstances.MaxResults."""


async def discover_instances(plane: Plane, call: Call) -> Json:
    """Return the instances of a service that are asked for, in the order of their ids."""
    request = call.request
    _check(plane.arns, request)
    async with plane.store.read() as session:
        names = request["NamespaceName"], request["ServiceName"]
        namespace, service = await find_named_service(session, *names)
        found = await read_instances(session, [service.id])
    has_health = "HealthCheckCustomConfig" in service.document
    if has_health:
        found = _choose_healthy(found, request.get("HealthStatus", HEALTHY))
    found = _choose(found, request)[: request.get("MaxResults", DEFAULT_RESULTS)]
    return {
        "Instances": [
            {
                "InstanceId": instance.id,
                "NamespaceName": namespace.name,
                "ServiceName": service.name,
                "HealthStatus": UNHEALTHY if has_health and not instance.is_healthy else HEALTHY,
                "Attributes": instance.attributes,
            }
            for instance in found
        ],
        "InstancesRevision": namespace.version,
    }


async def discover_instances_revision(plane: Plane, call: Call) -> Json:
    """Return a number that is another one once DiscoverInstances may answer something else."""
    request = call.request
    _check(plane.arns, request)
    async with plane.store.read() as session:
        names = request["NamespaceName"], request["ServiceName"]
        namespace, _ = await find_named_service(session, *names)
    return {"InstancesRevision": namespace.version}


def _check(arns: Arns, request: Json) -> None:
    if request.get("OwnerAccount", arns.account) != arns.account:
        raise namespace_not_found(request["NamespaceName"])
    for member in ("QueryParameters", "OptionalParameters"):
        if len(request.get(member, {})) > MAX_ATTRIBUTES:
            raise invalid_input(f"{member} can have at most {MAX_ATTRIBUTES} attributes.")


def _choose_healthy(found: Sequence[Instance], status: str) -> list[Instance]:
    healthy = [instance for instance in found if instance.is_healthy]
    match status:
        case "ALL":
            return [*found]
        case "UNHEALTHY":
            return [instance for instance in found if not instance.is_healthy]
        case "HEALTHY_OR_ELSE_ALL":
            return healthy or [*found]
        case _:
            return healthy


def _choose(found: Sequence[Instance], request: Json) -> list[Instance]:
    """Return those with the attributes that are asked for; optional ones count if one has them."""
    asked = [one for one in found if _has(one, request.get("QueryParameters", {}))]
    preferred = [one for one in asked if _has(one, request.get("OptionalParameters", {}))]
    return preferred or asked


def _has(instance: Instance, wanted: Mapping[str, str]) -> bool:
    return wanted.items() <= instance.attributes.items()


OPERATIONS: Final[dict[str, Operation]] = {
    "DiscoverInstances": discover_instances,
    "DiscoverInstancesRevision": discover_instances_revision,
}
