"""Container instances: what operators see of them, drained and deregistered."""

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fargate_agent.wire.messages import TaskManifestMessage
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane
from tests.fixtures.ecs import FARGATE, NO_CAPACITY, describe_task, kind_of, reasons, run

UNKNOWN = f"arn:aws:ecs:us-east-1:000000000000:container-instance/default/{'0' * 32}"
RESOURCES: list[dict[str, Any]] = [
    {"name": "CPU", "type": "INTEGER", "integerValue": 4096},
    {"name": "MEMORY", "type": "INTEGER", "integerValue": 8192},
    {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ["22"]},
]


def show(ecs: Any, arn: str, **more: Any) -> Any:
    """Describe one instance."""
    return ecs.describe_container_instances(containerInstances=[arn], **more)["containerInstances"][
        0
    ]


def amounts(resources: list[dict[str, Any]]) -> dict[str, int]:
    return {item["name"]: item["integerValue"] for item in resources if "integerValue" in item}


async def test_instance_says_what_it_has_and_what_is_left(
    control_plane: ControlPlane, registered: Any
) -> None:
    agent = SimulatedAgent(control_plane)
    await agent.register(
        totalResources=RESOURCES,
        attributes=[{"name": "ecs.os-type", "value": "linux"}],
        versionInfo={"agentVersion": "1.0.0"},
    )
    await agent.connect()
    await asyncio.to_thread(run, registered, count=2)
    await agent.bring_up(await agent.take())

    found = await asyncio.to_thread(show, registered, agent.instance_arn)

    assert amounts(found["registeredResources"]) == {"CPU": 4096, "MEMORY": 8192}
    assert amounts(found["remainingResources"]) == {"CPU": 4096 - 512, "MEMORY": 8192 - 1024}
    assert found["remainingResources"][2] == RESOURCES[2]
    assert (found["runningTasksCount"], found["pendingTasksCount"]) == (1, 1)
    assert (found["status"], found["agentConnected"]) == ("ACTIVE", True)
    assert found["versionInfo"] == {"agentVersion": "1.0.0"}
    await agent.disconnect()


async def test_instance_with_more_tasks_than_room_has_nothing_left(
    control_plane: ControlPlane, registered: Any
) -> None:
    agent = SimulatedAgent(control_plane)
    await agent.register(totalResources=[{**RESOURCES[0], "integerValue": 300}])
    await agent.connect()
    await asyncio.to_thread(run, registered, count=2)

    found = await asyncio.to_thread(show, registered, agent.instance_arn)

    assert amounts(found["remainingResources"]) == {"CPU": 0}
    await agent.disconnect()


