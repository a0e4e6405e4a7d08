"""One service, and two control planes on one PostgreSQL that look after it at the same time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fargate_agent.wire.messages import PayloadMessage
from tests.fixtures.agents import SimulatedAgent, at_work
from tests.fixtures.controlplane import ControlPlane, Pair
from tests.fixtures.ecs import (
    FARGATE,
    create_service,
    describe_service,
    messages,
    running,
    wait_for_service,
)
from tests.fixtures.events import history_of

pytestmark = pytest.mark.timeout(120)  # processes of PostgreSQL and of control planes start

SLOW_RESEND = {"FARGATE_CONTROL_PLANE_RESEND_S": "600", "FARGATE_CONTROL_PLANE_AGENT_GRACE_S": "20"}
"""A task that an agent is handed twice was handed out twice, and not just sent again."""

COUNT = 4
LIMITS = {"minimumHealthyPercent": 50, "maximumPercent": 150}
FEWEST, MOST = 2, 6

PRESENT = ("PROVISIONING", "PENDING", "ACTIVATING", "RUNNING")


class HesitantAgent(SimulatedAgent):
    """Counts what it is told to start, and can be kept from starting more."""

    def __init__(self, plane: ControlPlane, starts: Counter[str] | None = None) -> None:
        super().__init__(plane)
        self.starts: Counter[str] = Counter() if starts is None else starts
        self.most_starts: int | None = None
        self.hesitates = asyncio.Event()
        """Set when there is more to start than it may."""

    async def take(self) -> dict[str, Any]:
        message = await self.receive(PayloadMessage)
        task = message.tasks[0]
        if task["desiredStatus"] == "RUNNING":
            if len(self.starts) == self.most_starts:
                self.hesitates.set()
                await asyncio.Event().wait()  # so the message is never acknowledged
            self.starts[task["arn"]] += 1
        await self.ack(message)
        if task["desiredStatus"] == "RUNNING":
            await self.wait_taken(task["arn"])  # else it comes again after a kill
        return task


@pytest.fixture
async def planes(pair: Pair) -> list[ControlPlane]:
    """Two control planes that run, with two revisions of a task definition `web`."""
    started = await asyncio.to_thread(pair.start, **SLOW_RESEND)
    for _ in range(2):
        await asyncio.to_thread(started[0].client().register_task_definition, **FARGATE)
    return started


@asynccontextmanager
async def served(plane: ControlPlane, starts: Counter[str]) -> AsyncIterator[HesitantAgent]:
    """An agent that does what this control plane tells it."""
    async with HesitantAgent(plane, starts) as agent, at_work(agent):
        yield agent


async def test_both_together_start_no_more_tasks_than_a_service_wants(
    planes: list[ControlPlane],
) -> None:
    one, two = (plane.client() for plane in planes)
    starts: Counter[str] = Counter()
    async with served(planes[0], starts), served(planes[1], starts):
        await asyncio.to_thread(
            create_service,
            one,
            taskDefinition="web:1",
            desiredCount=COUNT,
            deploymentConfiguration=LIMITS,
        )
        await asyncio.to_thread(wait_for_service, two, "services_stable")
        killed = [task["taskArn"] for task in await asyncio.to_thread(running, one)][:2]
        for ecs, arn in zip((one, two), killed, strict=True):
            await asyncio.to_thread(ecs.stop_task, task=arn)
        await wait_until_replaced(two, killed)
        await asyncio.to_thread(two.update_service, service="web", taskDefinition="web:2")
        await asyncio.to_thread(wait_for_service, one, "services_stable")

    await check_that_nothing_was_done_twice(planes[0], starts, COUNT + len(killed) + COUNT)
    assert max(present_over_time(await history_of(planes[0]))) <= MOST


@pytest.mark.parametrize(
    "killed", [pytest.param(0, id="of the agent"), pytest.param(1, id="other")]
)
async def test_rolling_replacement_is_finished_by_the_control_plane_that_is_left(
    killed: int, pair: Pair, planes: list[ControlPlane]
) -> None:
    survivor = planes[1 - killed]
    ecs = survivor.client()
    async with HesitantAgent(planes[0]) as agent, at_work(agent):
        await asyncio.to_thread(
            create_service,
            ecs,
            taskDefinition="web:1",
            desiredCount=COUNT,
            deploymentConfiguration=LIMITS,
        )
        await asyncio.to_thread(wait_for_service, ecs, "services_stable")
        agent.most_starts = COUNT + 1
        await asyncio.to_thread(
            planes[killed].client().update_service, service="web", taskDefinition="web:2"
        )
        await agent.hesitates.wait()
        await asyncio.to_thread(pair.processes[killed].kill)

    successor = HesitantAgent(survivor, agent.starts)
    successor.instance_arn = agent.instance_arn
    async with successor, at_work(successor):
        await asyncio.to_thread(wait_for_service, ecs, "services_stable")

    await check_that_nothing_was_done_twice(survivor, agent.starts, 2 * COUNT)
    tasks = await asyncio.to_thread(running, ecs)
    assert {task["taskDefinitionArn"].rpartition("/")[2] for task in tasks} == {"web:2"}
    history = await history_of(survivor)
    assert max(present_over_time(history)) <= MOST
    assert min(running_since_all_ran(history)) >= FEWEST


async def wait_until_replaced(ecs: Any, gone: list[str]) -> None:
    """Return when others run in the place of these tasks."""
    async with asyncio.timeout(30):
        while True:
            tasks = await asyncio.to_thread(running, ecs)
            there = [task["taskArn"] for task in tasks if task["lastStatus"] == "RUNNING"]
            if len(there) == COUNT and not {*there} & {*gone}:
                return


async def check_that_nothing_was_done_twice(
    plane: ControlPlane, starts: Counter[str], made: int
) -> None:
    """So many tasks were made, each was told of once, and an agent was handed each once."""
    service = await asyncio.to_thread(describe_service, plane.client())
    told = " ".join(text for text in messages(service) if "has started" in text)
    history = await history_of(plane)

    assert len(await asyncio.to_thread(running, plane.client())) == COUNT
    assert {arn for arn, _ in changes_of(history)} == set(starts)
    assert set(starts.values()) == {1}
    assert [told.count(arn.rpartition("/")[2]) for arn in starts] == [1] * made


def changes_of(history: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Give ARN and status of each change of a task of the service, in the order of the commits."""
    for event in history:
        detail = event["detail"]
        if detail.get("group") == "service:web":
            yield detail["taskArn"], detail["lastStatus"]


def present_over_time(history: list[dict[str, Any]]) -> Iterator[int]:
    """Give how many tasks `maximumPercent` counted after each change."""
    return counts_of(history, PRESENT)


def running_since_all_ran(history: list[dict[str, Any]]) -> list[int]:
    """Return how many tasks ran after each change, from when as many ran as are wanted."""
    counts = list(counts_of(history, ("RUNNING",)))
    return counts[counts.index(COUNT) :]


def counts_of(history: list[dict[str, Any]], statuses: tuple[str, ...]) -> Iterator[int]:
    last: dict[str, str] = {}
    for arn, status in changes_of(history):
        last[arn] = status
        yield sum(status in statuses for status in last.values())
