"""The program is killed again and again under load, and each time it goes on where it was.

Clients run, stop and repeat at random; an agent outlives every control plane. Rounds are few in a
test run: `FARGATE_TEST_KILLS` says how many there are instead.
"""

import asyncio
import os
import random
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import botocore.exceptions
import pytest

from fargate_agent.parallel import first_of, together
from fargate_agent.wire.messages import PayloadMessage, TaskManifestMessage
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, ControlPlaneProcess, make_ec2
from tests.fixtures.ecs import FARGATE, run

KILLS = {"sqlite": 6, "postgresql": 3}
KILLS_VARIABLE = "FARGATE_TEST_KILLS"
SEED_VARIABLE = "FARGATE_TEST_SEED"
SECONDS_A_KILL = 10
SETTLED_WITHIN_S = 60
CLIENTS = 4
MAX_STEPS = 80
"""Calls, messages and reports between two kills."""

SUBNET = "subnet-small"
ADDRESSES = 64 - 4 - 1 - 1
"""Those of a /26 without what EC2 keeps for itself, the last one, and the gateway's."""
CONFIG = f'[[subnets]]\nid = "{SUBNET}"\ncidr = "10.0.64.0/26"\ngateway = "10.0.64.10"\n'
NETWORK = {"awsvpcConfiguration": {"subnets": [SUBNET]}}
PATIENT = {"FARGATE_CONTROL_PLANE_AGENT_GRACE_S": "10"}
"""Calls wait for the agent, which comes back a moment later."""

GONE = (
    aiohttp.ClientError,
    botocore.exceptions.ConnectionError,
    botocore.exceptions.HTTPClientError,
    ConnectionError,
    aiohttp.WSMessageTypeError,  # on reading text from a connection that has ended
)
"""What a client or an agent sees of a control plane that is killed."""


class Fuse:
    """Says when it is time for the next kill: after so many things that were done."""

    def __init__(self) -> None:
        self._left = 0
        self._burnt = asyncio.Event()

    async def burn(self, steps: int) -> None:
        """Return when so many more things are done."""
        self._left = steps
        self._burnt.clear()
        async with asyncio.timeout(SETTLED_WITHIN_S):
            await self._burnt.wait()

    def step(self) -> None:
        """Something is done: a call was answered, or the agent was sent a task."""
        self._left -= 1
        if self._left == 0:
            self._burnt.set()


class Machine:
    """An agent that outlives control planes, and notes what can't be right."""

    def __init__(self, generator: random.Random, fuse: Fuse) -> None:
        self.faults: list[str] = []
        self.starts: Counter[str] = Counter()
        self.live: dict[str, dict[str, Any]] = {}
        """By ARN, until the control plane has taken that it stopped."""
        self.ended: set[str] = set()
        self.exits = True
        """Whether some tasks end by themselves."""
        self._removed: set[str] = set()
        """Tasks whose ENI is gone: which it is before STOPPED is told, and that before it is known
        to be taken."""
        self._generator = generator
        self._fuse = fuse
        self._payloads: dict[str, Any] = {}
        self._reports: dict[str, list[str]] = {}
        """Statuses that were not taken yet."""
        self._news = asyncio.Event()
        self._instance_arn = ""

    @property
    def has_told_all(self) -> bool:
        """Whether the control plane has taken whatever became of the tasks that are here."""
        return not any(self._reports.values())

    async def serve(self, plane: ControlPlane) -> None:
        """Return when the control plane has gone."""
        agent = SimulatedAgent(plane)
        agent.instance_arn = self._instance_arn
        with suppress(*GONE):
            try:
                await agent.register()
                self._instance_arn = agent.instance_arn
                await agent.connect()
                self._check_manifest(await agent.receive(TaskManifestMessage))
                agent.deadline_s = None
                await first_of(self._take(agent), self._report(agent))
            finally:
                await agent.disconnect()

    def _check_manifest(self, manifest: TaskManifestMessage) -> None:
        for task in manifest.tasks:
            if task.task_arn not in self.live:
                self.faults.append(f"{task.task_arn} is in the manifest and not here")

    async def _take(self, agent: SimulatedAgent) -> None:
        while True:
            message = await agent.receive(PayloadMessage)
            self._note(message)
            self._fuse.step()
            await agent.ack(message)

    def _note(self, message: PayloadMessage) -> None:
        (task,) = message.tasks
        arn = task["arn"]
        if self._payloads.setdefault(message.message_id, task) != task:
            self.faults.append(f"message {message.message_id} means two things")
        if task["desiredStatus"] == "STOPPED":
            if arn not in self.ended:
                self.live.setdefault(arn, task)
                self._end(arn)
        elif arn in self.ended:
            self.faults.append(f"{arn} is to be started again")
        elif arn not in self.live:
            self._start(arn, task)

    def _start(self, arn: str, task: dict[str, Any]) -> None:
        there = (other for name, other in self.live.items() if name not in self._removed)
        taken = {_address(other): other["arn"] for other in there}
        if (other := taken.get(_address(task))) is not None:
            self.faults.append(f"{arn} has the address of {other}")
        self.live[arn] = task
        self.starts[arn] += 1
        self._reports[arn] = ["PENDING", "RUNNING"]
        if self.exits and self._generator.random() < 0.2:
            self._end(arn)
        self._news.set()

    def _end(self, arn: str) -> None:
        reports = self._reports.setdefault(arn, [])
        if "STOPPED" not in reports:
            reports.append("STOPPED")
        self._news.set()

    async def _report(self, agent: SimulatedAgent) -> None:
        """Repeat what was not taken, in order for each task."""
        while True:
            self._news.clear()
            for arn, statuses in list(self._reports.items()):
                while statuses:
                    if statuses[0] == "STOPPED":
                        self._removed.add(arn)
                    await self._send(agent, arn, statuses[0])
                    if statuses.pop(0) == "STOPPED":
                        self.ended.add(arn)
                        del self.live[arn]
                        del self._reports[arn]
            await self._news.wait()

    async def _send(self, agent: SimulatedAgent, arn: str, status: str) -> None:
        exited = [
            {"containerName": container["name"], "status": "STOPPED", "exitCode": 0}
            for container in self.live[arn]["containers"]
        ]
        more = {"containers": exited} if status == "STOPPED" else {}
        await agent.submit(arn, status, **more)
        self._fuse.step()


