"""Unpacking of layers."""

from collections.abc import Sequence
from typing import Final

from fargate_agent.containerd.connection import Connection
from fargate_agent.containerd.pb.diff_pb2 import ApplyRequest
from fargate_agent.containerd.pb.diff_pb2_grpc import DiffStub
from fargate_agent.containerd.types import (
    Descriptor,
    Mount,
    descriptor_from_wire,
    descriptor_to_wire,
    mounts_to_wire,
)

APPLY_DEADLINE_S: Final = 1800.0
"""A layer of 10 GiB unpacks at about 95 MB/s on an idle machine; this allows a sixteenth of it."""


class Diff:
    """Turns layers into files."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = DiffStub(connection.channel)

    async def apply(self, descriptor: Descriptor, mounts: Sequence[Mount]) -> Descriptor:
        """Unpack a layer of the content store, its compression told by its media type.

        Returns the uncompressed layer; its digest is what image configs call the diff id.

        Raises:
            NotFoundError: the content store has no such layer.
            ContainerdError: it isn't a layer, or the disk is full.
        """
        answer = await self._connection.call(
            f"unpack layer {descriptor.digest}",
            self._stub.Apply,
            ApplyRequest(diff=descriptor_to_wire(descriptor), mounts=mounts_to_wire(mounts)),
            APPLY_DEADLINE_S,
        )
        return descriptor_from_wire(answer.applied)
