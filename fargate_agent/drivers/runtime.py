"""Containers, what they use, and who makes and ends them."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fargate_agent.drivers.images import Image
from fargate_agent.drivers.lifecycle import Driver
from fargate_agent.plan import ContainerPlan, TaskPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """How a container ended."""

    code: int
    """128 and the signal's number if a signal ended it."""
    at: datetime
    oom_killed: bool = False
    stop_failed: str | None = None
    """Why the container could not be ended in the ordinary way, for the owner to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerUsage:
    """What a container uses at a moment. Byte and nanosecond counts since it started."""

    read_at: datetime
    cpu_total_ns: int
    cpu_user_ns: int
    cpu_kernel_ns: int
    cpu_per_core_ns: tuple[int, ...]
    """Empty with cgroup v2, which doesn't count per core."""
    throttle_periods: int
    throttled_periods: int
    throttled_ns: int
    memory_bytes: int
    memory_max_bytes: int
    memory_limit_bytes: int
    """0 is unlimited."""
    memory_failures: int
    memory_stats: Mapping[str, int]
    """Named as in the cgroup's `memory.stat`."""
    pids: int
    pids_limit: int
    """0 is unlimited."""
    block_io: tuple[tuple[int, int, str, int], ...]
    """Major, minor, operation (`read`, `write`), bytes."""
    block_operations: tuple[tuple[int, int, str, int], ...]
    """Major, minor, operation, count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalSize:
    """Of a terminal, in characters."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecIo:
    """The standard streams of a program that is run inside a container."""

    on_output: Callable[[bytes], None]
    """Told what the program writes to stdout, or to its terminal, in order. Must not block."""
    on_error: Callable[[bytes], None]
    """Told what it writes to stderr."""
    stdin: AsyncIterator[bytes] | None = None
    """What it reads; when this ends its stdin is closed, or its terminal hangs up. None is an empty
    stdin."""
    sizes: AsyncIterator[TerminalSize] | None = None
    """Makes the streams a terminal, which has these sizes one after the other."""


def _ignore() -> None:
    """Do nothing."""


class Runtime(Driver, Protocol):
    """Makes containers and ends them."""

    async def ready(self) -> None:
        """Return when containers can be made and ended. No deadline; says once that it waits."""
        ...

    async def prepare(self, task: TaskPlan) -> None:
        """Return when the task's lease, cgroup and files exist; its storage does.

        Raises:
            ResourceInitializationError: one of them can't be made.
        """
        ...

    async def release(self, task: TaskPlan) -> None:
        """Remove what `prepare` made."""
        ...

    async def exists(self, container: ContainerPlan) -> bool:
        """Whether the container's first process was made, be it running or ended."""
        ...

    async def create(
        self,
        task: TaskPlan,
        container: ContainerPlan,
        image: Image,
        log_uri: str | None,
        begun: Callable[[], None] = _ignore,
    ) -> None:
        """Return when the container stands, its logger runs, and only `start` is missing.

        `log_uri` None throws its output away. `begun` is called when the agent has done its part,
        and others make the container; not if it stands already.

        Raises:
            CannotCreateContainerError: containerd or runC refused, e.g. an unknown user; or the
                image has gone since it was got, which the error then says.
            CannotStartContainerError: runC found no such program.
            ContainerRuntimeTimeoutError: it took too long, e.g. a logger that never gets ready.
        """
        ...

    async def start(self, task: TaskPlan, container: ContainerPlan) -> None:
        """Return when the first process of the container runs, or has run.

        From the first start on, the task has no more than its share of the processors. What runC
        did inside the task's cgroup before isn't held up by that.

        Raises:
            CannotStartContainerError: it could not be started.
            ResourceInitializationError: its logger has found that it can't work.
        """
        ...

    async def restart(self, task: TaskPlan, container: ContainerPlan, log_uri: str | None) -> None:
        """Return when a container that has ended stands again, and only `start` is missing.

        Its files are as it left them, its logger is a new one that goes on in the same place. One
        that stands already, or that was deleted and not made again, is made to stand as well.

        Raises:
            CannotCreateContainerError: containerd or runC refused.
            ContainerRuntimeTimeoutError: it took too long.
        """
        ...

    async def exec(
        self,
        container: ContainerPlan,
        exec_id: str,
        argv: tuple[str, ...],
        io: ExecIo,
        deadline_s: float | None,
    ) -> int:
        """Run a program inside a container that runs; return its exit code.

        It has the user, environment and limits of the container. Of what has this id already, left
        by an agent that died or by a call that was cancelled, nothing is left when it begins. At
        its deadline, or when this is cancelled, it is killed with everything that it started.

        Raises:
            ExecTimeoutError: its deadline has passed.
            CannotExecError: it could not be started, e.g. there is no such program.
            ContainerRuntimeError: the container has ended meanwhile, or containerd misbehaved, or
                was away at the deadline.
        """
        ...

    async def end_exec(self, container: ContainerPlan, exec_id: str) -> None:
        """Return when nothing is left of a program that was run under this id, if one was.

        Raises:
            ContainerRuntimeError: something is left.
        """
        ...

    async def wait(self, container: ContainerPlan) -> ExitStatus:
        """Return when the container has ended. Has no deadline; outlives a lost containerd.

        Raises:
            ContainerRuntimeError: the container vanished and nobody knows how it ended.
        """
        ...

    async def watch_logger(self, container: ContainerPlan) -> None:
        """Return when the logger of a container that was started has ended.

        Never returns for one whose output goes to no logger. A logger ends after its container.
        """
        ...

    async def stop(self, container: ContainerPlan) -> ExitStatus | None:
        """End the container and remove it; None if it never started.

        Also None in the middle of a `restart`: its end was told before, and it has not begun again.

        Sends the image's stop signal, waits `stop_timeout_s`, then kills.

        Raises:
            CannotStopContainerError: it is still there.
        """
        ...

    async def usage(self, containers: tuple[ContainerPlan, ...]) -> Mapping[str, ContainerUsage]:
        """Say what those of the containers that run use, by container id."""
        ...
