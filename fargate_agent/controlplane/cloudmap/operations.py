"""All calls of Cloud Map by name, with those about operations."""

import asyncio
from collections.abc import Mapping
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.access.permissions import ANYTHING, Target, Targets
from fargate_agent.controlplane.cloudmap import namespaces, registering, services, tags
from fargate_agent.controlplane.cloudmap.calls import (
    TARGET_PREFIX,
    invalid_input,
    last_part,
    namespace_arn,
    parse_cloud_map_page,
    registry_arn,
    render_cloud_map_page,
    service_model,
)
from fargate_agent.controlplane.cloudmap.filters import check_filters, matches
from fargate_agent.controlplane.cloudmap.members import MEMBERS
from fargate_agent.controlplane.errors import ApiError, invalid_parameter, unsupported
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.cloudmap import CloudMapOperation
from fargate_agent.controlplane.validate import Json, parse_request

__all__ = ["TARGET_PREFIX", "answer", "find_targets", "parse"]

_LISTED: Final = ("EQ", "IN")
_FILTERS: Final = {
    "STATUS": _LISTED,
    "TYPE": _LISTED,
    "NAMESPACE_ID": _LISTED,
    "SERVICE_ID": _LISTED,
    "UPDATE_DATE": ("BETWEEN",),
}
"""Source: Cloud Map API, OperationFilter."""
_OF_NAMESPACES: Final = (
    "CreateService",
    "DeleteNamespace",
    "GetNamespace",
    "UpdateHttpNamespace",
    "UpdatePrivateDnsNamespace",
)


async def parse(name: str, body: bytes) -> Json:
    """Return the request of an operation, which has its shape.

    Raises:
        ApiError: there is no such operation, it isn't done here, or the request is malformed.
    """
    model = await asyncio.to_thread(service_model)
    if name not in model.operation_names:
        raise ApiError("UnknownOperationException", f"There is no operation '{name[:64]}'.")
    if name not in OPERATIONS:
        raise unsupported(f"{name} is not supported here.")
    try:
        return parse_request(name, body, model, known=MEMBERS)
    except ApiError as error:
        raise _as_cloud_map_says(error) from error


def find_targets(name: str, request: Json, arns: Arns) -> Targets:
    """Return what a call acts on, of which policies speak: a namespace, a service, or anything.

    Source: AWS service authorization reference, "Actions, resources, and condition keys for AWS
    Cloud Map".
    """
    if "ResourceARN" in request:
        return [Target(request["ResourceARN"])]
    reference = request.get("ServiceId") or request.get("Id")
    if name == "CreateService":
        dns = request.get("DnsConfig", {})
        reference = request.get("NamespaceId") or dns.get("NamespaceId")
    write = namespace_arn if name in _OF_NAMESPACES else registry_arn
    return [Target(write(arns, last_part(reference)))] if reference else ANYTHING


async def answer(plane: Plane, name: str, call: Call) -> Json:
    """Do what a caller asks for who may.

    Raises:
        ApiError: it can't be done.
    """
    try:
        return await OPERATIONS[name](plane, call)
    except ApiError as error:
        raise _as_cloud_map_says(error) from error


def _as_cloud_map_says(error: ApiError) -> ApiError:
    is_ecs = error.kind == invalid_parameter("").kind
    return invalid_input(error.message) if is_ecs else error


async def get_operation(plane: Plane, call: Call) -> Json:
    """Say how an operation went."""
    async with plane.store.read() as session:
        found = await session.get(CloudMapOperation, call.request["OperationId"])
    if found is None:
        raise ApiError("OperationNotFound", "No operation exists with the specified ID.")
    return {
        "Operation": {
            "Id": found.id,
            "OwnerAccount": plane.arns.account,
            "Type": found.kind,
            "Status": "SUCCESS",
            "CreateDate": found.created_at,
            "UpdateDate": found.created_at,
            "Targets": found.targets,
        }
    }


async def list_operations(plane: Plane, call: Call) -> Json:
    """List them by id."""
    page = parse_cloud_map_page(call.request)
    filters = check_filters(call.request, _FILTERS)
    async with plane.store.read() as session:
        found = (await session.scalars(select(CloudMapOperation))).all()
    items = sorted(
        (
            (one.id, {"Id": one.id, "Status": "SUCCESS"})
            for one in found
            if matches(filters, _values(one))
        ),
        key=lambda item: item[0],
    )
    return render_cloud_map_page(page, items, "Operations")


def _values(operation: CloudMapOperation) -> dict[str, str | float]:
    return {
        "STATUS": "SUCCESS",
        "TYPE": operation.kind,
        "NAMESPACE_ID": operation.targets.get("NAMESPACE", ""),
        "SERVICE_ID": operation.targets.get("SERVICE", ""),
        "UPDATE_DATE": operation.created_at,
    }


OPERATIONS: Final[Mapping[str, Operation]] = {
    **namespaces.OPERATIONS,
    **services.OPERATIONS,
    **registering.OPERATIONS,
    **tags.OPERATIONS,
    "GetOperation": get_operation,
    "ListOperations": list_operations,
}
