"""Which agent takes a task, what happens to it after that, and to tasks whose agent is silent."""

import asyncio
import logging
from typing import Any

import pytest

from fargate_agent.controlplane.agents import connections
from fargate_agent.controlplane.agents.capacity import RegisteredAgents
from fargate_agent.wire.messages import (
    PayloadMessage,
    TaskIdentifier,
    TaskManifestMessage,
    TaskStopVerificationAck,
    TaskStopVerificationMessage,
)
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane, make_ec2
from tests.fixtures.ecs import (
    FARGATE,
    NO_CAPACITY,
    create_service,
    describe_task,
    reasons,
    run,
)
from tests.fixtures.postgres import change_database

LOST = (
    "The agent was away for longer than lost_task_timeout_s: the task's machine is taken for lost."
)


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

    assert reasons(refused) == [NO_CAPACITY]
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


async def test_warm_pool_that_is_full_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    provider = RegisteredAgents()

    for count in (0, 2, 2, 0, 2, 1, 0):
        await provider.provide(count)

    said = [record.getMessage() for record in caplog.records if "warm pool" in record.getMessage()]
    assert [text.split()[4] for text in said] == ["2", "2", "1"]


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

    assert reasons(refused) == [NO_CAPACITY]
    assert lost["lastStatus"] == "RUNNING"
    assert running["version"] < lost["version"] < back["version"]


