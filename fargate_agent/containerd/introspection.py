"""Which plugins containerd has, and which of them did not load."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.empty_pb2 import Empty

from fargate_agent.containerd.connection import Connection
from fargate_agent.containerd.pb.introspection_pb2 import PluginsRequest
from fargate_agent.containerd.pb.introspection_pb2_grpc import IntrospectionStub

SNAPSHOTTER_TYPE: Final = "io.containerd.snapshotter.v1"
"""Source: containerd, plugins/types.go, `SnapshotPlugin`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A part of containerd, e.g. a snapshotter."""

    type: str
    """E.g. `io.containerd.snapshotter.v1`."""
    id: str
    """E.g. `overlayfs`."""
    exports: Mapping[str, str]
    """What it says about itself, e.g. `root`, its directory."""
    error: str | None
    """Why it did not load; None if it did."""


class Introspection:
    """containerd about itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = IntrospectionStub(connection.channel)

    async def plugins(self, filters: Sequence[str] = ()) -> tuple[Plugin, ...]:
        """List plugins; one passes if any filter, e.g. `type==io.containerd.snapshotter.v1`, does.

        A plugin that did not load is listed too.
        """
        answer = await self._connection.call(
            "list plugins", self._stub.Plugins, PluginsRequest(filters=filters)
        )
        return tuple(
            Plugin(
                type=plugin.type,
                id=plugin.id,
                exports=dict(plugin.exports),
                error=plugin.init_err.message if plugin.HasField("init_err") else None,
            )
            for plugin in answer.plugins
        )

    async def snapshotters(self) -> Mapping[str, str | None]:
        """Return why each snapshotter did not load, by its name; None for one that did."""
        plugins = await self.plugins((f"type=={SNAPSHOTTER_TYPE}",))
        return {plugin.id: plugin.error for plugin in plugins}

    async def server_uuid(self) -> str:
        """Return what tells this containerd from every other; it is the same after a restart."""
        answer = await self._connection.call("ask containerd who it is", self._stub.Server, Empty())
        return answer.uuid
