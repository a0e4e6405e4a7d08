"""From a request of Cloud Map to its answer."""

import asyncio
from collections.abc import Callable
from typing import Final

from fargate_agent.controlplane.access.permissions import ANYTHING, Target, Targets
from fargate_agent.controlplane.cloudmap import (
    discovering,
    instances,
    namespaces,
    operations,
    services,
    tags,
)
from fargate_agent.controlplane.cloudmap.references import namespace_arn, service_arn
from fargate_agent.controlplane.cloudmap.shapes import (
    TARGET_PREFIX,
    as_cloud_map_says,
    parse_request,
    service_model,
)
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.validate import Json

OPERATIONS: Final[dict[str, Operation]] = {
    name: operation
    for module in (discovering, instances, namespaces, operations, services, tags)
    for name, operation in module.OPERATIONS.items()
}
"""What is supported. Who may call it, the caller's policy says."""

_OF_NAMESPACES: Final = frozenset(
    {"DeleteNamespace", "GetNamespace", "UpdatePrivateDnsNamespace", "UpdateHttpNamespace"}
)


def is_cloud_map(target: str) -> bool:
    """Whether the header `X-Amz-Target` names an operation of Cloud Map."""
    return target.startswith(f"{TARGET_PREFIX}.")


async def parse_call(target: str, body: bytes) -> tuple[str, Json]:
    """Return the name of the operation and the request, which has its shape.

    Raises:
        ApiError: there is no such operation, it isn't done here, or the request is malformed.
    """
    model = await asyncio.to_thread(service_model)
    name = target.partition(".")[2]
    if name not in model.operation_names:
        raise ApiError("UnknownOperationException", f"There is no operation '{name[:64]}'.")
    if name not in OPERATIONS:
        raise ApiError("InvalidInput", f"{name} is not supported here.")
    return name, parse_request(name, body)


def find_targets(name: str, request: Json, arns: Arns) -> Targets:
    """Return what a call acts on, which policies speak of.

    Source: AWS service authorization reference, "Actions, resources, and condition keys for AWS
    Cloud Map".
    """
    write: Callable[[Arns, str], str] = service_arn
    reference = request.get("ServiceId") or request.get("Id")
    if name in _OF_NAMESPACES:
        write = namespace_arn
    if name == "CreateService":
        write = namespace_arn
        reference = request.get("NamespaceId") or request.get("DnsConfig", {}).get("NamespaceId")
    if "ResourceARN" in request:
        return [Target(request["ResourceARN"])]
    if not reference:
        return ANYTHING
    return [Target(reference if reference.startswith("arn:") else write(arns, reference))]


async def answer(plane: Plane, name: str, call: Call) -> Json:
    """Answer a call.

    Raises:
        ApiError: it is refused, by a name that Cloud Map has for that.
    """
    try:
        return await OPERATIONS[name](plane, call)
    except ApiError as error:
        raise as_cloud_map_says(error) from None
