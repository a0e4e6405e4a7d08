"""Several control planes on one PostgreSQL: an agent is connected to one, clients ask another."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import botocore.exceptions
import pytest

from fargate_agent.acs.api import ControlPlane as AgentsView
from fargate_agent.acs.api import ControlPlaneUnreachableError, Credentials
from fargate_agent.controlplane.agents.connections import LOOK_EVERY_S
from fargate_agent.wire.messages import PayloadMessage, TaskManifestMessage
from tests.fixtures.agents import SimulatedAgent, at_work
from tests.fixtures.controlplane import ControlPlane, ForkedControlPlane, Pair
from tests.fixtures.ecs import FARGATE, describe_task, details, run, wait_for_task
from tests.fixtures.postgres import PostgresServer

SLOW_RESEND = {"FARGATE_CONTROL_PLANE_RESEND_S": "600", "FARGATE_CONTROL_PLANE_AGENT_GRACE_S": "20"}
"""Nothing is sent because time has passed: only because somebody said so."""

pytestmark = pytest.mark.timeout(120)  # processes of PostgreSQL and of control planes start


@pytest.fixture
async def planes(pair: Pair) -> list[ControlPlane]:
    """Two control planes that run, with a task definition `web`."""
    started = await asyncio.to_thread(pair.start, **SLOW_RESEND)
    await asyncio.to_thread(started[0].client().register_task_definition, **FARGATE)
    return started


async def test_task_that_one_was_asked_for_reaches_the_agent_of_the_other(
    planes: list[ControlPlane],
) -> None:
    holder, other = planes
    async with SimulatedAgent(holder) as agent, at_work(agent):
        began = time.monotonic()
        made = (await asyncio.to_thread(run, other.client()))["tasks"][0]["taskArn"]
        await asyncio.to_thread(wait_for_task, other.client(), "tasks_running", made)
        await asyncio.to_thread(other.client().stop_task, task=made)
        stopped = await wait_for_status(holder, made, "STOPPED")

    assert stopped["stopCode"] == "UserInitiated"
    assert time.monotonic() - began < 60


async def test_agent_whose_control_plane_is_killed_goes_on_with_the_other(
    pair: Pair, planes: list[ControlPlane]
) -> None:
    holder, other = planes
    async with SimulatedAgent(holder) as agent:
        ecs = other.client()
        made = (await asyncio.to_thread(run, ecs, count=2))["tasks"]
        told = [(await agent.take_over())["arn"] for _ in made]
        late = (await asyncio.to_thread(run, ecs))["tasks"][0]["taskArn"]
        unanswered = await agent.receive(PayloadMessage)
        await asyncio.to_thread(pair.processes[0].kill)
        instance_arn = agent.instance_arn

    again = SimulatedAgent(other)
    again.instance_arn = instance_arn
    async with again:
        manifest = await again.receive(TaskManifestMessage)
        repeated = await again.receive(PayloadMessage)

    assert {task.task_arn for task in manifest.tasks} == set(told)
    assert unanswered.tasks[0]["arn"] == late
    assert repeated.message_id == unanswered.message_id
    assert repeated.tasks == unanswered.tasks


async def test_agent_that_connects_to_another_leaves_its_old_connection(
    planes: list[ControlPlane],
) -> None:
    first, second = planes
    async with SimulatedAgent(first) as agent:
        again = SimulatedAgent(second)
        again.instance_arn = agent.instance_arn
        async with again:
            made = (await asyncio.to_thread(run, first.client()))["tasks"][0]["taskArn"]

            await agent.wait_closed()
            taken = await again.take()

    assert taken["arn"] == made


async def test_agent_asks_the_next_control_plane_when_one_is_gone(
    pair: Pair, planes: list[ControlPlane]
) -> None:
    access_key, secret_key = planes[0].keys["agent"]
    key = Credentials(access_key=access_key, secret_key=secret_key)
    async with aiohttp.ClientSession() as http:
        both = AgentsView(http, [plane.url for plane in planes], key, "us-east-1")
        arn = (await both.call("RegisterContainerInstance", {}))["containerInstance"][
            "containerInstanceArn"
        ]
        await asyncio.to_thread(pair.processes[0].kill)

        with pytest.raises(ControlPlaneUnreachableError, match=planes[0].url):
            await both.call("DiscoverPollEndpoint", {"containerInstance": arn})
        found = await both.call("DiscoverPollEndpoint", {"containerInstance": arn})

    assert found["endpoint"] == f"{planes[1].url}/"


async def test_both_together_never_give_more_than_there_is(
    pair: Pair,
) -> None:
    started = await asyncio.to_thread(pair.start, FARGATE_CONTROL_PLANE_OVERCOMMIT="false")
    await asyncio.to_thread(started[0].client().register_task_definition, **FARGATE)
    room = 7
    agent = SimulatedAgent(started[0])
    await agent.register(
        totalResources=[
            {"name": "CPU", "type": "INTEGER", "integerValue": 256 * room},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": 512 * room},
        ]
    )
    await agent.connect()
    clients = [plane.client() for plane in started for _ in range(5)]

    with ThreadPoolExecutor(len(clients)) as pool:
        answers = await asyncio.to_thread(
            lambda: list(pool.map(lambda ecs: run(ecs, count=2), clients))
        )

    made = [task for answer in answers for task in answer["tasks"]]
    failed = [failure for answer in answers for failure in answer["failures"]]
    shown = [describe_task(started[0].client(), task["taskArn"]) for task in made]
    addresses = [address_of(task) for task in shown]
    await agent.disconnect()
    assert len(made) == room
    assert len(failed) == 20 - room
    assert len({task["taskArn"] for task in made}) == room
    assert len(set(addresses)) == room


async def test_database_that_is_away_for_a_moment_costs_an_error_and_no_task(
    tmp_path: Path, own_postgres_server: PostgresServer
) -> None:
    server = own_postgres_server
    process = ForkedControlPlane(tmp_path / "control-plane", server.url("postgres"))
    try:
        plane = await asyncio.to_thread(process.start, **SLOW_RESEND)
        ecs = plane.client()
        await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
        async with SimulatedAgent(plane) as agent:
            made = (await asyncio.to_thread(run, ecs))["tasks"][0]["taskArn"]
            await agent.take()
            await asyncio.to_thread(server.interrupt)

            end = time.monotonic() + LOOK_EVERY_S + 1  # whatever is done regularly meets it too
            while time.monotonic() < end:
                with pytest.raises(botocore.exceptions.ClientError, match="ServerException"):
                    await asyncio.to_thread(ecs.list_tasks)

            await asyncio.to_thread(server.start)
            shown = await asyncio.to_thread(describe_task, ecs, made)
        assert shown["lastStatus"] == "PROVISIONING"
        assert await asyncio.to_thread(process.terminate) == 0
    finally:
        process.close()


async def wait_for_status(plane: ControlPlane, arn: str, status: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            task = await asyncio.to_thread(describe_task, plane.client(), arn)
            if task["lastStatus"] == status:
                return dict(task)


def address_of(task: dict[str, Any]) -> str:
    found = details(task)
    return str(found.get("privateIPv4Address", task["taskArn"]))
