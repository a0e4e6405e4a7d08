"""Leases: what is made under one is safe from the garbage collector until it is deleted."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fargate_agent.containerd.connection import CALL_DEADLINE_S, GARBAGE_DEADLINE_S, Connection
from fargate_agent.containerd.errors import AlreadyExistsError, NotFoundError
from fargate_agent.containerd.pb.leases_pb2 import CreateRequest, DeleteRequest, ListRequest
from fargate_agent.containerd.pb.leases_pb2_grpc import LeasesStub
from fargate_agent.containerd.types import time_from_wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease that exists."""

    id: str
    labels: Mapping[str, str]
    created_at: datetime | None


class Leases:
    """The leases of a namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = LeasesStub(connection.channel)

    async def ensure(self, id_: str, labels: Mapping[str, str]) -> None:
        """Return when the lease exists; the labels of one that existed stay as they are."""
        try:
            await self._connection.call(
                f"create lease {id_}", self._stub.Create, CreateRequest(id=id_, labels=labels)
            )
        except AlreadyExistsError:
            return

    async def delete(self, id_: str, *, sync: bool = True) -> None:
        """Return when the lease is gone; with `sync`, also what only it kept."""
        try:
            await self._connection.call(
                f"delete lease {id_}",
                self._stub.Delete,
                DeleteRequest(id=id_, sync=sync),
                GARBAGE_DEADLINE_S if sync else CALL_DEADLINE_S,
            )
        except NotFoundError:
            return

    async def list(self) -> tuple[Lease, ...]:
        """List the leases of the namespace."""
        answer = await self._connection.call("list leases", self._stub.List, ListRequest())
        return tuple(
            Lease(
                id=lease.id,
                labels=dict(lease.labels),
                created_at=time_from_wire(lease.created_at),
            )
            for lease in answer.leases
        )
