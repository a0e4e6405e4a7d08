"""Which agent takes a task, what happens to it after that, and to tasks whose agent is silent."""

import asyncio
import logging
from typing import Any

import pytest

from fargate_agent.controlplane.agents import connections
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane
from tests.fixtures.ecs import FARGATE, NO_CAPACITY, describe_task, run


async def start(start_control_plane: StartControlPlane, **settings: Any) -> ControlPlane:
    plane = await asyncio.to_thread(start_control_plane, **settings)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    return plane


def resources(cpu_units: int, memory_mib: int) -> list[dict[str, Any]]:
    return [
        {"name": "CPU", "type": "INTEGER", "integerValue": cpu_units},
        {"name": "MEMORY", "type": "INTEGER", "integerValue": memory_mib},
    ]


async def wait_until(plane: ControlPlane, arn: str, **wanted: Any) -> dict[str, Any]:
    async with asyncio.timeout(15):
        while True:
            task: dict[str, Any] = await asyncio.to_thread(describe_task, plane.client(), arn)
            if wanted.items() <= task.items():
                return task


async def test_task_goes_where_it_fits_best(start_control_plane: StartControlPlane) -> None:
    plane = await start(start_control_plane)
    large, small = SimulatedAgent(plane), SimulatedAgent(plane)
    await large.register(totalResources=resources(8192, 16384))
    await small.register(totalResources=resources(512, 1024))
    await large.connect()
    await small.connect()

    made = [(await asyncio.to_thread(run, plane.client()))["tasks"][0] for _ in range(3)]

    first, second = await small.take(), await small.take()
    third = await large.take()
    assert [task["arn"] for task in (first, second, third)] == [task["taskArn"] for task in made]
    await large.disconnect()
    await small.disconnect()


async def test_instance_for_one_task_takes_one_and_is_retired_after_it(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await start(start_control_plane, capacity_mode="one-task-per-instance")
    async with SimulatedAgent(plane) as agent:
        used = agent.instance_arn
        first = (await asyncio.to_thread(run, plane.client()))["tasks"][0]["taskArn"]
        task = await agent.take()
        refused = await asyncio.to_thread(run, plane.client())
        await agent.bring_up(task)
        await agent.bring_down(task, exit_code=0)
        await agent.wait_closed()

        await agent.register()
        assert agent.instance_arn != used
    again = SimulatedAgent(plane)
    again.instance_arn = agent.instance_arn
    async with again:
        second = (await asyncio.to_thread(run, plane.client()))["tasks"][0]["taskArn"]
        assert (await again.take())["arn"] == second

    assert refused["failures"] == [{"reason": NO_CAPACITY}]
    assert first != second


async def test_warm_pool_says_how_many_agents_it_lacks(
    start_control_plane: StartControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    plane = await start(start_control_plane, warm_pool=2)

    async with asyncio.timeout(10):
        while "the warm pool lacks 2 agents" not in caplog.text:
            await asyncio.sleep(0.02)
        async with SimulatedAgent(plane):
            while "the warm pool lacks 1 agents" not in caplog.text:
                await asyncio.sleep(0.02)


async def test_tasks_of_a_silent_agent_are_shown_disconnected_until_it_is_back(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LOOK_EVERY_S", 0.1)
    plane = await start(start_control_plane, agent_grace_s=0.2)
    async with SimulatedAgent(plane) as agent:
        made = (await asyncio.to_thread(run, plane.client()))["tasks"][0]["taskArn"]
        await agent.bring_up(await agent.take())
        running = await wait_until(plane, made, lastStatus="RUNNING", connectivity="CONNECTED")

    lost = await wait_until(plane, made, connectivity="DISCONNECTED")
    refused = await asyncio.to_thread(run, plane.client())
    again = SimulatedAgent(plane)
    again.instance_arn = agent.instance_arn
    async with again:
        back = await wait_until(plane, made, connectivity="CONNECTED")

    assert refused["failures"] == [{"reason": NO_CAPACITY}]
    assert lost["lastStatus"] == "RUNNING"
    assert running["version"] < lost["version"] < back["version"]
