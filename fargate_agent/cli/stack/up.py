"""`fargate up`: control plane, agent and containerd in the foreground, as systemd would run them.

    containerd ─► control plane ─► its keys ─► agent ─► connected ─► "ready"
    SIGTERM ─► drain ─► agent ─► control plane ─► containerd: nothing is left but the directory

A `fargate up` that is killed leaves tasks running; the next one on the same directory takes them
over.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from fargate_agent import apparmor
from fargate_agent.cli.clients.agent import Agent
from fargate_agent.cli.connection import render_env, state_dir_option
from fargate_agent.cli.failure import CliError, UnreachableError
from fargate_agent.cli.layout import Layout
from fargate_agent.cli.output import print_json_line
from fargate_agent.cli.stack.aws_mode import choose_aws_mode
from fargate_agent.cli.stack.children import Child, Program
from fargate_agent.cli.stack.claims import Claims
from fargate_agent.cli.stack.keys import Key, read_keys
from fargate_agent.cli.stack.place import find_place
from fargate_agent.cli.stack.programs import (
    Place,
    agent_program,
    client_env,
    containerd_program,
    control_plane_program,
    plan_connection,
    render_containerd_config,
    tell_host_ports,
)
from fargate_agent.cli.stack.ready import answers_calls, is_connected, is_served
from fargate_agent.cli.stack.tail import Tail
from fargate_agent.files import replace_file
from fargate_agent.parallel import first_of, until

READY_TIMEOUT_S: Final = 120
DRAIN_TIMEOUT_S: Final = 150
"""More than the longest stop timeout, 120 s. Source: ECS API reference, `stopTimeout`."""
POLL_S: Final = 0.1
QUIET_S: Final = 3
"""What takes longer is said."""
SAME_SIGNAL_S: Final = 0.3
"""What comes so soon after a signal is the same one, sent by `timeout` and the terminal, say."""
RUN_CONTAINERD: Final = Path("/run/containerd")
"""Where containerd's shims put their sockets, whatever containerd's state directory is.

