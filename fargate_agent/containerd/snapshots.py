"""Snapshots: layers of a file system, each upon its parent.

An active snapshot can be written through its mounts, a view only read. A committed one has a name,
can't change any more and may be a parent. The garbage collector removes what no lease, container
record or `containerd.io/gc.ref.snapshot.…` label names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from fargate_agent.containerd.connection import CALL_DEADLINE_S, GARBAGE_DEADLINE_S, Connection
from fargate_agent.containerd.errors import NotFoundError, containerd_call
from fargate_agent.containerd.pb import snapshots_pb2
from fargate_agent.containerd.pb.snapshots_pb2 import (
    CommitSnapshotRequest,
    ListSnapshotsRequest,
    MountsRequest,
    PrepareSnapshotRequest,
    RemoveSnapshotRequest,
    StatSnapshotRequest,
    UsageRequest,
    ViewSnapshotRequest,
)
from fargate_agent.containerd.pb.snapshots_pb2_grpc import SnapshotsStub
from fargate_agent.containerd.types import Mount, mounts_from_wire


class SnapshotKind(Enum):
    """What can be done with a snapshot."""

    UNKNOWN = snapshots_pb2.UNKNOWN
    VIEW = snapshots_pb2.VIEW
    ACTIVE = snapshots_pb2.ACTIVE
    COMMITTED = snapshots_pb2.COMMITTED


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInfo:
    """A snapshot that exists."""

    key: str
    parent: str
    """Name of a committed snapshot; empty if it stands on nothing."""
    kind: SnapshotKind
    labels: Mapping[str, str]


class Snapshots:
    """The snapshots that one snapshotter keeps in a namespace."""

    def __init__(self, connection: Connection, snapshotter: str) -> None:
        self.snapshotter = snapshotter
        self._connection = connection
        self._stub = SnapshotsStub(connection.channel)

    async def stat(self, key: str) -> SnapshotInfo:
        """Return what a snapshot is.

        Raises:
            NotFoundError: there is none of this key.
        """
        answer = await self._connection.call(
            f"stat snapshot {key}",
            self._stub.Stat,
            StatSnapshotRequest(snapshotter=self.snapshotter, key=key),
        )
        return _from_wire(answer.info)

    async def exists(self, key: str) -> bool:
        """Whether a snapshot of this key or name exists."""
        try:
            await self.stat(key)
        except NotFoundError:
            return False
        return True

    async def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> tuple[Mount, ...]:
        """Make an active snapshot upon a committed one, or upon nothing if `parent` is empty.

        Raises:
            AlreadyExistsError: the key is taken; `mounts` tells how to mount it.
            NotFoundError: the parent does not exist.
        """
        answer = await self._connection.call(
            f"prepare snapshot {key}",
            self._stub.Prepare,
            PrepareSnapshotRequest(
                snapshotter=self.snapshotter, key=key, parent=parent, labels=labels
            ),
        )
        return mounts_from_wire(answer.mounts)

    async def view(self, key: str, parent: str, labels: Mapping[str, str]) -> tuple[Mount, ...]:
        """Make a snapshot that shows a committed one and can't be written.

        Raises:
            AlreadyExistsError: the key is taken; `mounts` tells how to mount it.
            NotFoundError: the parent does not exist.
        """
        answer = await self._connection.call(
            f"view snapshot {parent}",
            self._stub.View,
            ViewSnapshotRequest(
                snapshotter=self.snapshotter, key=key, parent=parent, labels=labels
            ),
        )
        return mounts_from_wire(answer.mounts)

    async def mounts(self, key: str) -> tuple[Mount, ...]:
        """Tell how an active snapshot or a view is mounted.

        Raises:
            NotFoundError: there is none of this key.
        """
        answer = await self._connection.call(
            f"get mounts of snapshot {key}",
            self._stub.Mounts,
            MountsRequest(snapshotter=self.snapshotter, key=key),
        )
        return mounts_from_wire(answer.mounts)

    async def commit(self, name: str, key: str, labels: Mapping[str, str]) -> None:
        """Turn the active snapshot `key` into the committed one `name`.

        Raises:
            AlreadyExistsError: the name is taken; the active one is still there.
            NotFoundError: there is no active one of this key.
        """
        await self._connection.call(
            f"commit snapshot {name}",
            self._stub.Commit,
            CommitSnapshotRequest(snapshotter=self.snapshotter, name=name, key=key, labels=labels),
        )

    async def remove(self, key: str) -> None:
        """Return when the snapshot is gone.

        Raises:
            FailedPreconditionError: others stand upon it.
        """
        try:
            await self._connection.call(
                f"remove snapshot {key}",
                self._stub.Remove,
                RemoveSnapshotRequest(snapshotter=self.snapshotter, key=key),
                GARBAGE_DEADLINE_S,
            )
        except NotFoundError:
            return

    async def usage(self, key: str) -> int:
        """Return how many bytes a snapshot adds to those below it.

        Of a committed one containerd has written it down; for an active one it looks at each file.

        Raises:
            NotFoundError: there is none of this key.
        """
        answer = await self._connection.call(
            f"measure snapshot {key}",
            self._stub.Usage,
            UsageRequest(snapshotter=self.snapshotter, key=key),
            GARBAGE_DEADLINE_S,
        )
        return answer.size

    async def list(self) -> tuple[SnapshotInfo, ...]:
        """List the snapshots of the namespace."""
        with containerd_call("list snapshots"):
            answers = self._stub.List(
                ListSnapshotsRequest(snapshotter=self.snapshotter),
                timeout=CALL_DEADLINE_S,
                metadata=self._connection.headers,
                wait_for_ready=True,
            )
            return tuple([_from_wire(info) async for answer in answers for info in answer.info])


def _from_wire(info: snapshots_pb2.Info) -> SnapshotInfo:
    return SnapshotInfo(
        key=info.name,
        parent=info.parent,
        kind=SnapshotKind(info.kind),
        labels=dict(info.labels),
    )
