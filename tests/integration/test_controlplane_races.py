"""Requests that meet: at the same time, repeated, or about what is just ending."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane
from tests.fixtures.ecs import (
    FARGATE,
    NETWORK,
    NO_CAPACITY,
    create_service,
    describe_service,
    describe_task,
    reasons,
    refusal,
    run,
    running,
)
from tests.fixtures.postgres import change_database

CALLERS = 6
REQUEST = {"taskDefinition": "web", "networkConfiguration": NETWORK}

AnswerT = TypeVar("AnswerT")


async def at_once(call: Callable[[int], AnswerT]) -> list[AnswerT]:
    """Make a call from several threads at the same time; each is told which it is."""

    def call_all() -> list[AnswerT]:
        with ThreadPoolExecutor(CALLERS) as pool:
            return list(pool.map(call, range(CALLERS)))

    return await asyncio.to_thread(call_all)


def arns_of(answer: dict[str, Any]) -> list[str]:
    return [task["taskArn"] for task in answer["tasks"]]


async def test_stops_at_the_same_time_are_one_stop(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    (arn,) = arns_of(await asyncio.to_thread(run, registered))
    await simulated_agent.take()

    answers = await at_once(lambda i: registered.stop_task(task=arn, reason=f"caller {i}")["task"])

    assert len({(task["stoppedReason"], task["version"]) for task in answers}) == 1
    assert (await simulated_agent.take())["desiredStatus"] == "STOPPED"
    await simulated_agent.submit(arn, "STOPPED")
    shown = await asyncio.to_thread(describe_task, registered, arn)
    assert shown["stoppedReason"] == answers[0]["stoppedReason"]


async def test_stop_and_the_end_of_a_task_at_the_same_time_end_it_once(
    control_plane: ControlPlane, registered: Any, simulated_agent: SimulatedAgent
) -> None:
    (arn,) = arns_of(await asyncio.to_thread(run, registered))
    await simulated_agent.take()
    agent = control_plane.client("agent")

    def end(caller: int) -> None:
        if caller % 2:
            registered.stop_task(task=arn)
        else:
            agent.submit_task_state_change(task=arn, status="STOPPED", reason="it is over")

    await at_once(end)

    shown = await asyncio.to_thread(describe_task, registered, arn)
    (instance,) = (
        await asyncio.to_thread(
            registered.describe_container_instances,
            containerInstances=[simulated_agent.instance_arn],
        )
    )["containerInstances"]
    assert (shown["lastStatus"], shown["attachments"][0]["status"]) == ("STOPPED", "DELETED")
    assert instance["runningTasksCount"] + instance["pendingTasksCount"] == 0


async def test_one_token_at_the_same_time_makes_tasks_once(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    answers = await at_once(lambda _: arns_of(run(registered, clientToken="t", count=3)))

    listed = await asyncio.to_thread(registered.list_tasks)
    assert answers == [answers[0]] * CALLERS  # in the same order, too
    assert sorted(answers[0]) == listed["taskArns"]


async def test_every_token_makes_tasks_of_its_own(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    answers = await at_once(lambda i: arns_of(run(registered, clientToken=f"t{i}")))

    listed = await asyncio.to_thread(registered.list_tasks)
    assert sorted(arn for arns in answers for arn in arns) == listed["taskArns"]
    assert len(listed["taskArns"]) == CALLERS


async def test_token_of_tasks_that_were_forgotten_makes_no_others(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        kept, old = arns_of(await asyncio.to_thread(run, ecs, clientToken="t", count=2))
        await agent.take()
        await change_database(plane.database, "DELETE FROM tasks WHERE id = :id", id=old[-32:])

        again = await asyncio.to_thread(run, ecs, clientToken="t", count=2)

    assert arns_of(again) == [kept]
    assert again["failures"] == [{"arn": old, "reason": "MISSING"}]


async def test_task_that_is_stopping_keeps_its_room_until_it_has_stopped(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, overcommit=False)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    agent = SimulatedAgent(plane)
    await agent.register(
        totalResources=[
            {"name": "CPU", "type": "INTEGER", "integerValue": 256},
            {"name": "MEMORY", "type": "INTEGER", "integerValue": 512},
        ]
    )
    await agent.connect()
    (arn,) = arns_of(await asyncio.to_thread(run, ecs))
    await agent.take()
    await asyncio.to_thread(ecs.stop_task, task=arn)

    meanwhile = await asyncio.to_thread(run, ecs)
    await agent.submit(arn, "STOPPED")
    afterwards = await asyncio.to_thread(run, ecs)

    assert (meanwhile["tasks"], reasons(meanwhile)) == ([], [NO_CAPACITY])
    assert len(afterwards["tasks"]) == 1
    await agent.disconnect()


async def test_what_ran_in_a_deleted_cluster_is_described(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    (arn,) = arns_of(await asyncio.to_thread(run, registered))
    await simulated_agent.take()  # one that no agent has heard of ends at once
    await asyncio.to_thread(create_service, registered, desiredCount=0)
    await asyncio.to_thread(registered.stop_task, task=arn)
    await simulated_agent.submit(arn, "STOPPED")
    await asyncio.to_thread(registered.delete_service, service="web")
    registered.get_waiter("services_inactive").wait(
        services=["web"], WaiterConfig={"Delay": 0.1, "MaxAttempts": 100}
    )
    await asyncio.to_thread(
        registered.deregister_container_instance, containerInstance=simulated_agent.instance_arn
    )

    await asyncio.to_thread(registered.delete_cluster, cluster="default")

    assert (await asyncio.to_thread(describe_task, registered, arn))["lastStatus"] == "STOPPED"
    assert (await asyncio.to_thread(describe_service, registered))["status"] == "INACTIVE"


async def test_service_that_is_created_at_the_same_time_is_one(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    answers = await at_once(lambda _: create_service(registered)["deployments"][0]["id"])

    assert len(set(answers)) == 1


@pytest.mark.parametrize(
    "reference", ["web:0", "web:000", "web:1000000000", "web:-1", "web:", "web:１"]
)
async def test_revision_that_can_not_be_is_no_definition(
    reference: str, registered: Any, simulated_agent: SimulatedAgent
) -> None:
    found = await asyncio.to_thread(
        refusal, registered.run_task, **{**REQUEST, "taskDefinition": reference}
    )

    assert found == ("ClientException", "TaskDefinition not found.")
    assert await asyncio.to_thread(running, registered) == []