Source: containerd, runtime/v2/shim/util_unix.go, `SocketAddress`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What was asked for on the command line."""

    state_dir: Path
    containerd: Path | None
    listen: str | None
    vpc_cidr: str | None
    host_ports: tuple[str, ...]
    verbose: bool
    as_json: bool


def run_stack(options: UpOptions) -> int:
    """Run a stack until a signal ends it, and return the exit code.

    Raises:
        CliError: it can't be started here, or a program of it doesn't start.
    """
    tell_host_ports(options.host_ports)  # refused before anything starts
    if os.geteuid() != 0:
        raise CliError("up needs root: it makes network namespaces and mounts")
    layout = Layout(options.state_dir.absolute())
    layout.make()
    with Claims() as claims:
        claims.lock(layout.lock)
        layout.env.unlink(missing_ok=True)
        place = find_place(
            layout,
            claims,
            listen=options.listen,
            vpc_cidr=options.vpc_cidr,
            containerd=options.containerd,
        )
        with remove_shim_sockets():
            asyncio.run(_serve(layout, place, options))
    return 0


async def _serve(layout: Layout, place: Place, options: UpOptions) -> None:
    stack = _Stack(layout, place, options, asyncio.get_running_loop().create_future())
    await stack.run()


class _Stack:
    """One run of `fargate up`."""

    def __init__(
        self, layout: Layout, place: Place, options: UpOptions, end: asyncio.Future[str]
    ) -> None:
        self._layout = layout
        self._place = place
        self._options = options
        self._end = end
        """Set with the name of a signal, or with the error that ends the stack."""
        self._hurry = asyncio.Event()
        self._over = asyncio.Event()
        self._told_to_end_at = 0.0
        self._children: list[Child] = []
        self._waiting_for = "nothing"

    async def run(self) -> None:
        """Bring the stack up, wait for the end, take it down.

        Raises:
            CliError: it didn't come up.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number)
        async with asyncio.TaskGroup() as jobs:
            try:
                async with until(self._end), asyncio.timeout(READY_TIMEOUT_S) as limit:
                    await self._bring_up(jobs)
                    limit.reschedule(None)
                    await self._end
            except CliError as error:
                self._fail(error)
            except TimeoutError:
                text = f"not ready after {READY_TIMEOUT_S} s: waiting for {self._waiting_for}"
                self._fail(CliError(f"{text}; see {self._layout.logs}"))
            await self._take_down()
        self._end.result()

    async def _bring_up(self, jobs: asyncio.TaskGroup) -> None:
        layout, place = self._layout, self._place
        if self._options.containerd is None:
            config = render_containerd_config(layout)
            await asyncio.to_thread(replace_file, layout.containerd / "config.toml", config)
            self._start(jobs, containerd_program(layout))
        aws = await asyncio.to_thread(choose_aws_mode, layout, place)
        self._say(aws.line)
        self._start(jobs, control_plane_program(layout, place, aws.control_plane, aws.withheld))
        self._say(f"starting the control plane at {place.listen}, VPC {place.vpc_cidr}")
        keys = await self._read_keys()
        connection = plan_connection(layout, place, keys["admin"])
        await self._until("the control plane", lambda: answers_calls(connection))
        self._say(f"using containerd at {place.containerd_address}")
        containerd = f"containerd to listen at {place.containerd_address}"
        await self._until(containerd, lambda: is_served(place.containerd_address))
        if fault := await asyncio.to_thread(apparmor.load):
            self._say(f"containers run without their AppArmor profile: {fault}")
        self._say("starting the agent")
        told = {**aws.agent, **tell_host_ports(self._options.host_ports)}
        self._start(jobs, agent_program(layout, place, keys["agent"], told, aws.withheld))
        await self._until("the agent", lambda: is_connected(layout.agent_socket))
        for child in self._children:
            child.settle()
        env = render_env(client_env(layout, place, keys["admin"]))
        await asyncio.to_thread(replace_file, layout.env, env)
        self._announce(connection.endpoint)

    def _start(self, jobs: asyncio.TaskGroup, program: Program) -> None:
        child = Child(program, self._say, self._fail, self._hurry)
        self._children.append(child)
        jobs.create_task(child.keep_alive())
        if self._options.verbose:
            jobs.create_task(self._echo(program))

    async def _read_keys(self) -> dict[str, Key]:
        file = self._layout.control_plane / "keys.toml"
        keys: dict[str, Key] = {}

        async def found() -> bool:
            keys.update(await asyncio.to_thread(read_keys, file))
            return {"admin", "agent"} <= keys.keys()

        await self._until(f"keys in {file}", found)
        return keys

    async def _until(self, what: str, check: Callable[[], Awaitable[bool]]) -> None:
        self._waiting_for = what
        loop = asyncio.get_running_loop()
        begun, has_said = loop.time(), False
        while not await check():
            if not has_said and loop.time() - begun > QUIET_S:
                self._say(f"waiting for {what}, for {READY_TIMEOUT_S} s at most")
                has_said = True
            await asyncio.sleep(POLL_S)

    async def _take_down(self) -> None:
        self._layout.env.unlink(missing_ok=True)
        self._say("stopping tasks")
        await first_of(self._drain(), _wait(self._hurry))
        if self._hurry.is_set():
            self._say("not waiting for tasks: what still runs is taken over by the next fargate up")
        for child in reversed(self._children):
            self._say(f"stopping {child.program.name}")
            await child.stop()
        self._over.set()
        self._say("stopped")

    async def _drain(self) -> None:
        async with Agent(self._layout.agent_socket) as agent:
            try:
                stopped = await agent.drain(DRAIN_TIMEOUT_S)
            except UnreachableError:
                return
            except CliError as error:
                self._say(f"tasks are left running: {error}")
                return
        self._say(f"tasks stopped: {len(stopped)}")

    async def _echo(self, program: Program) -> None:
        """Show what a program says, until the stack has been taken down."""
        tail = Tail(program.log)
        while not self._over.is_set():
            await first_of(asyncio.sleep(POLL_S), _wait(self._over))
            for line in await asyncio.to_thread(tail.read):
                self._say(f"{program.name}: {line}")

    def _on_signal(self, number: int) -> None:
        now = asyncio.get_running_loop().time()
        if not self._end.done():
            self._end.set_result(signal.Signals(number).name)
            self._told_to_end_at = now
        elif now - self._told_to_end_at > SAME_SIGNAL_S:
            self._hurry.set()

    def _fail(self, error: CliError) -> None:
        if not self._end.done():
            self._end.set_exception(error)

    def _announce(self, endpoint: str) -> None:
        if self._options.as_json:
            self._print({"type": "ready", "endpoint": endpoint, "stateDir": str(self._layout.root)})
            return
        env = f'eval "$(fargate env{state_dir_option(self._layout.root)})"'
        self._print(f"ready: ECS API at {endpoint}; for AWS clients: {env}")

    def _say(self, text: str) -> None:
        self._print({"type": "note", "text": text} if self._options.as_json else text)

    def _print(self, document: str | dict[str, str]) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody reads any more; the stack goes on
            if isinstance(document, str):
                click.echo(document)
            else:
                print_json_line(document)


@contextlib.contextmanager
def remove_shim_sockets() -> Iterator[None]:
    """Remove the directory of the shims' sockets after the body, if only stacks use it.

    A containerd of the system has more in there than sockets, and that is left alone.
    """
    sockets = RUN_CONTAINERD / "s"
    made_by_stacks = not RUN_CONTAINERD.exists() or set(RUN_CONTAINERD.iterdir()) == {sockets}
    yield
    if made_by_stacks:
        with contextlib.suppress(OSError):  # not there, or in use by another stack
            sockets.rmdir()
            RUN_CONTAINERD.rmdir()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
