"""Container records: what a container is to be. Its processes are in `processes`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.field_mask_pb2 import FieldMask

from fargate_agent.containerd.connection import Connection
from fargate_agent.containerd.errors import NotFoundError
from fargate_agent.containerd.pb.containers_pb2 import (
    Container,
    CreateContainerRequest,
    DeleteContainerRequest,
    GetContainerRequest,
    ListContainersRequest,
    UpdateContainerRequest,
)
from fargate_agent.containerd.pb.containers_pb2_grpc import ContainersStub
from fargate_agent.containerd.types import time_from_wire

RUNTIME: Final = "io.containerd.runc.v2"
"""The runc shim. Source: containerd, runtime/v2/README.md."""

SPEC_TYPE_URL: Final = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
"""Says that the value is an OCI runtime spec in JSON. Source: containerd, containers_options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """What a container is to be."""

    id: str
    image: str
    """Name of its image record; only said, not looked up."""
    spec: bytes = field(repr=False)
    """OCI runtime spec in JSON. Its environment may hold secrets."""
    snapshotter: str = ""
    snapshot_key: str = ""
    """Root file system. The record keeps this snapshot alive, even one that is made later."""
    runtime: str = RUNTIME
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime | None = None
    """Set by containerd."""


class Containers:
    """The container records of a namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = ContainersStub(connection.channel)

    async def get(self, id_: str) -> ContainerRecord:
        """Return one record.

        Raises:
            NotFoundError: no container has this id.
        """
        answer = await self._connection.call(
            f"get container {id_}", self._stub.Get, GetContainerRequest(id=id_)
        )
        return _from_wire(answer.container)

    async def list(self, filters: Sequence[str] = ()) -> tuple[ContainerRecord, ...]:
        """List the records that pass any of the filters, e.g. `labels."team"==web`."""
        answer = await self._connection.call(
            "list containers", self._stub.List, ListContainersRequest(filters=filters)
        )
        return tuple(map(_from_wire, answer.containers))

    async def create(self, record: ContainerRecord) -> None:
        """Make the record.

        Raises:
            AlreadyExistsError: the id is taken.
        """
        container = Container(
            id=record.id,
            labels=record.labels,
            image=record.image,
            runtime=Container.Runtime(name=record.runtime),
            spec=Any(type_url=SPEC_TYPE_URL, value=record.spec),
            snapshotter=record.snapshotter,
            snapshot_key=record.snapshot_key,
        )
        await self._connection.call(
            f"create container {record.id}",
            self._stub.Create,
            CreateContainerRequest(container=container),
        )

    async def set_labels(self, id_: str, labels: Mapping[str, str]) -> None:
        """Replace the labels by these.

        Raises:
            NotFoundError: no container has this id.
        """
        await self._connection.call(
            f"label container {id_}",
            self._stub.Update,
            UpdateContainerRequest(
                container=Container(id=id_, labels=labels), update_mask=FieldMask(paths=["labels"])
            ),
        )

    async def delete(self, id_: str) -> None:
        """Return when the record is gone; its snapshot follows when nothing else names it.

        Its process has to be deleted before: containerd doesn't look, and without the record no
        call reaches the process any more, but `Processes.force_delete`.
        """
        try:
            await self._connection.call(
                f"delete container {id_}", self._stub.Delete, DeleteContainerRequest(id=id_)
            )
        except NotFoundError:
            return


def _from_wire(container: Container) -> ContainerRecord:
    return ContainerRecord(
        id=container.id,
        image=container.image,
        spec=container.spec.value,
        snapshotter=container.snapshotter,
        snapshot_key=container.snapshot_key,
        runtime=container.runtime.name,
        labels=dict(container.labels),
        created_at=time_from_wire(container.created_at),
    )
