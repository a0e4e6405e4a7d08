"""The way in: one channel to containerd's socket, one containerd namespace, all services."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc
from google.protobuf.empty_pb2 import Empty

from fargate_agent.containerd.connection import Connection, open_channel
from fargate_agent.containerd.containers import Containers
from fargate_agent.containerd.content import Content
from fargate_agent.containerd.diff import Diff
from fargate_agent.containerd.errors import (
    AlreadyExistsError,
    DeadlineError,
    NotFoundError,
    UnavailableError,
    containerd_call,
)
from fargate_agent.containerd.events import Events
from fargate_agent.containerd.execs import Execs
from fargate_agent.containerd.images import Images
from fargate_agent.containerd.introspection import Introspection
from fargate_agent.containerd.leases import Leases
from fargate_agent.containerd.pb.namespaces_pb2 import (
    CreateNamespaceRequest,
    DeleteNamespaceRequest,
    Namespace,
)
from fargate_agent.containerd.pb.namespaces_pb2_grpc import NamespacesStub
from fargate_agent.containerd.pb.version_pb2_grpc import VersionStub
from fargate_agent.containerd.processes import Processes
from fargate_agent.containerd.snapshots import Snapshots

VERSION_DEADLINE_S: Final = 5.0
"""containerd says its version from memory; one that takes longer is not serving."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Which containerd answered."""

    version: str
    revision: str


class Containerd:
    """A client of containerd, for one namespace and, if given, on behalf of one lease.

    A lease keeps what is made under it from the garbage collector until the lease is deleted.
    """

    def __init__(
        self,
        address: Path,
        namespace: str,
        *,
        lease: str | None = None,
        shared: Connection | None = None,
    ) -> None:
        """Prepare a client; nothing is connected before the first call.

        `shared` is for `with_lease`: the connection of the client that this one is a view of.
        """
        self.address = address
        self.namespace = namespace
        channel = shared.channel if shared else open_channel(address)
        self._connection = connection = Connection(channel, namespace, lease)
        self._served_s = -math.inf
        """When it last said its version, as `time.monotonic` has it."""
        self.introspection = Introspection(connection)
        self.leases = Leases(connection)
        self.content = Content(connection)
        self.images = Images(connection)
        self.diff = Diff(connection)
        self.containers = Containers(connection)
        self.processes = Processes(connection)
        self.execs = Execs(connection)
        self.events = Events(connection)

    def with_lease(self, lease: str) -> "Containerd":
        """Return a view over the same channel whose calls are all on behalf of `lease`.

        It ends with this client and is not closed by itself.
        """
        return Containerd(self.address, self.namespace, lease=lease, shared=self._connection)

    def snapshots(self, snapshotter: str) -> Snapshots:
        """Return the snapshots that one snapshotter keeps."""
        return Snapshots(self._connection, snapshotter)

    async def version(self) -> Version:
        """Ask which containerd this is; fails at once if it isn't there.

        Raises:
            UnavailableError: nobody answers at the socket.
        """
        with containerd_call("ask containerd for its version"):
            answer = await VersionStub(self._connection.channel).Version(
                Empty(), timeout=VERSION_DEADLINE_S, metadata=self._connection.headers
            )
        return Version(version=answer.version, revision=answer.revision)

    async def wait_until_served(self, *, patience_s: float = 0) -> None:
        """Return when containerd answers, however long that takes.

        It isn't asked if it has answered within the last `patience_s`, and is still connected.
        """
        if time.monotonic() - self._served_s < patience_s and self.is_connected():
            return
        while True:
            await self._connection.channel.channel_ready()
            try:
                await self.version()
            except (UnavailableError, DeadlineError):
                continue
            self._served_s = time.monotonic()
            return

    def is_connected(self) -> bool:
        """Whether somebody is at the other end of the socket."""
        return self._connection.channel.get_state() is grpc.ChannelConnectivity.READY

    async def ensure_namespace(self) -> None:
        """Return when the namespace exists. Other objects can't be made before."""
        request = CreateNamespaceRequest(namespace=Namespace(name=self.namespace))
        stub = NamespacesStub(self._connection.channel)
        try:
            await self._connection.call(
                f"create containerd namespace {self.namespace}", stub.Create, request
            )
        except AlreadyExistsError:
            return

    async def remove_namespace(self) -> None:
        """Return when the namespace is gone; what was in it has to be gone before.

        Raises:
            FailedPreconditionError: something is still in it.
        """
        request = DeleteNamespaceRequest(name=self.namespace)
        stub = NamespacesStub(self._connection.channel)
        try:
            await self._connection.call(
                f"remove containerd namespace {self.namespace}", stub.Delete, request
            )
        except NotFoundError:
            return

    async def close(self) -> None:
        """End the channel; calls under way fail."""
        await self._connection.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
