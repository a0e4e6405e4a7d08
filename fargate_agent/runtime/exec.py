"""Programs that are run inside containers beside what the containers are for.

What is made for a run, in this order: FIFOs, a process that containerd knows by its exec id, and
the program. All of it is found by the exec id, so that an agent that comes later takes back what
one that died has left.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Collection, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import (
    AlreadyExistsError,
    ContainerdError,
    DeadlineError,
    NotFoundError,
    UnavailableError,
)
from fargate_agent.containerd.processes import ExitResult, ProcessStatus
from fargate_agent.drivers import ExecIo, TerminalSize
from fargate_agent.errors import CannotExecError, ContainerRuntimeError, ExecTimeoutError
from fargate_agent.parallel import first_of
from fargate_agent.plan import ContainerPlan
from fargate_agent.runtime.cgroupdriver import CgroupDrivers
from fargate_agent.runtime.reasons import explain, render_duration
from fargate_agent.runtime.started import MARK_VARIABLE, kill_started
from fargate_agent.runtime.streams import (
    RunStreams,
    make_streams,
    open_leftovers,
)

log = logging.getLogger(__name__)

KILL_DEADLINE_S: Final = 10.0
"""What has been killed is gone at once, unless it waits for a disk or a network mount."""

LET_GO_DEADLINE_S: Final = 20.0
"""How long a cancellation may take: the agent ends, and containerd may be away."""

_TERMINAL_TYPE: Final = "TERM=xterm"
"""What a container with a terminal has, too. Source: Docker, `docker run --tty`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A program that is run once."""

    container: ContainerPlan
    exec_id: str
    process: bytes
    """As an OCI spec has it, in JSON."""
    io: ExecIo
    streams: RunStreams


class Execs:
    """Runs programs in the containers of one containerd namespace."""

    def __init__(self, containerd: Containerd, cgroups: CgroupDrivers) -> None:
        self._containerd = containerd
        self._cgroups = cgroups
        self._processes: dict[str, dict[str, Any]] = {}
        """What the first process of a container was made of, by the container's id."""

    async def run(
        self,
        container: ContainerPlan,
        exec_id: str,
        argv: tuple[str, ...],
        io: ExecIo,
        deadline_s: float | None,
    ) -> int:
        """Run a program and return its exit code; see `Runtime.exec`.

        Raises:
            ExecTimeoutError: its deadline has passed.
            CannotExecError: it could not be started.
            ContainerRuntimeError: the container has ended, or something of the run is left.
        """
        try:
            process = await self._find_process(container.id)
            while (streams := await make_streams(container, exec_id, io)) is None:
                await self._make_room(container, exec_id)
            run = Run(
                container=container,
                exec_id=exec_id,
                process=render_process(process, argv, streams.mark, terminal=io.sizes is not None),
                io=io,
                streams=streams,
            )
            try:
                streams.begin()
                return await self._run(run, deadline_s)
            finally:
                streams.close()
        except (ContainerdError, OSError) as error:
            raise ContainerRuntimeError(explain(error), container=container.name) from error

    async def end(self, container: ContainerPlan, exec_id: str) -> None:
        """Return when nothing is left of a program that was run; see `Runtime.end_exec`.

        Raises:
            ContainerRuntimeError: something is left.
        """
        try:
            await self._end_leftovers(container, exec_id)
        except (ContainerdError, OSError) as error:
            raise ContainerRuntimeError(explain(error), container=container.name) from error

    def forget(self, container_id: str) -> None:
        """Let go of what is remembered of a container that is being removed."""
        self._processes.pop(container_id, None)

    async def _find_process(self, container_id: str) -> dict[str, Any]:
        known = self._processes.get(container_id)
        if known is None:
            record = await self._containerd.containers.get(container_id)
            known = self._processes[container_id] = json.loads(record.spec)["process"]
        return known

    async def _run(self, run: Run, deadline_s: float | None) -> int:
        loop, is_away = asyncio.get_running_loop(), False

        def look() -> None:
            nonlocal is_away
            is_away = not self._containerd.is_connected()

        looking = None if deadline_s is None else loop.call_later(deadline_s, look)
        try:
            async with asyncio.timeout(deadline_s):
                await self._begin(run)
                result = await self._attend(run)
        except TimeoutError:
            try:
                await self._take_back(run)
            except TimeoutError as error:  # the caller has to know of the deadline all the same
                _say_what_is_left(run, error)
            if is_away:  # the program may have ended in time, or never begun
                raise ContainerRuntimeError(
                    "containerd was away", container=run.container.name
                ) from None
            raise ExecTimeoutError(
                f"timed out after waiting {render_duration(deadline_s or 0)}",
                container=run.container.name,
            ) from None
        except asyncio.CancelledError:
            await self._let_go(run)
            raise
        except BaseException:
            await self._take_back(run)
            raise
        finally:
            if looking:
                looking.cancel()
        # the shim first writes to its end what the program wrote, but waits for no child of it
        await self._delete(run.container.id, run.exec_id)
        await run.streams.finish()
        return result.code

    async def _take_back(self, run: Run) -> None:
        await self._kill(run.container, run.exec_id, [run.streams.mark])
        await run.streams.finish()

    async def _let_go(self, run: Run) -> None:
        """Take a run back if that can be done soon, and fail in no way.

        Else whoever runs something under this id does it.
        """
        try:
            async with asyncio.timeout(LET_GO_DEADLINE_S):
                await self._take_back(run)
        except (ContainerdError, OSError) as error:
            _say_what_is_left(run, error)

    async def _begin(self, run: Run) -> None:
        """Return when the program runs, or has run.

        When this is cancelled, containerd has its answer first: what it was asked for would come
        about nevertheless, and nobody could say when.
        """
        starting = asyncio.create_task(self._start(run))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait([starting], timeout=LET_GO_DEADLINE_S)
            if starting.done() and not starting.cancelled():
                starting.exception()  # nobody else asks for it
            raise

    async def _start(self, run: Run) -> None:
        try:
            try:
                await self._add(run)
            except AlreadyExistsError:  # of a predecessor, whose FIFOs are gone
                await self._kill(run.container, run.exec_id, ())
                await self._add(run)
            await self._start_added(run)
        except (DeadlineError, UnavailableError):
            raise
        except ContainerdError as error:
            if not await self._runs(run.container.id):
                raise ContainerRuntimeError(
                    "the container has ended", container=run.container.name
                ) from error
            raise CannotExecError(explain(error), container=run.container.name) from error

    async def _add(self, run: Run) -> None:
        await self._containerd.execs.add(
            run.container.id, run.exec_id, run.process, run.streams.paths
        )

    async def _start_added(self, run: Run) -> None:
        """Start the program; a containerd that goes away meanwhile may have done it.

        Or it has cut the start off. Then another process is added: the shim would end, and with it
        the container, when a process ends whose first start had failed.
        Source: containerd, pkg/process/exec.go, `start` and `setExited` both close `waitBlock`.
        """
        processes, id_ = self._containerd.processes, run.container.id
        try:
            await processes.start(id_, exec_id=run.exec_id)
        except UnavailableError:
            process = await processes.get(id_, exec_id=run.exec_id)
            if process.status is ProcessStatus.CREATED:
                await self._kill(run.container, run.exec_id, [run.streams.mark])
                await self._add(run)
                await processes.start(id_, exec_id=run.exec_id)

    async def _attend(self, run: Run) -> ExitResult:
        """Return when the program has ended; give it its stdin and its terminal's sizes."""
        wait = partial(self._containerd.processes.wait, run.container.id, exec_id=run.exec_id)
        beside: list[Coroutine[Any, Any, None]] = []
        if run.io.stdin is not None:
            beside.append(self._feed(run, run.io.stdin))
        if run.io.sizes is not None:
            beside.append(self._resize(run, run.io.sizes))
        if not beside:
            return await wait()
        results: list[ExitResult] = []

        async def note_result() -> None:
            results.append(await wait())

        await first_of(note_result(), *beside)
        return results[0]

    async def _feed(self, run: Run, stdin: AsyncIterator[bytes]) -> None:
        await run.streams.feed(stdin)
        with contextlib.suppress(NotFoundError):
            await self._containerd.execs.close_stdin(run.container.id, run.exec_id)
        await asyncio.get_running_loop().create_future()

    async def _resize(self, run: Run, sizes: AsyncIterator[TerminalSize]) -> None:
        async for size in sizes:
            with contextlib.suppress(NotFoundError):
                await self._containerd.execs.resize(
                    run.container.id, run.exec_id, columns=size.columns, rows=size.rows
                )
        await asyncio.get_running_loop().create_future()

    async def _runs(self, container_id: str) -> bool:
        try:
            process = await self._containerd.processes.get(container_id)
        except ContainerdError:
            return False
        return process.status in {ProcessStatus.CREATED, ProcessStatus.RUNNING}

    async def _make_room(self, container: ContainerPlan, exec_id: str) -> None:
        """End what was run under this id before, so that something else can be.

        Raises:
            CannotExecError: it doesn't end.
            ContainerdError: containerd didn't do its part.
            OSError: the kernel refused.
        """
        try:
            await self._end_leftovers(container, exec_id)
        except TimeoutError as error:
            raise CannotExecError(
                f"what was run before does not end: {explain(error)}", container=container.name
            ) from error

    async def _end_leftovers(self, container: ContainerPlan, exec_id: str) -> None:
        """End a run that nobody waits for, and remove what was made for it.

        Raises:
            ContainerdError: containerd didn't do its part.
            OSError: something still runs.
        """
        leftovers = await open_leftovers(container, exec_id)
        try:
            for streams in leftovers:
                streams.begin()
            await self._kill(container, exec_id, [streams.mark for streams in leftovers])
            for streams in leftovers:
                await streams.finish()
        finally:
            for streams in leftovers:
                streams.close()

    async def _kill(self, container: ContainerPlan, exec_id: str, marks: Collection[str]) -> None:
        """Kill the program that was run under this id, and all that has one of the marks."""
        processes = self._containerd.processes
        try:
            process = await processes.get(container.id, exec_id=exec_id)
        except NotFoundError:
            process = None
        is_running = process is not None and process.status is ProcessStatus.RUNNING
        first = process.pid if process and is_running else None
        await asyncio.to_thread(
            kill_started,
            lambda: self._cgroups.of(container.cgroup).find_processes(container.cgroup),
            marks,
            first,
            KILL_DEADLINE_S,
        )
        if is_running:
            async with asyncio.timeout(KILL_DEADLINE_S):
                await processes.wait(container.id, exec_id=exec_id)
        if process is not None:
            await self._delete(container.id, exec_id)

    async def _delete(self, container_id: str, exec_id: str) -> None:
        with contextlib.suppress(NotFoundError):
            await self._containerd.processes.delete(container_id, exec_id=exec_id)


def _say_what_is_left(run: Run, error: Exception) -> None:
    text = "a program that was run inside container %s is left: %s"
    log.warning(text, run.container.name, error)


def render_process(
    process: dict[str, Any], argv: Sequence[str], mark: str, *, terminal: bool
) -> bytes:
    """Return what is run, as the first process of its container is but for what it runs."""
    environment: list[str] = [*process["env"], f"{MARK_VARIABLE}={mark}"]
    if terminal and not any(variable.startswith("TERM=") for variable in environment):
        environment.append(_TERMINAL_TYPE)
    changes = {"args": list(argv), "env": environment, "terminal": terminal}
    return json.dumps({**process, **changes}, separators=(",", ":")).encode()
