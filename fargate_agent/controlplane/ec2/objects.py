"""What is kept and shown and nothing more: found, made, rendered the same way."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

from sqlalchemy import select

from fargate_agent.controlplane.ec2.changes import new_resource_id
from fargate_agent.controlplane.ec2.tags import drop_tags, put_tags, read_tags
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.networks import NetworkObject
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

Read = Callable[[Plane, Session, Collection[str] | None, str], AsyncIterator[Json]]
Render = Callable[[Session, NetworkObject, list[Json]], Awaitable[Json]]
"""Returns a row as its Describe call answers it, with its tags."""


async def find_object(session: Session, kind: str, id_: str, code: str, what: str) -> NetworkObject:
    """Return the row of something of a kind.

    Raises:
        ApiError: it isn't there; `code` is what EC2 calls that.
    """
    row = await session.get(NetworkObject, id_)
    if row is None or row.kind != kind:
        raise ApiError(code, f"The {what} '{id_[:128]}' does not exist")
    return row


async def list_objects(
    session: Session, kind: str, vpc_id: str | None = None
) -> list[NetworkObject]:
    """Return what there is of a kind, in a VPC or in all."""
    chosen = select(NetworkObject).where(NetworkObject.kind == kind).order_by(NetworkObject.id)
    if vpc_id is not None:
        chosen = chosen.where(NetworkObject.vpc_id == vpc_id)
    return list(await session.scalars(chosen))


async def find_repeated(session: Session, kind: str, request: Json) -> NetworkObject | None:
    """Return what an earlier request with the same client token has made."""
    token = request.get("ClientToken")
    if not token:
        return None
    chosen = select(NetworkObject).where(
        NetworkObject.kind == kind, NetworkObject.client_token == token
    )
    return await session.scalar(chosen)


async def add_object(
    session: Session,
    *,
    kind: str,
    prefix: str,
    request: Json,
    document: Json,
    vpc_id: str | None = None,
) -> NetworkObject:
    """Make something of a kind, with the tags that its request has for it."""
    row = NetworkObject(
        id=new_resource_id(prefix),
        kind=kind,
        vpc_id=vpc_id,
        client_token=request.get("ClientToken"),
        document=document,
        created_at=time.time(),
    )
    session.add(row)
    await session.flush()
    await put_tags(session, request, kind, row.id)
    return row


async def remove_object(session: Session, row: NetworkObject) -> None:
    """Delete something with its tags."""
    await drop_tags(session, [row.id])
    await session.delete(row)
    await session.flush()


async def show(session: Session, row: NetworkObject, render: Render) -> Json:
    """Return a row as its Describe call answers it."""
    return await render(session, row, (await read_tags(session, [row.id]))[row.id])


def reading(kind: str, render: Render) -> Read:
    """Return what gives all of a kind, in the order of their ids."""

    async def read(
        plane: Plane, session: Session, ids: Collection[str] | None, after: str
    ) -> AsyncIterator[Json]:
        del plane
        chosen = select(NetworkObject).where(NetworkObject.kind == kind, NetworkObject.id > after)
        if ids is not None:
            chosen = chosen.where(NetworkObject.id.in_(ids))
        rows = (await session.scalars(chosen.order_by(NetworkObject.id))).all()
        tags = await read_tags(session, [row.id for row in rows])
        for row in rows:
            yield await render(session, row, tags[row.id])

    return read