class Clients:
    """What was asked for and answered, over all control planes."""

    def __init__(self, generator: random.Random, fuse: Fuse) -> None:
        self.answered: dict[str, set[str]] = {}
        """ARNs, by the token of their RunTask."""
        self.unanswered: set[str] = set()
        self.stopped: set[str] = set()
        """Tasks for which StopTask was answered."""
        self._counts: dict[str, int] = {}
        self._generator = generator
        self._fuse = fuse

    @property
    def tasks(self) -> set[str]:
        return {arn for arns in self.answered.values() for arn in arns}

    async def work(self, ecs: Any) -> None:
        """Do one thing after the other until the control plane has gone."""
        with suppress(*GONE):
            while True:
                choice = self._generator.choice([self._run, self._stop, self._replay, self._reuse])
                await choice(ecs)
                self._fuse.step()

    async def replay(self, ecs: Any, token: str) -> None:
        """Repeat a call: it means the tasks that it has meant before."""
        before = self.answered.get(token)
        answer = await self._ask(ecs, token, self._counts[token])
        arns = {task["taskArn"] for task in answer["tasks"]}
        assert before in (None, arns), f"{token}: {before} became {arns}"
        self._note(token, arns)

    async def stop(self, ecs: Any, arn: str) -> None:
        """Ask twice at once; either says that the task is to end."""

        async def ask() -> None:
            answer = await asyncio.to_thread(ecs.stop_task, task=arn)
            assert answer["task"]["desiredStatus"] == "STOPPED"
            self.stopped.add(arn)

        await together(ask() for _ in range(2))

    async def _run(self, ecs: Any) -> None:
        token = f"token-{len(self._counts)}"
        self._counts[token] = self._generator.randint(1, 3)
        self.unanswered.add(token)
        answer = await self._ask(ecs, token, self._counts[token])
        self._note(token, {task["taskArn"] for task in answer["tasks"]})

    async def _stop(self, ecs: Any) -> None:
        if running := sorted(self.tasks - self.stopped):
            await self.stop(ecs, self._generator.choice(running))

    async def _replay(self, ecs: Any) -> None:
        if tokens := sorted([*self.answered, *self.unanswered]):
            await self.replay(ecs, self._generator.choice(tokens))

    async def _reuse(self, ecs: Any) -> None:
        if tokens := sorted(self.answered):
            token = self._generator.choice(tokens)
            with pytest.raises(ecs.exceptions.ConflictException):
                await self._ask(ecs, token, self._counts[token] + 1)

    async def _ask(self, ecs: Any, token: str, count: int) -> Any:
        return await asyncio.to_thread(
            run, ecs, clientToken=token, count=count, networkConfiguration=NETWORK
        )

    def _note(self, token: str, arns: set[str]) -> None:
        self.unanswered.discard(token)
        if arns:
            self.answered[token] = arns


def _address(task: dict[str, Any]) -> str:
    (eni,) = task["elasticNetworkInterfaces"]
    (address,) = eni["ipv4Addresses"]
    return str(address["privateAddress"])


@pytest.fixture
def kills(database: str | None) -> int:
    kind = "sqlite" if database is None else "postgresql"
    return int(os.environ.get(KILLS_VARIABLE, KILLS[kind]))


