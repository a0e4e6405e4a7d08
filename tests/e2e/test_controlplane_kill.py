"""The control plane is killed while real tasks start, run and end: nobody but its clients notices.

Each container says over the network that it has started, which no restart can make unsaid.
"""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import chain, cycle
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import botocore.exceptions
import pytest

from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.parallel import together
from tests.fixtures.controlplane import ControlPlane, ForkedControlPlane, make_ec2
from tests.fixtures.ecs import details
from tests.fixtures.machine import reserved_port
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import DEADLINE_S, OUTSIDE, Stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root]

KILLS: Final = (
    ("RunTask is asked", 0.01),
    ("a container has started", 0.0),
    ("StopTask is asked", 0.01),
    ("RunTask is answered", 0.0),
    ("a container has started", 0.1),
    ("StopTask is answered", 0.0),
)
"""Moments, and how many seconds later: amid what follows from them."""
CLIENTS: Final = 3
TRAPPED, EXITED = 17, 9
"""Exit codes of containers that are stopped, and that end by themselves. Killed, they had 137."""
PATIENT: Final = {"FARGATE_CONTROL_PLANE_AGENT_GRACE_S": "10"}
"""RunTask waits for the agent, which comes back a moment later."""
SAY_STARTED: Final = (
    f"{{ wget -q -O - $ECS_CONTAINER_METADATA_URI_V4/task; echo; }} | nc {OUTSIDE}.1 7000;"
)
SCRIPTS: Final = {
    "stays": f"trap 'exit {TRAPPED}' TERM; {SAY_STARTED} sleep 1000 & wait",
    "exits": f"{SAY_STARTED} exit {EXITED}",
}
GONE: Final = (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError)
"""What a client sees of a control plane that is killed."""


class Moments:
    """Says when something happens for the next time."""

    def __init__(self) -> None:
        self._awaited = ""
        self._come = asyncio.Event()

    async def wait_for(self, what: str) -> None:
        self._awaited = what
        self._come.clear()
        async with asyncio.timeout(DEADLINE_S):
            await self._come.wait()

    def note(self, what: str) -> None:
        if what == self._awaited:
            self._come.set()


class Starts:
    """Listens where the tasks can reach it, and notes every container that says it has started."""

    def __init__(self, moments: Moments) -> None:
        self.addresses: list[tuple[str, str]] = []
        """ARN, and the address that the container speaks from."""
        self._moments = moments
        self._news = asyncio.Condition()

    async def wait_for(self, arn: str) -> None:
        async with asyncio.timeout(DEADLINE_S), self._news:
            await self._news.wait_for(lambda: self.counts()[arn] > 0)

    def counts(self) -> Counter[str]:
        return Counter(arn for arn, _ in self.addresses)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take what one container says: its task's metadata."""
        arn = json.loads(await reader.readline())["TaskARN"]
        async with self._news:
            self.addresses.append((arn, writer.get_extra_info("peername")[0]))
            self._news.notify_all()
        self._moments.note("a container has started")
        writer.close()


class Clients:
    """Run and stop tasks, and repeat what wasn't answered."""

    def __init__(self, ecs: Any, starts: Starts, moments: Moments) -> None:
        self.kinds: dict[str, str] = {}
        """By ARN: the tasks that were answered."""
        self.tokens: dict[str, str] = {}
        """The token by which a task was asked for."""
        self.over = False
        self._ecs = ecs
        self._starts = starts
        self._moments = moments
        self._asked = 0

    async def work(self) -> None:
        """Do one thing after the other until the last kill; the first task is left alone."""
        for kind in chain(["left alone"], cycle(["stopped", "exits", "stopped at once"])):
            arn = await self._run(kind)
            if kind != "stopped at once":
                await self._starts.wait_for(arn)
            if kind.startswith("stopped"):
                await self.stop(arn)
            if self.over:
                return

    async def repeat(self, arn: str) -> str:
        """Ask for a task by its token once more; return the ARN of the answer."""
        family = "exits" if self.kinds[arn] == "exits" else "stays"
        answer = await self._ask("RunTask", **_request(family, self.tokens[arn]))
        assert answer["failures"] == []
        return str(answer["tasks"][0]["taskArn"])

    async def stop(self, arn: str) -> None:
        await self._ask("StopTask", task=arn, reason="enough")

    async def _run(self, kind: str) -> str:
        self._asked += 1
        token = f"token-{self._asked}"
        family = "exits" if kind == "exits" else "stays"
        answer = await self._ask("RunTask", **_request(family, token))
        assert answer["failures"] == []
        arn = str(answer["tasks"][0]["taskArn"])
        self.kinds[arn], self.tokens[arn] = kind, token
        return arn

    async def _ask(self, operation: str, **request: Any) -> Any:
        call = {"RunTask": self._ecs.run_task, "StopTask": self._ecs.stop_task}[operation]
        async with asyncio.timeout(DEADLINE_S):
            while True:
                self._moments.note(f"{operation} is asked")
                try:
                    answer = await asyncio.to_thread(call, **request)
                except GONE:
                    await asyncio.sleep(0.05)
                    continue
                self._moments.note(f"{operation} is answered")
                return answer


