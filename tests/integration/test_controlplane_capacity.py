"""What RunTask finds room for: agents, sizes, repeated tokens, addresses."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane
from tests.fixtures.ecs import FARGATE, NO_CAPACITY, describe_task, details, reasons, run


def test_run_without_an_agent_says_that_there_is_no_capacity(registered: Any) -> None:
    answer = run(registered)

    assert (answer["tasks"], reasons(answer)) == ([], [NO_CAPACITY])


async def test_agent_that_is_away_for_a_moment_is_waited_for(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, agent_grace_s=15)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    agent = SimulatedAgent(plane)
    await agent.register()
    asked = asyncio.create_task(asyncio.to_thread(run, ecs))

    await agent.connect()

    assert len((await asked)["tasks"]) == 1
    await agent.disconnect()


async def test_agent_that_is_away_is_waited_for_if_the_others_have_no_room(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, agent_grace_s=15, overcommit=False)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    full, away = SimulatedAgent(plane), SimulatedAgent(plane)
    await full.register(totalResources=[{"name": "CPU", "type": "INTEGER", "integerValue": 128}])
    await away.register()
    await full.connect()
    asked = asyncio.create_task(asyncio.to_thread(run, ecs))

    await away.connect()

    assert len((await asked)["tasks"]) == 1
    await away.take()
    for agent in (full, away):
        await agent.disconnect()


async def test_instance_that_is_full_takes_no_more_unless_overcommitted(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, overcommit=False)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    agent = SimulatedAgent(plane)
    await agent.register(
        totalResources=[
            {"name": "CPU", "type": "INTEGER", "integerValue": 512},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": 4096},
        ]
    )
    await agent.connect()

    answer = await asyncio.to_thread(run, ecs, count=3)

    assert (len(answer["tasks"]), reasons(answer)) == (2, [NO_CAPACITY])
    await agent.disconnect()


async def test_repeated_client_token_gives_the_same_tasks(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    first = await asyncio.to_thread(run, registered, clientToken="t", count=2)
    again = await asyncio.to_thread(run, registered, clientToken="t", count=2)

    with pytest.raises(registered.exceptions.ConflictException) as conflict:
        await asyncio.to_thread(run, registered, clientToken="t", count=1)

    arns = {task["taskArn"] for task in first["tasks"]}
    assert {task["taskArn"] for task in again["tasks"]} == arns
    assert set(conflict.value.response["resourceIds"]) == arns


async def test_requests_at_the_same_time_never_share_an_address(
    control_plane: ControlPlane, registered: Any, simulated_agent: SimulatedAgent
) -> None:
    def launch(_: int) -> list[dict[str, Any]]:
        return list(run(registered, count=5)["tasks"])

    def launch_all() -> list[dict[str, Any]]:
        with ThreadPoolExecutor(8) as pool:
            return [task for tasks in pool.map(launch, range(8)) for task in tasks]

    arns = [task["taskArn"] for task in await asyncio.to_thread(launch_all)]
    for _ in arns:
        await simulated_agent.take()
    shown = (await asyncio.to_thread(registered.describe_tasks, tasks=arns))["tasks"]

    addresses = {details(task)["privateIPv4Address"] for task in shown}
    assert len(addresses) == len(arns) == 40


async def test_full_subnet_says_so_and_an_address_comes_back_when_its_task_has_stopped(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, vpc_cidr="10.9.0.0/28")
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        first = await asyncio.to_thread(run, ecs, count=10)
        second = await asyncio.to_thread(run, ecs, count=2)
        for _ in range(11):
            await agent.take()
        freed = first["tasks"][3]["taskArn"]
        address = details(await asyncio.to_thread(describe_task, ecs, freed))["privateIPv4Address"]
        await agent.submit(freed, "STOPPED", reason="Essential container in task exited")

        third = await asyncio.to_thread(run, ecs)
        await agent.take()

        assert (len(first["tasks"]), len(second["tasks"])) == (10, 1)
        assert second["failures"] == [{"reason": "RESOURCE:ENI"}]
        shown = await asyncio.to_thread(describe_task, ecs, third["tasks"][0]["taskArn"])
        assert details(shown)["privateIPv4Address"] == address
