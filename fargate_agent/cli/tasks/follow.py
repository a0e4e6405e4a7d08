"""Follow one task to its end: its status by the ECS API, pulls and output by the agent's socket.

    status   PROVISIONING ─► PENDING ─────────► RUNNING ─► … ─► STOPPED
    output               pulls ─► logs ──────────────────────► end

The two run side by side. Without the agent's socket the status alone is followed.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final

from fargate_agent.cli.clients.agent import Agent, LogQuery
from fargate_agent.cli.clients.ecs import Ecs
from fargate_agent.cli.clients.shapes import Task, task_id
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.failure import CliError, NotKnownError, UnreachableError
from fargate_agent.cli.logs.printer import LogPrinter
from fargate_agent.cli.logs.reader import AWAY_S, read_lines, until_agent_is_back
from fargate_agent.cli.tasks.screen import JsonScreen, Screen, TextScreen
from fargate_agent.parallel import first_of, together

POLL_S: Final = 0.2
MAX_POLL_S: Final = 0.5
POLL_GROWTH: Final = 1.25
QUIET_S: Final = 5
"""How long to wait for output after the task has stopped, counted from the last line."""
SAME_SIGNAL_S: Final = 0.3
"""What comes so soon after a signal is the same one, sent by `timeout` and the terminal, say."""
STOP_REASON: Final = "Interrupted in fargate run"
INTERRUPTED: Final = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""


def follow_task(
    connection: Connection,
    ecs: Ecs,
    task: Task,
    essential: tuple[str, ...],
    *,
    as_json: bool,
) -> int:
    """Show a task until it has stopped, and return the exit code that stands for it.

    `task` is what RunTask answered; `essential` are the names of the essential containers in the
    order of the definition. The first Ctrl-C asks for the task's end, the second leaves at once and
    says whether that was heard.

    Raises:
        CliError: the control plane can't be asked any more.
    """
    screen = JsonScreen() if as_json else TextScreen(LogPrinter())

    async def follow() -> int:
        async with Agent(connection.agent_socket) as agent:
            follower = _Follower(ecs, agent, screen, task, essential)
            with follower.interrupts():
                await first_of(follower.follow(), follower.stop_when_asked())
            return follower.end()

    return asyncio.run(follow())


class _Follower:
    def __init__(
        self,
        ecs: Ecs,
        agent: Agent,
        screen: Screen,
        task: Task,
        essential: tuple[str, ...],
    ) -> None:
        self._ecs = ecs
        self._agent = agent
        self._screen = screen
        self._cluster, self._id = task.get("clusterArn", ""), task_id(task)
        self._essential = essential
        self._task = task
        self._ended_first: str | None = None
        self._ended: list[str] = []
        self._stopped = asyncio.Event()
        self._asked_to_stop = asyncio.Event()
        self._asked_at = 0.0
        self._is_stopping = False
        """The control plane has taken the request for the task's end."""
        self._lines_shown = 0

    async def follow(self) -> None:
        await together([self._watch_status(), first_of(self._show_output(), self._until_quiet())])

    async def stop_when_asked(self) -> None:
        """Ask for the task's end when Ctrl-C was pressed; never returns."""
        await self._asked_to_stop.wait()
        self._screen.note("asking for the end of the task; Ctrl-C again doesn't wait for it")
        await asyncio.to_thread(self._ecs.stop, self._cluster, self._id, STOP_REASON)
        self._is_stopping = True
        await asyncio.Event().wait()

    @contextmanager
    def interrupts(self) -> Iterator[None]:
        """Take Ctrl-C for a request to stop the task while the body runs."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._on_interrupt)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            self._screen.end_pulls()

    def end(self) -> int:
        """Show how the task ended, and choose the exit code."""
        code = INTERRUPTED if self._asked_to_stop.is_set() else self._exit_code(self._task)
        self._screen.end(self._task, code, self._ended)
        return code

    def _exit_code(self, task: Task) -> int:
        if task.get("stopCode") == "TaskFailedToStart" or self._ended_first is None:
            return 1
        codes = {c["name"]: c.get("exitCode") for c in task.get("containers", [])}
        code = codes.get(self._ended_first)
        return 1 if code is None else code

    def _on_interrupt(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self._asked_to_stop.is_set():
            self._asked_to_stop.set()
            self._asked_at = now
        if now - self._asked_at <= SAME_SIGNAL_S:
            return
        self._screen.end_pulls()
        self._screen.note(
            f"task {self._id} is being stopped; nothing waits for it here"
            if self._is_stopping
            else f"task {self._id} may go on: nobody has answered the request for its end; ask"
            f" again with: fargate stop {self._id}"
        )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)  # a call may hang in a thread that a clean exit would wait for

    async def _watch_status(self) -> None:
        self._screen.status(self._task)
        shown, pause_s = self._task.get("lastStatus"), POLL_S
        while not self._stopped.is_set():
            task = await self._describe()
            if task.get("lastStatus") != shown:
                shown, pause_s = task.get("lastStatus"), POLL_S
                self._screen.status(task)
            self._note(task)
            if not self._stopped.is_set():
                await asyncio.sleep(pause_s)
            pause_s = min(pause_s * POLL_GROWTH, MAX_POLL_S)

    async def _describe(self) -> Task:
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        while True:
            try:
                return await asyncio.to_thread(self._ecs.describe_one, self._cluster, self._id)
            except UnreachableError as error:
                if deadline is None:
                    deadline = loop.time() + AWAY_S
                    self._screen.note(f"{error}; trying for {AWAY_S} s more")
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(MAX_POLL_S)

    def _note(self, task: Task) -> None:
        self._task = task
        if self._ended_first is None:
            ended = {c["name"] for c in task.get("containers", []) if "exitCode" in c}
            self._ended_first = next((name for name in self._essential if name in ended), None)
        self._ended += [
            container["name"]
            for container in task.get("containers", [])
            if "exitCode" in container and container["name"] not in self._ended
        ]
        if task.get("lastStatus") == "STOPPED":
            self._stopped.set()

    async def _show_output(self) -> None:
        try:
            await self._agent.health()
            await self._read(self._show_pulls)
            self._screen.end_pulls()
            await self._read(self._show_logs)
        except CliError as error:
            self._screen.note(f"no pulls and logs are shown: {error}")

    async def _read(self, read: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Read a stream of the agent, even if the agent hears of the task, or is back, later."""
        while True:
            last_try = self._stopped.is_set()
            try:
                return await read()
            except NotKnownError:
                if last_try:
                    return None
                await asyncio.sleep(POLL_S)
            except UnreachableError:
                await until_agent_is_back(self._agent)

    async def _show_pulls(self) -> None:
        async for pull in self._agent.progress(self._id):
            self._screen.pull(pull)

    async def _show_logs(self) -> None:
        query = LogQuery(follow=True)
        async for line in read_lines(self._agent, self._id, query, self._screen.note):
            self._screen.log(line)
            self._lines_shown += 1

    async def _until_quiet(self) -> None:
        """Return when the task has stopped, and no output has come for a while."""
        await self._stopped.wait()
        shown = -1
        while shown != self._lines_shown:
            shown = self._lines_shown
            await asyncio.sleep(QUIET_S)