async def test_agent_that_stays_away_is_inactive_until_it_is_back(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LOOK_EVERY_S", 0.1)
    plane = await start(start_control_plane, agent_grace_s=0.2)
    ecs = plane.client()

    async def look(arn: str) -> tuple[str, list[str], int]:
        described = await asyncio.to_thread(
            ecs.describe_container_instances, containerInstances=[arn]
        )
        listed = await asyncio.to_thread(ecs.list_container_instances)
        counted = await asyncio.to_thread(ecs.describe_clusters)
        status: str = described["containerInstances"][0]["status"]
        arns: list[str] = listed["containerInstanceArns"]
        return status, arns, counted["clusters"][0]["registeredContainerInstancesCount"]

    async with SimulatedAgent(plane) as agent:
        arn = agent.instance_arn
        await asyncio.to_thread(
            ecs.update_container_instances_state, containerInstances=[arn], status="DRAINING"
        )
    async with asyncio.timeout(10):
        while (await look(arn))[0] != "INACTIVE":
            await asyncio.sleep(0.02)
    gone = await look(arn)
    again = SimulatedAgent(plane)
    again.instance_arn = arn
    async with again:
        await again.receive(TaskManifestMessage)
        back = await look(arn)

    assert gone == ("INACTIVE", [], 0)
    assert back == ("DRAINING", [arn], 1)


async def test_tasks_of_a_machine_that_is_lost_end_and_do_not_go_on_when_it_is_back(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LOOK_EVERY_S", 0.1)
    plane = await start(start_control_plane, agent_grace_s=0.1, lost_task_timeout_s=0.5)
    ecs = plane.client()
    agent = SimulatedAgent(plane)
    await agent.register(totalResources=resources(8192, 16384))
    await agent.connect()
    arns = [(await asyncio.to_thread(run, ecs))["tasks"][0]["taskArn"] for _ in range(2)]
    for _ in arns:
        await agent.bring_up(await agent.take())
    await asyncio.to_thread(ecs.stop_task, task=arns[1], reason="by hand")
    await agent.disconnect()

    lost, stopped = [await wait_until(plane, arn, lastStatus="STOPPED") for arn in arns]
    interfaces = await asyncio.to_thread(make_ec2(plane).describe_network_interfaces)
    free = await remaining(plane, agent.instance_arn)
    again = SimulatedAgent(plane)
    again.instance_arn = agent.instance_arn
    async with again:
        manifest = await again.receive(TaskManifestMessage)
        await again.send(ask_to_stop(manifest, arns[0]))
        verified = await again.receive(TaskStopVerificationAck)

    assert (lost["stopCode"], lost["stoppedReason"]) == (
        "TerminationNotice",
        LOST,
    )
    assert (stopped["stopCode"], stopped["stoppedReason"]) == ("UserInitiated", "by hand")
    assert interfaces["NetworkInterfaces"] == []
    assert free == {"CPU": 8192, "MEMORY": 16384}
    assert manifest.tasks == ()
    assert [task.task_arn for task in verified.stop_tasks] == [arns[0]]


async def test_service_replaces_the_tasks_of_a_machine_that_is_lost(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LOOK_EVERY_S", 0.1)
    plane = await start(start_control_plane, agent_grace_s=0.1, lost_task_timeout_s=0.5)
    first = SimulatedAgent(plane)
    async with first:
        await asyncio.to_thread(create_service, plane.client(), desiredCount=1)
        lost = await first.take()
        await first.bring_up(lost)

    async with SimulatedAgent(plane) as second:
        assert (await second.take())["arn"] != lost["arn"]


async def test_agents_are_not_gone_because_the_control_plane_was_away(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LOOK_EVERY_S", 0.1)
    plane = await start(start_control_plane, agent_grace_s=0.2)
    taken, _, instance_arn = await lose_agent(plane)
    query = "UPDATE container_instances SET connected_until = connected_until - 1000"
    await change_database(plane.database, query)

    plane = await asyncio.to_thread(start_control_plane, agent_grace_s=0.2, lost_task_timeout_s=15)
    await wait_until(plane, taken, connectivity="DISCONNECTED")
    agent = SimulatedAgent(plane)
    agent.instance_arn = instance_arn
    async with agent:
        back = await wait_until(plane, taken, connectivity="CONNECTED")

    assert back["lastStatus"] == "RUNNING"


@pytest.mark.parametrize("delivery", ["WAITING", "SENT"])
async def test_task_that_its_agent_never_took_ends_in_time(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch, delivery: str
) -> None:
    monkeypatch.setattr(connections, "LOOK_EVERY_S", 0.1)
    plane = await start(start_control_plane, agent_grace_s=0.2)
    taken, made, instance_arn = await lose_agent(plane)
    # An agent can't be made to leave between RunTask and delivery.
    query = "UPDATE tasks SET delivery = :delivery WHERE id = :id"
    await change_database(plane.database, query, delivery=delivery, id=made[-32:])

    await wait_until(plane, taken, connectivity="DISCONNECTED")
    waiting = await asyncio.to_thread(describe_task, plane.client(), made)
    monkeypatch.setattr(connections, "START_TIMEOUT_S", 0.2)
    ended = await wait_until(plane, made, lastStatus="STOPPED")
    interfaces = await asyncio.to_thread(make_ec2(plane).describe_network_interfaces)

    assert waiting["lastStatus"] == "PROVISIONING"
    assert (ended["stopCode"], ended["stoppedReason"]) == (
        "TaskFailedToStart",
        "Timeout waiting for network interface provisioning to complete.",
    )
    assert ended["attachments"][0]["status"] == "DELETED"
    assert len(interfaces["NetworkInterfaces"]) == 1  # of the task that was taken
    assert await remaining(plane, instance_arn) == {"CPU": 8192 - 256, "MEMORY": 16384 - 512}
    await wait_until(plane, taken, lastStatus="RUNNING")


async def test_agent_that_comes_back_too_late_is_not_to_start_the_task(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(connections, "START_TIMEOUT_S", 0.2)
    plane = await start(start_control_plane, agent_grace_s=0.2)
    taken, made, instance_arn = await lose_agent(plane)
    await wait_until(plane, made, lastStatus="STOPPED")

    agent = SimulatedAgent(plane)
    agent.instance_arn = instance_arn
    async with agent:
        manifest = await agent.receive(TaskManifestMessage)
        await agent.send(ask_to_stop(manifest, made))
        verified = await agent.receive(TaskStopVerificationAck)
        later = (await asyncio.to_thread(run, plane.client()))["tasks"][0]["taskArn"]
        sent = await agent.take()

    assert [task.task_arn for task in manifest.tasks] == [taken]
    assert [task.task_arn for task in verified.stop_tasks] == [made]
    assert sent["arn"] == later


async def test_task_waits_on_for_an_agent_when_the_control_plane_was_away_itself(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LOOK_EVERY_S", 0.1)
    plane = await start(start_control_plane, agent_grace_s=0.2)
    taken, made, instance_arn = await lose_agent(plane)
    query = "UPDATE container_instances SET connected_until = connected_until - 1000"
    await change_database(plane.database, query)

    plane = await asyncio.to_thread(start_control_plane, agent_grace_s=0.2)
    await wait_until(plane, taken, connectivity="DISCONNECTED")
    agent = SimulatedAgent(plane)
    agent.instance_arn = instance_arn
    async with agent:
        assert (await agent.take())["arn"] == made


async def lose_agent(plane: ControlPlane) -> tuple[str, str, str]:
    """Have an agent run one task, and go away when it is sent another.

    Returns their ARNs and the agent's.
    """
    agent = SimulatedAgent(plane)
    await agent.register(totalResources=resources(8192, 16384))
    await agent.connect()
    taken = (await asyncio.to_thread(run, plane.client()))["tasks"][0]["taskArn"]
    await agent.bring_up(await agent.take_over())
    made = (await asyncio.to_thread(run, plane.client()))["tasks"][0]["taskArn"]
    assert (await agent.receive(PayloadMessage)).tasks[0]["arn"] == made
    await agent.disconnect()
    return taken, made, agent.instance_arn


def ask_to_stop(manifest: TaskManifestMessage, arn: str) -> TaskStopVerificationMessage:
    """Return what an agent asks that did get the task."""
    cluster_arn = manifest.cluster_arn
    task = TaskIdentifier(task_arn=arn, task_cluster_arn=cluster_arn, desired_status="STOPPED")
    return TaskStopVerificationMessage(message_id=manifest.message_id, stop_candidates=(task,))


async def remaining(plane: ControlPlane, instance_arn: str) -> dict[str, int]:
    """Return how much of an instance is free."""
    answer = await asyncio.to_thread(
        plane.client().describe_container_instances, containerInstances=[instance_arn]
    )
    shown = answer["containerInstances"][0]["remainingResources"]
    return {
        resource["name"]: resource["integerValue"]
        for resource in shown
        if "integerValue" in resource
    }
