"""Processes of containers, which containerd calls tasks; a task of this agent is one of ECS.

A container has a first process, made by `create` and set going by `start`, and perhaps others, made
by `Execs.add` and named by an `exec_id`. An ended process stays until it is deleted.
"""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.timestamp_pb2 import Timestamp

from fargate_agent.containerd.connection import Connection
from fargate_agent.containerd.errors import (
    ContainerdError,
    DeadlineError,
    NotFoundError,
    UnavailableError,
)
from fargate_agent.containerd.metrics import CgroupMetrics, metrics_from_wire
from fargate_agent.containerd.pb import process_pb2
from fargate_agent.containerd.pb.runc_options_pb2 import Options
from fargate_agent.containerd.pb.tasks_pb2 import (
    CreateTaskRequest,
    DeleteProcessRequest,
    DeleteTaskRequest,
    GetRequest,
    KillRequest,
    ListPidsRequest,
    ListTasksRequest,
    MetricsRequest,
    StartRequest,
    WaitRequest,
)
from fargate_agent.containerd.pb.tasks_pb2_grpc import TasksStub
from fargate_agent.containerd.shims import end_shims
from fargate_agent.containerd.types import Mount, mounts_to_wire, time_from_wire

START_DEADLINE_S: Final = 60.0
"""runC starts a process in 8 ms; a machine that is out of CPU or memory takes seconds for it."""

DELETE_DEADLINE_S: Final = 30.0
"""containerd waits 12 s for a logger that does not end, then kills it; the rest is for a slow host.

Source: containerd, pkg/process/io.go, `binaryIOProcTermTimeout`.
"""

KILL_DEADLINE_S: Final = 10.0
"""From SIGKILL to the end of a process: 3 ms, unless it hangs in the kernel."""

FORGET_DEADLINE_S: Final = 15.0
FORGET_PAUSE_S: Final = 0.02
"""containerd tidies up after a shim that died in 50 ms, gives itself 5 s for it, and doesn't tell.

Source: containerd, runtime/v2/shim.go, `cleanupTimeout`.
"""

WAIT_PAUSE_S: Final = 0.2
"""Between two attempts to wait, so that a containerd that comes and goes is not hammered."""

_OPTIONS_TYPE_URL: Final = "containerd.runc.v1.Options"
"""Without a slash or a host: the shim knows it by exactly this name."""


class ProcessStatus(Enum):
    """What a process is doing."""

    UNKNOWN = process_pb2.UNKNOWN
    CREATED = process_pb2.CREATED
    RUNNING = process_pb2.RUNNING
    STOPPED = process_pb2.STOPPED
    PAUSED = process_pb2.PAUSED
    PAUSING = process_pb2.PAUSING


@dataclass(frozen=True, slots=True, kw_only=True)
class RuncOptions:
    """How the shim calls runC; empty is its default."""

    binary_name: str = ""
    root: str = ""
    """Where runC keeps its state."""
    systemd_cgroup: bool = False
    shim_cgroup: str = ""
    """Cgroup that the shim and its logger go into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of a container."""

    id: str
    """Of the container, or the exec id of a further process."""
    pid: int
    """0 if it could not be made."""
    status: ProcessStatus
    exit_code: int
    """Means something if it is STOPPED only."""
    exited_at: datetime | None
    log_uri: str
    """Where its output goes; empty if it is thrown away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitResult:
    """How a process ended."""

    code: int
    """128 and the signal's number if a signal ended it."""
    at: datetime


