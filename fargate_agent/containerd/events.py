"""What containerd tells of its own accord.

The agent needs it for kills by the kernel only: exits come from `Processes.wait`, which loses none.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from google.protobuf.any_pb2 import Any

from fargate_agent.containerd.connection import Connection
from fargate_agent.containerd.errors import containerd_call
from fargate_agent.containerd.pb.events_pb2 import SubscribeRequest
from fargate_agent.containerd.pb.events_pb2_grpc import EventsStub
from fargate_agent.containerd.pb.process_events_pb2 import TaskExit as TaskExitMessage
from fargate_agent.containerd.pb.process_events_pb2 import TaskOOM as TaskOomMessage
from fargate_agent.containerd.types import time_from_wire


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskExit:
    """A process has ended. Topic `/tasks/exit`."""

    container_id: str
    id: str
    """The container's id for its first process, else that of the exec."""
    pid: int
    code: int
    at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOom:
    """The kernel killed a process of a container for memory. Topic `/tasks/oom`."""

    container_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something has happened in containerd."""

    topic: str
    namespace: str
    at: datetime | None
    type_url: str
    value: bytes
    payload: TaskExit | TaskOom | None
    """None: of a kind that isn't decoded here."""


class Events:
    """The stream of events; of all namespaces, whatever that of the client is."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = EventsStub(connection.channel)

    async def subscribe(self, filters: Sequence[str]) -> AsyncGenerator[Event, None]:
        """Give the events that pass any of the filters, from now on, for ever.

        A filter looks like `namespace==fargate,topic=="/tasks/oom"`.

        Raises:
            UnavailableError: containerd went away. Subscribe again; what happened meanwhile is
                not told.
        """
        with containerd_call("subscribe to events"):
            stream = self._stub.Subscribe(
                SubscribeRequest(filters=filters),
                metadata=self._connection.headers,
                wait_for_ready=True,
            )
            try:
                async for envelope in stream:
                    yield Event(
                        topic=envelope.topic,
                        namespace=envelope.namespace,
                        at=time_from_wire(envelope.timestamp),
                        type_url=envelope.event.type_url,
                        value=envelope.event.value,
                        payload=_decode(envelope.event),
                    )
            finally:
                stream.cancel()


def _decode_exit(value: bytes) -> TaskExit:
    message = TaskExitMessage.FromString(value)
    return TaskExit(
        container_id=message.container_id,
        id=message.id,
        pid=message.pid,
        code=message.exit_status,
        at=time_from_wire(message.exited_at),
    )


def _decode_oom(value: bytes) -> TaskOom:
    return TaskOom(container_id=TaskOomMessage.FromString(value).container_id)


_DECODERS: Final[Mapping[str, Callable[[bytes], TaskExit | TaskOom]]] = {
    "containerd.events.TaskExit": _decode_exit,
    "containerd.events.TaskOOM": _decode_oom,
}
"""By type URL, which of these events has no slash. Source: containerd, api/events/task.proto."""


def _decode(event: Any) -> TaskExit | TaskOom | None:
    decoder = _DECODERS.get(event.type_url)
    return decoder(event.value) if decoder else None