async def test_tags_that_an_operator_has_put_stay_when_the_agent_registers_again(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    arn = simulated_agent.instance_arn
    mine, its = {"key": "rack", "value": "7"}, {"key": "zone", "value": "a"}
    await asyncio.to_thread(registered.tag_resource, resourceArn=arn, tags=[mine])

    await simulated_agent.register(tags=[its])

    assert (await asyncio.to_thread(show, registered, arn))["tags"] == []
    tagged = await asyncio.to_thread(show, registered, arn, include=["TAGS"])
    assert tagged["tags"] == [mine, its]


def test_instance_that_is_not_there_is_missing(ecs: Any) -> None:
    answer = ecs.describe_container_instances(containerInstances=[UNKNOWN, "0" * 32])

    assert answer["containerInstances"] == []
    assert answer["failures"] == [{"arn": UNKNOWN, "reason": "MISSING"}]


@pytest.mark.parametrize(
    "references",
    [
        pytest.param([], id="none"),
        pytest.param(["0" * 32] * 101, id="101"),
        pytest.param(["../../etc"], id="no id"),
        pytest.param([UNKNOWN.replace("default", "other")], id="other cluster"),
    ],
)
def test_wrong_references_are_refused(references: list[str], ecs: Any) -> None:
    with pytest.raises(ClientError) as refusal:
        ecs.describe_container_instances(containerInstances=references)

    assert kind_of(refusal) in {"InvalidParameterException", "ClientException"}


async def test_instances_are_listed_by_status_and_in_pages(
    control_plane: ControlPlane, ecs: Any
) -> None:
    agents = [SimulatedAgent(control_plane) for _ in range(3)]
    for agent in agents:
        await agent.register()
    arns = sorted(agent.instance_arn for agent in agents)

    def listed(**filters: Any) -> list[str]:
        pages = ecs.get_paginator("list_container_instances").paginate(
            PaginationConfig={"PageSize": 2}, **filters
        )
        return [arn for page in pages for arn in page["containerInstanceArns"]]

    await asyncio.to_thread(
        ecs.update_container_instances_state, containerInstances=[arns[0]], status="DRAINING"
    )
    await asyncio.to_thread(ecs.deregister_container_instance, containerInstance=arns[1])

    assert await asyncio.to_thread(listed) == [arns[0], arns[2]]
    assert await asyncio.to_thread(listed, status="DRAINING") == [arns[0]]
    assert await asyncio.to_thread(listed, status="ACTIVE") == [arns[2]]


def test_filter_expression_is_refused(ecs: Any) -> None:
    with pytest.raises(ClientError, match="filter") as refusal:
        ecs.list_container_instances(filter="attribute:ecs.os-type == linux")

    assert kind_of(refusal) == "UnsupportedFeatureException"


async def test_drained_instance_takes_no_new_task_and_goes_on_with_its_own(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    arn = simulated_agent.instance_arn
    first = (await asyncio.to_thread(run, registered))["tasks"][0]["taskArn"]
    task = await simulated_agent.take()

    changed = await asyncio.to_thread(
        registered.update_container_instances_state, containerInstances=[arn], status="DRAINING"
    )
    refused = await asyncio.to_thread(run, registered)
    await simulated_agent.bring_up(task)
    await asyncio.to_thread(
        registered.update_container_instances_state, containerInstances=[arn], status="ACTIVE"
    )
    accepted = await asyncio.to_thread(run, registered)

    assert changed["containerInstances"][0]["status"] == "DRAINING"
    assert reasons(refused) == [NO_CAPACITY]
    assert (await asyncio.to_thread(describe_task, registered, first))["lastStatus"] == "RUNNING"
    assert len(accepted["tasks"]) == 1


async def test_drained_instance_stays_drained_when_its_agent_registers_again(
    ecs: Any, simulated_agent: SimulatedAgent
) -> None:
    arn = simulated_agent.instance_arn
    await asyncio.to_thread(
        ecs.update_container_instances_state, containerInstances=[arn], status="DRAINING"
    )

    await simulated_agent.register()

    assert (await asyncio.to_thread(show, ecs, arn))["status"] == "DRAINING"


async def test_state_changes_only_between_active_and_draining(
    ecs: Any, simulated_agent: SimulatedAgent
) -> None:
    arn = simulated_agent.instance_arn

    with pytest.raises(ecs.exceptions.InvalidParameterException):
        await asyncio.to_thread(
            ecs.update_container_instances_state, containerInstances=[arn], status="DEREGISTERING"
        )
    await asyncio.to_thread(ecs.deregister_container_instance, containerInstance=arn)
    answer = await asyncio.to_thread(
        ecs.update_container_instances_state,
        containerInstances=[arn, UNKNOWN],
        status="ACTIVE",
    )

    assert answer["containerInstances"] == []
    assert {(item["arn"], item["reason"]) for item in answer["failures"]} == {
        (arn, "INACTIVE"),
        (UNKNOWN, "MISSING"),
    }


def test_at_most_10_instances_change_their_state_at_once(ecs: Any) -> None:
    with pytest.raises(ecs.exceptions.InvalidParameterException):
        ecs.update_container_instances_state(containerInstances=["0" * 32] * 11, status="DRAINING")


async def test_instance_with_tasks_is_only_deregistered_by_force(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    arn = simulated_agent.instance_arn
    tasks = (await asyncio.to_thread(run, registered, count=2))["tasks"]
    await simulated_agent.bring_up(await simulated_agent.take())

    with pytest.raises(ClientError, match=r"Found running tasks on the instance\."):
        await asyncio.to_thread(registered.deregister_container_instance, containerInstance=arn)
    answer = await asyncio.to_thread(
        registered.deregister_container_instance, containerInstance=arn, force=True
    )

    assert answer["containerInstance"]["status"] == "INACTIVE"
    assert answer["containerInstance"]["runningTasksCount"] == 0
    for made in tasks:
        task = await asyncio.to_thread(describe_task, registered, made["taskArn"])
        assert task["lastStatus"] == "STOPPED"
        assert task["stoppedReason"] == "The container instance was deregistered"
        assert task["attachments"][0]["status"] == "DELETED"


async def test_agent_that_was_deregistered_registers_as_another_without_its_tasks(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    arn = simulated_agent.instance_arn
    await asyncio.to_thread(run, registered)
    await simulated_agent.bring_up(await simulated_agent.take())
    await asyncio.to_thread(
        registered.deregister_container_instance, containerInstance=arn, force=True
    )

    await simulated_agent.wait_closed()
    await simulated_agent.disconnect()
    await simulated_agent.register()
    await simulated_agent.connect()

    assert simulated_agent.instance_arn != arn
    assert (await simulated_agent.receive(TaskManifestMessage)).tasks == ()


def test_unknown_instance_can_not_be_deregistered(ecs: Any) -> None:
    with pytest.raises(ecs.exceptions.InvalidParameterException, match="not found"):
        ecs.deregister_container_instance(containerInstance=UNKNOWN)


async def test_instance_for_one_task_is_retired_after_it_even_if_it_was_drained(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(
        start_control_plane, capacity_mode="one-task-per-instance", agent_grace_s=0.1
    )
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        arn = agent.instance_arn
        await asyncio.to_thread(run, ecs)
        task = await agent.take()
        await asyncio.to_thread(
            ecs.update_container_instances_state, containerInstances=[arn], status="DRAINING"
        )

        await agent.bring_up(task)
        await agent.bring_down(task, exit_code=0)

        assert (await asyncio.to_thread(show, ecs, arn))["status"] == "INACTIVE"


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        pytest.param("list_attributes", {"targetType": "container-instance"}, id="list"),
        pytest.param("put_attributes", {"attributes": [{"name": "a"}]}, id="put"),
        pytest.param("delete_attributes", {"attributes": [{"name": "a"}]}, id="delete"),
        pytest.param("submit_container_state_change", {"status": "RUNNING"}, id="container"),
        pytest.param("submit_attachment_state_changes", {"attachments": []}, id="attachment"),
    ],
)
def test_what_no_agent_here_uses_is_no_silent_success(
    operation: str, request_: dict[str, Any], ecs: Any
) -> None:
    with pytest.raises(ClientError) as refusal:
        getattr(ecs, operation)(**request_)

    assert kind_of(refusal) == "UnsupportedFeatureException"
