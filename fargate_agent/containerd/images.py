"""Image records: a name for the manifest of an image. They keep its content alive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from google.protobuf.field_mask_pb2 import FieldMask

from fargate_agent.containerd.connection import CALL_DEADLINE_S, GARBAGE_DEADLINE_S, Connection
from fargate_agent.containerd.errors import AlreadyExistsError, NotFoundError
from fargate_agent.containerd.pb.images_pb2 import (
    CreateImageRequest,
    DeleteImageRequest,
    GetImageRequest,
    Image,
    ListImagesRequest,
    UpdateImageRequest,
)
from fargate_agent.containerd.pb.images_pb2_grpc import ImagesStub
from fargate_agent.containerd.types import (
    Descriptor,
    descriptor_from_wire,
    descriptor_to_wire,
    time_from_wire,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """A name and the manifest or index it stands for."""

    name: str
    target: Descriptor
    labels: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime | None = None
    """Set by containerd."""
    updated_at: datetime | None = None
    """Set by containerd."""


class Images:
    """The image records of a namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = ImagesStub(connection.channel)

    async def get(self, name: str) -> ImageRecord:
        """Return one record.

        Raises:
            NotFoundError: no image has this name.
        """
        answer = await self._connection.call(
            f"get image {name}", self._stub.Get, GetImageRequest(name=name)
        )
        return _from_wire(answer.image)

    async def list(self, filters: Sequence[str] = ()) -> tuple[ImageRecord, ...]:
        """List the records that pass any of the filters, e.g. `labels."team"==web`."""
        answer = await self._connection.call(
            "list images", self._stub.List, ListImagesRequest(filters=filters)
        )
        return tuple(map(_from_wire, answer.images))

    async def ensure(self, record: ImageRecord) -> None:
        """Return when the name stands for this target with these labels."""
        image = Image(
            name=record.name, labels=record.labels, target=descriptor_to_wire(record.target)
        )
        what = f"record image {record.name}"
        try:
            await self._connection.call(what, self._stub.Create, CreateImageRequest(image=image))
        except AlreadyExistsError:
            await self._connection.call(what, self._stub.Update, UpdateImageRequest(image=image))

    async def set_labels(self, name: str, labels: Mapping[str, str]) -> None:
        """Set these labels and leave the others.

        Raises:
            NotFoundError: no image has this name.
        """
        request = UpdateImageRequest(
            image=Image(name=name, labels=labels),
            update_mask=FieldMask(paths=[f"labels.{key}" for key in labels]),
        )
        await self._connection.call(f"label image {name}", self._stub.Update, request)

    async def delete(self, name: str, *, sync: bool = True) -> None:
        """Return when the record is gone; with `sync`, also the content that only it kept."""
        try:
            await self._connection.call(
                f"delete image {name}",
                self._stub.Delete,
                DeleteImageRequest(name=name, sync=sync),
                GARBAGE_DEADLINE_S if sync else CALL_DEADLINE_S,
            )
        except NotFoundError:
            return


def _from_wire(image: Image) -> ImageRecord:
    return ImageRecord(
        name=image.name,
        target=descriptor_from_wire(image.target),
        labels=dict(image.labels),
        created_at=time_from_wire(image.created_at),
        updated_at=time_from_wire(image.updated_at),
    )