class Successor(ForkedControlPlane):
    """A control plane that is where the one before was."""

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(plane.state_dir)
        self._url = plane.url

    def _launch(self, arguments: list[str], environment: dict[str, str]) -> str:
        return super()._launch([*arguments, "--listen", self._url], environment)


def restart(stack: Stack) -> None:
    """Kill the control plane, and start it again."""
    stack.control_plane.kill()
    stack.control_plane = Successor(stack.plane)
    config = stack.root / "control-plane.toml"
    stack.control_plane.start(FARGATE_CONTROL_PLANE_CONFIG=str(config), **PATIENT)


@pytest.fixture
def moments() -> Moments:
    return Moments()


@pytest.fixture
async def starts(outside: tuple[Path, str], moments: Moments) -> AsyncIterator[Starts]:
    made = Starts(moments)
    listener = socket_in_netns(outside[0], socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((f"{OUTSIDE}.1", 7000))
    async with await asyncio.start_server(made.take, sock=listener):
        yield made


@pytest.fixture
def kept_port(stack: Stack) -> Iterator[None]:
    """Nobody gets the port of the control plane between one and the next."""
    port = urlsplit(stack.plane.url).port
    assert port is not None
    with reserved_port(port):
        yield


@pytest.mark.usefixtures("kept_port")
async def test_tasks_start_once_and_end_as_they_should_while_the_control_plane_is_killed(
    stack: Stack, registry: FakeRegistry, starts: Starts, moments: Moments
) -> None:
    register_definitions(stack)
    clients = Clients(stack.ecs, starts, moments)

    async def kill() -> None:
        for what, after_s in KILLS:
            await moments.wait_for(what)
            await asyncio.sleep(after_s)
            await asyncio.to_thread(restart, stack)
        clients.over = True

    await together([kill(), *(clients.work() for _ in range(CLIENTS))])

    left = [arn for arn, kind in clients.kinds.items() if kind == "left alone"]
    for arn in set(clients.kinds) - set(left):
        await stack.wait_for(arn, "STOPPED")
    assert len(left) == CLIENTS
    for arn in left:
        await stack.wait_for(arn, "RUNNING")
        assert await clients.repeat(arn) == arn
        await clients.stop(arn)
    for arn in left:
        await stack.wait_for(arn, "STOPPED")

    check_starts(stack, clients, starts)
    check_ends(stack, clients)


def register_definitions(stack: Stack) -> None:
    for family, script in SCRIPTS.items():
        stack.ecs.register_task_definition(
            family=family,
            networkMode="awsvpc",
            requiresCompatibilities=["FARGATE"],
            cpu="256",
            memory="512",
            containerDefinitions=[tool("main", script)],
        )


def check_starts(stack: Stack, clients: Clients, starts: Starts) -> None:
    """No task was started twice or without being answered, and each has an address of its own."""
    counts = starts.counts()
    at_once = {arn for arn, kind in clients.kinds.items() if kind == "stopped at once"}
    listed = stack.ecs.list_tasks(desiredStatus="STOPPED")["taskArns"]

    assert set(listed) == set(clients.kinds)
    assert set(counts.values()) == {1}
    assert clients.kinds.keys() - at_once <= counts.keys() <= clients.kinds.keys()
    for arn, address in starts.addresses:
        assert details(stack.describe(arn))["privateIPv4Address"] == address
    assert len({address for _, address in starts.addresses}) == len(starts.addresses)


def check_ends(stack: Stack, clients: Clients) -> None:
    """All have ended for the reason that they had, and nothing is left of them."""
    for arn, kind in clients.kinds.items():
        task = stack.describe(arn)
        code = task["containers"][0].get("exitCode")
        if kind == "exits":
            assert (code, task["stopCode"]) == (EXITED, "EssentialContainerExited")
        else:
            assert (task["stopCode"], task["stoppedReason"]) == ("UserInitiated", "enough")
        if kind in {"stopped", "left alone"}:
            assert code == TRAPPED
        assert stack.leftovers(arn) == []
    assert make_ec2(stack.plane).describe_network_interfaces()["NetworkInterfaces"] == []


def _request(family: str, token: str) -> dict[str, Any]:
    return {
        "taskDefinition": family,
        "launchType": "FARGATE",
        "clientToken": token,
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-outside"]}},
    }
