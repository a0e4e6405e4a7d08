"""What several services of containerd share, as plain data, and its way to and from the wire."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from fargate_agent.containerd.pb import types_pb2

_GO_ZERO_TIME_S: Final = -62_135_596_800
"""Seconds since 1970 of the year 1: how Go sends a time that was never set.

Source: Go, package time, `Time.IsZero`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """Content, named by its digest."""

    media_type: str
    digest: str
    """`sha256:…`."""
    size: int
    """Bytes."""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """Arguments of a mount that containerd or the shim will do."""

    type: str
    source: str
    target: str = ""
    options: tuple[str, ...] = ()


def descriptor_to_wire(descriptor: Descriptor) -> types_pb2.Descriptor:
    """Return the message for a descriptor."""
    return types_pb2.Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        annotations=descriptor.annotations,
    )


def descriptor_from_wire(message: types_pb2.Descriptor) -> Descriptor:
    """Return the descriptor in a message."""
    return Descriptor(
        media_type=message.media_type,
        digest=message.digest,
        size=message.size,
        annotations=dict(message.annotations),
    )


def mounts_to_wire(mounts: Iterable[Mount]) -> list[types_pb2.Mount]:
    """Return the messages for mounts."""
    return [
        types_pb2.Mount(type=m.type, source=m.source, target=m.target, options=m.options)
        for m in mounts
    ]


def mounts_from_wire(messages: Iterable[types_pb2.Mount]) -> tuple[Mount, ...]:
    """Return the mounts in messages."""
    return tuple(
        Mount(type=m.type, source=m.source, target=m.target, options=tuple(m.options))
        for m in messages
    )


def time_from_wire(message: Timestamp) -> datetime | None:
    """Return an aware time, or None if it was never set."""
    if message.seconds in {0, _GO_ZERO_TIME_S}:
        return None
    return message.ToDatetime(tzinfo=UTC)