class Processes:
    """The processes of a namespace's containers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = TasksStub(connection.channel)

    async def create(  # noqa: PLR0913 - each is named at the call
        self,
        container_id: str,
        rootfs: Sequence[Mount],
        *,
        log_uri: str | None,
        terminal: bool,
        stdin: Path | None = None,
        options: RuncOptions,
        deadline_s: float,
    ) -> int:
        """Make the first process, its logger running, so that only `start` is missing.

        Returns its process id. `log_uri` None throws its output away. `stdin` is a FIFO, for one
        with a terminal; without it, stdin is at its end.

        Raises:
            AlreadyExistsError: it has been made.
            DeadlineError: e.g. a logger that never gets ready. `force_delete` takes it back.
            ContainerdError: runC refused; the text has its reason.
        """
        message = Options(
            binary_name=options.binary_name,
            root=options.root,
            systemd_cgroup=options.systemd_cgroup,
            shim_cgroup=options.shim_cgroup,
        )
        request = CreateTaskRequest(
            container_id=container_id,
            rootfs=mounts_to_wire(rootfs),
            stdin=str(stdin or ""),
            stdout=log_uri or "",
            stderr="" if terminal else log_uri or "",
            terminal=terminal,
            options=Any(type_url=_OPTIONS_TYPE_URL, value=message.SerializeToString()),
        )
        answer = await self._connection.call(
            f"create process of {container_id}", self._stub.Create, request, deadline_s
        )
        return answer.pid

    async def start(
        self, container_id: str, *, exec_id: str = "", deadline_s: float = START_DEADLINE_S
    ) -> int:
        """Set the process going and return its process id.

        Raises:
            NotFoundError: it was never made.
            ContainerdError: it was started before, or runC refused; the text says which.
        """
        answer = await self._connection.call(
            f"start process of {container_id}",
            self._stub.Start,
            StartRequest(container_id=container_id, exec_id=exec_id),
            deadline_s,
        )
        return answer.pid

    async def get(self, container_id: str, *, exec_id: str = "") -> Process:
        """Return a process of a container.

        Raises:
            NotFoundError: it was never made, or was deleted.
        """
        answer = await self._connection.call(
            f"get process of {container_id}",
            self._stub.Get,
            GetRequest(container_id=container_id, exec_id=exec_id),
        )
        return _from_wire(answer.process)

    async def list(self) -> tuple[Process, ...]:
        """List the first processes of all containers of the namespace."""
        answer = await self._connection.call("list processes", self._stub.List, ListTasksRequest())
        return tuple(map(_from_wire, answer.tasks))

    async def kill(
        self, container_id: str, number: int, *, exec_id: str = "", everyone: bool = False
    ) -> None:
        """Send a signal to the process, or with `everyone` to all processes of the container.

        Raises:
            NotFoundError: it has ended, or was never made.
        """
        await self._connection.call(
            f"send signal {number} to {container_id}",
            self._stub.Kill,
            KillRequest(container_id=container_id, exec_id=exec_id, signal=number, all=everyone),
        )

    async def wait(self, container_id: str, *, exec_id: str = "") -> ExitResult:
        """Return when the process has ended; at once if it has already. Has no deadline.

        A containerd that goes away is waited for and asked again: its silence is no exit.

        Raises:
            NotFoundError: it was never made, or was deleted.
            ContainerdError: its shim has died, and nobody knows how it ended.
        """
        request = WaitRequest(container_id=container_id, exec_id=exec_id)
        while True:
            try:
                answer = await self._connection.call(
                    f"wait for {container_id}", self._stub.Wait, request, None
                )
            except UnavailableError:
                await asyncio.sleep(WAIT_PAUSE_S)
                continue
            return _exit(answer.exit_status, answer.exited_at)

    async def delete(
        self, container_id: str, *, exec_id: str = "", deadline_s: float = DELETE_DEADLINE_S
    ) -> ExitResult:
        """Remove an ended process, its shim and logger, and say how it ended.

        Raises:
            NotFoundError: it was never made, or was deleted.
            ContainerdError: it still runs.
        """
        what = f"delete process of {container_id}"
        if exec_id:
            request = DeleteProcessRequest(container_id=container_id, exec_id=exec_id)
            answer = await self._connection.call(
                what, self._stub.DeleteProcess, request, deadline_s
            )
        else:
            answer = await self._connection.call(
                what, self._stub.Delete, DeleteTaskRequest(container_id=container_id), deadline_s
            )
        return _exit(answer.exit_status, answer.exited_at)

    async def force_delete(self, container_id: str) -> None:
        """Return when no process of the container is left, nor its shim, logger and bundle.

        Also takes back a creation that met its deadline, of which containerd knows nothing more.

        Raises:
            DeadlineError: something is still there.
        """
        with suppress(ContainerdError, TimeoutError):
            async with asyncio.timeout(KILL_DEADLINE_S):
                await self.kill(container_id, signal.SIGKILL, everyone=True)
                await self.wait(container_id)
        with suppress(ContainerdError):
            await self.delete(container_id)
        await end_shims(self._connection.namespace, container_id)
        await self._until_forgotten(container_id)

    async def _until_forgotten(self, container_id: str) -> None:
        """Return when containerd, which tidies up after a shim that died, has done so."""
        try:
            async with asyncio.timeout(FORGET_DEADLINE_S):
                while not await self._is_forgotten(container_id):  # noqa: ASYNC110 - see there
                    await asyncio.sleep(FORGET_PAUSE_S)
        except TimeoutError as error:
            raise DeadlineError(f"delete process of {container_id}: it is still there") from error

    async def _is_forgotten(self, container_id: str) -> bool:
        try:
            await self.get(container_id)
        except ContainerdError as error:
            return isinstance(error, NotFoundError)
        return False

    async def pids(self, container_id: str) -> tuple[int, ...]:
        """List all processes of a container, by process id in the root namespace.

        Raises:
            NotFoundError: it has no first process.
        """
        answer = await self._connection.call(
            f"list pids of {container_id}",
            self._stub.ListPids,
            ListPidsRequest(container_id=container_id),
        )
        return tuple(process.pid for process in answer.processes)

    async def metrics(self, container_ids: Sequence[str]) -> Mapping[str, CgroupMetrics]:
        """Say what these containers use, by id; one that does not run is left out."""
        if not container_ids:
            return {}
        filters = [f"id=={container_id}" for container_id in container_ids]
        answer = await self._connection.call(
            "measure containers", self._stub.Metrics, MetricsRequest(filters=filters)
        )
        return {metric.id: metrics_from_wire(metric.data) for metric in answer.metrics}


def _from_wire(process: process_pb2.Process) -> Process:
    return Process(
        id=process.id or process.container_id,
        pid=process.pid,
        status=ProcessStatus(process.status),
        exit_code=process.exit_status,
        exited_at=time_from_wire(process.exited_at),
        log_uri=process.stdout,
    )


def _exit(code: int, at: Timestamp) -> ExitResult:
    return ExitResult(code=code, at=time_from_wire(at) or datetime.now(UTC))
