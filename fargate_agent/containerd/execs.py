"""Further processes of containers, each named by an `exec_id`, and their standard streams.

`Execs.add` makes one; with its `exec_id` it is then started, waited for, killed and deleted as the
first process of the container is: see `processes`.
"""

from dataclasses import dataclass
from typing import Final

from google.protobuf.any_pb2 import Any

from fargate_agent.containerd.connection import Connection
from fargate_agent.containerd.pb.tasks_pb2 import (
    CloseIORequest,
    ExecProcessRequest,
    ResizePtyRequest,
)
from fargate_agent.containerd.pb.tasks_pb2_grpc import TasksStub

_PROCESS_TYPE_URL: Final = "types.containerd.io/opencontainers/runtime-spec/1/Process"
"""With a host: the shim knows it by exactly this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Where the standard streams of a process are: paths of FIFOs, of which "" is none.

    Either both outputs have one or neither has: with one alone the start fails, and yet the process
    runs. A terminal has no `stderr`.
    """

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


class Execs:
    """What is run in a namespace's containers beside their first processes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = TasksStub(connection.channel)

    async def add(
        self, container_id: str, exec_id: str, process: bytes, streams: Streams | None = None
    ) -> None:
        """Add a process to a running container; `process` is that part of an OCI spec, in JSON.

        Raises:
            AlreadyExistsError: the exec id is taken.
            NotFoundError: the container has no first process.
        """
        streams = streams or Streams()
        request = ExecProcessRequest(
            container_id=container_id,
            exec_id=exec_id,
            spec=Any(type_url=_PROCESS_TYPE_URL, value=process),
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
            terminal=streams.terminal,
        )
        await self._connection.call(f"exec in {container_id}", self._stub.Exec, request)

    async def resize(self, container_id: str, exec_id: str, *, columns: int, rows: int) -> None:
        """Give the terminal of a started process a size, in characters.

        Raises:
            NotFoundError: there is no such process.
        """
        request = ResizePtyRequest(
            container_id=container_id, exec_id=exec_id, width=columns, height=rows
        )
        await self._connection.call(
            f"resize terminal in {container_id}", self._stub.ResizePty, request
        )

    async def close_stdin(self, container_id: str, exec_id: str) -> None:
        """Let a started process read the end of its stdin when all writers of the FIFO are gone.

        Until then the shim is a writer itself. What was written before is read before.

        Raises:
            NotFoundError: there is no such process.
        """
        request = CloseIORequest(container_id=container_id, exec_id=exec_id, stdin=True)
        await self._connection.call(f"close stdin in {container_id}", self._stub.CloseIO, request)