@pytest.mark.timeout(120 + SECONDS_A_KILL * int(os.environ.get(KILLS_VARIABLE, "6")))
async def test_killed_again_and_again_it_loses_no_task_and_starts_none_twice(
    control_plane_process: ControlPlaneProcess, kills: int, tmp_path: Path
) -> None:
    seed = int(os.environ.get(SEED_VARIABLE, time.time_ns() % 1_000_000))
    print(f"{SEED_VARIABLE}={seed}")  # noqa: T201 - shown if the test fails
    generator = random.Random(seed)
    config = tmp_path / "control-plane.toml"
    config.write_text(CONFIG)
    settings = {"FARGATE_CONTROL_PLANE_CONFIG": str(config), **PATIENT}
    fuse = Fuse()
    machine, clients = Machine(generator, fuse), Clients(generator, fuse)

    async def kill() -> None:
        await fuse.burn(generator.randint(1, MAX_STEPS))
        await asyncio.sleep(generator.uniform(0, 0.02))  # amid something
        await asyncio.to_thread(control_plane_process.kill)

    for _ in range(kills):
        plane = await asyncio.to_thread(control_plane_process.start, **settings)
        ecs = plane.client()
        await asyncio.to_thread(ensure_definition, ecs)
        await together([kill(), machine.serve(plane), *(clients.work(ecs) for _ in range(CLIENTS))])

    plane = await asyncio.to_thread(control_plane_process.start, **settings)
    serving = asyncio.create_task(machine.serve(plane))
    await check_that_every_task_is_there_once(plane.client(), machine, clients)
    await check_that_all_can_be_stopped(plane, machine, clients)
    await asyncio.to_thread(control_plane_process.kill)
    await serving


async def check_that_every_task_is_there_once(ecs: Any, machine: Machine, clients: Clients) -> None:
    """What was answered is there, runs if it should, and repeated calls mean the same."""
    for token in sorted(clients.unanswered) + sorted(clients.answered):
        await clients.replay(ecs, token)
    shown = await wait_until_settled(ecs, machine, clients)
    machine.exits = False
    running = {arn for arn, task in shown.items() if task["lastStatus"] == "RUNNING"}
    addresses = [_address(machine.live[arn]) for arn in running]

    assert machine.faults == []
    assert set(machine.starts.values()) == {1}
    assert machine.starts.keys() <= clients.tasks
    assert running == set(machine.live) - clients.stopped
    assert len(set(addresses)) == len(addresses)


async def check_that_all_can_be_stopped(
    plane: ControlPlane, machine: Machine, clients: Clients
) -> None:
    """Every address can be handed out again when all tasks have ended."""
    ecs = plane.client()
    for arn in sorted(clients.tasks - clients.stopped):
        await clients.stop(ecs, arn)
    await wait_until_settled(ecs, machine, clients)
    interfaces = await asyncio.to_thread(make_ec2(plane).describe_network_interfaces)

    assert machine.live == {}
    assert machine.faults == []
    assert interfaces["NetworkInterfaces"] == []
    assert await take_all_addresses(ecs) == ADDRESSES


def ensure_definition(ecs: Any) -> None:
    if not ecs.list_task_definitions()["taskDefinitionArns"]:
        ecs.register_task_definition(**FARGATE)


async def describe_all(ecs: Any, arns: set[str]) -> dict[str, dict[str, Any]]:
    shown: dict[str, dict[str, Any]] = {}
    ordered = sorted(arns)
    for start in range(0, len(ordered), 100):
        answer = await asyncio.to_thread(ecs.describe_tasks, tasks=ordered[start : start + 100])
        assert answer["failures"] == []
        shown |= {task["taskArn"]: task for task in answer["tasks"]}
    return shown


async def wait_until_settled(
    ecs: Any, machine: Machine, clients: Clients
) -> dict[str, dict[str, Any]]:
    """Return the tasks once they are as they should be, and the agent has no more to tell."""
    async with asyncio.timeout(SETTLED_WITHIN_S):
        while True:
            had_told_all = machine.has_told_all
            shown = await describe_all(ecs, clients.tasks)
            is_settled = all(t["lastStatus"] == t["desiredStatus"] for t in shown.values())
            if is_settled and had_told_all and machine.has_told_all:
                return shown
            await asyncio.sleep(0.1)


async def take_all_addresses(ecs: Any) -> int:
    """Run tasks until there is no address for another; return how many there were."""
    made = 0
    while True:
        answer = await asyncio.to_thread(run, ecs, count=10, networkConfiguration=NETWORK)
        made += len(answer["tasks"])
        if answer["failures"]:
            assert {failure["reason"] for failure in answer["failures"]} == {"RESOURCE:ENI"}
            return made
