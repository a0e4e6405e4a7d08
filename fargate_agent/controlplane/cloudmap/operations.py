"""All calls of Cloud Map by name, with those about operations and tags."""

import asyncio
from collections.abc import Mapping
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.access.auth import Caller
from fargate_agent.controlplane.cloudmap import namespaces, registering, services
from fargate_agent.controlplane.cloudmap.calls import (
    TARGET_PREFIX,
    filter_values,
    invalid_input,
    last_part,
    parse_cloud_map_page,
    render_cloud_map_page,
    service_model,
)
from fargate_agent.controlplane.errors import ApiError, invalid_parameter, unsupported
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.state.cloudmap import (
    CloudMapOperation,
    DiscoverableService,
    Namespace,
)
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json, parse_request

__all__ = ["TARGET_PREFIX", "answer", "is_known"]

MAX_TAGS: Final = 50
"""Source: Cloud Map API, TagResource."""


async def is_known(name: str) -> bool:
    """Whether Cloud Map has an operation of that name."""
    return name in (await asyncio.to_thread(service_model)).operation_names


async def answer(plane: Plane, caller: Caller, host: str, name: str, body: bytes) -> Json:
    """Do what a caller asks for who may; `host` is how it knows this program.

    Raises:
        ApiError: it can't be done.
    """
    operation = OPERATIONS.get(name)
    if operation is None:
        raise unsupported(f"{name} is not supported here.")
    try:
        request = parse_request(name, body, service_model(), known={})
        return await operation(plane, Call(request=request, caller=caller, host=host))
    except ApiError as error:
        if error.kind != invalid_parameter("").kind:
            raise
        raise invalid_input(error.message) from error


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
    wanted = filter_values(call.request, ("STATUS", "TYPE", "NAMESPACE_ID", "SERVICE_ID"))
    async with plane.store.read() as session:
        found = (await session.scalars(select(CloudMapOperation))).all()
    targets = {"NAMESPACE_ID": "NAMESPACE", "SERVICE_ID": "SERVICE"}

    def passes(one: CloudMapOperation) -> bool:
        told = {"STATUS": "SUCCESS", "TYPE": one.kind}
        told |= {name: one.targets.get(target, "") for name, target in targets.items()}
        return all(told[name] in values for name, values in wanted.items())

    items = sorted(
        ((one.id, {"Id": one.id, "Status": "SUCCESS"}) for one in found if passes(one)),
        key=lambda item: item[0],
    )
    return render_cloud_map_page(page, items, "Operations")


async def tag_resource(plane: Plane, call: Call) -> Json:
    """Add tags; those with the same keys get new values."""
    async with plane.store.write() as session:
        tagged = await _find_tagged(session, call.request["ResourceARN"])
        merged = {tag["Key"]: tag for tag in [*tagged.tags, *call.request["Tags"]]}
        if len(merged) > MAX_TAGS:
            raise ApiError("TooManyTagsException", f"A resource can have {MAX_TAGS} tags.")
        tagged.tags = list(merged.values())
    return {}


async def untag_resource(plane: Plane, call: Call) -> Json:
    """Take tags away."""
    keys = set(call.request["TagKeys"])
    async with plane.store.write() as session:
        tagged = await _find_tagged(session, call.request["ResourceARN"])
        tagged.tags = [tag for tag in tagged.tags if tag["Key"] not in keys]
    return {}


async def list_tags_for_resource(plane: Plane, call: Call) -> Json:
    """List the tags of a resource."""
    async with plane.store.read() as session:
        return {"Tags": (await _find_tagged(session, call.request["ResourceARN"])).tags}


async def _find_tagged(session: Session, arn: str) -> Namespace | DiscoverableService:
    found: Namespace | DiscoverableService | None = None
    if ":namespace/" in arn:
        found = await session.get(Namespace, last_part(arn))
    elif ":service/" in arn:
        found = await session.get(DiscoverableService, last_part(arn))
    if found is None:
        raise ApiError("ResourceNotFoundException", f"Resource not found: {arn[:256]}")
    return found


OPERATIONS: Final[Mapping[str, Operation]] = {
    **namespaces.OPERATIONS,
    **services.OPERATIONS,
    **registering.OPERATIONS,
    "GetOperation": get_operation,
    "ListOperations": list_operations,
    "ListTagsForResource": list_tags_for_resource,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
}
