"""Tasks as instances of Cloud Map, when agents are away, services change, or messages are lost."""

import asyncio
from typing import Any

import pytest

from fargate_agent.controlplane.agents import name_delivery
from fargate_agent.wire.messages import VpcNamesMessage
from tests.fixtures.agents import CheckedAgent, SimulatedAgent, at_work
from tests.fixtures.controlplane import ControlPlane, Pair, StartControlPlane, make_cloud_map
from tests.fixtures.discovery import (
    NAMESPACE,
    A,
    make_namespace,
    make_service,
    values_of,
    wait_for_names,
)
from tests.fixtures.ecs import (
    FARGATE,
    create_service,
    describe_service,
    running,
    wait_for_service,
)

WEB = f"web.{NAMESPACE}"
CHECKED = {
    **FARGATE,
    "containerDefinitions": [
        {"name": "app", "image": "busybox", "healthCheck": {"command": ["CMD", "true"]}}
    ],
}


def prepare(plane: ControlPlane, definition: Any = FARGATE, **more: Any) -> tuple[Any, Any, Any]:
    """Return clients of both APIs, and a service of Cloud Map."""
    ecs, cloudmap = plane.client(), make_cloud_map(plane)
    ecs.register_task_definition(**definition)
    return ecs, cloudmap, make_service(cloudmap, make_namespace(cloudmap), **more)


def health(cloudmap: Any, service: Any) -> dict[str, str]:
    found: dict[str, str] = cloudmap.get_instances_health_status(ServiceId=service["Id"])["Status"]
    return found


def ids(tasks: list[dict[str, Any]]) -> list[str]:
    return sorted(task["taskArn"][-32:] for task in tasks)


async def test_names_mean_healthy_tasks_and_all_if_none_is(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    ecs, cloudmap, service = await asyncio.to_thread(prepare, plane, CHECKED)
    registries = [{"registryArn": service["Arn"]}]
    async with CheckedAgent(plane, None) as agent:
        await asyncio.to_thread(create_service, ecs, serviceRegistries=registries)
        tasks = [await agent.take_over() for _ in range(2)]
        for task in tasks:
            await agent.bring_up(task)
        starting = await asyncio.to_thread(health, cloudmap, service)
        everyone = await wait_for_names(agent, lambda m: len(values_of(m, WEB)) == 2)
        await agent.report_health(tasks[0]["arn"], "HEALTHY")
        one = await wait_for_names(agent, lambda m: len(values_of(m, WEB)) == 1)
        passed = await asyncio.to_thread(health, cloudmap, service)

    assert set(starting.values()) == {"UNHEALTHY"}
    assert set(values_of(one, WEB)) < set(values_of(everyone, WEB))
    assert sorted(passed.values()) == ["HEALTHY", "UNHEALTHY"]
    assert passed[tasks[0]["arn"][-32:]] == "HEALTHY"


async def test_task_whose_agent_is_away_is_unhealthy(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fargate_agent.controlplane.agents.connections.LOOK_EVERY_S", 0.05)
    plane = await asyncio.to_thread(start_control_plane)
    ecs, cloudmap, service = await asyncio.to_thread(prepare, plane)
    registries = [{"registryArn": service["Arn"]}]
    async with SimulatedAgent(plane) as agent:
        await asyncio.to_thread(create_service, ecs, desiredCount=1, serviceRegistries=registries)
        task = await agent.take_over()
        await agent.bring_up(task)
        connected = await asyncio.to_thread(health, cloudmap, service)
        await agent.disconnect()
        while (away := await asyncio.to_thread(health, cloudmap, service)) == connected:
            await asyncio.sleep(0.02)
        await agent.connect()
        while await asyncio.to_thread(health, cloudmap, service) == away:
            await asyncio.sleep(0.02)

    assert list(connected.values()) == ["HEALTHY"]
    assert list(away.values()) == ["UNHEALTHY"]


async def test_changed_registries_replace_the_tasks(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    ecs, cloudmap, service = await asyncio.to_thread(prepare, plane)
    registry = {"registryArn": service["Arn"]}
    async with SimulatedAgent(plane) as agent, at_work(agent):
        await asyncio.to_thread(create_service, ecs, desiredCount=1)
        await asyncio.to_thread(wait_for_service, ecs, "services_stable")
        first = ids(await asyncio.to_thread(running, ecs))
        await asyncio.to_thread(ecs.update_service, service="web", serviceRegistries=[registry])
        await asyncio.to_thread(wait_for_service, ecs, "services_stable")
        found = await asyncio.to_thread(health, cloudmap, service)
        second = ids(await asyncio.to_thread(running, ecs))
        revision = (await asyncio.to_thread(describe_service, ecs))["currentServiceRevisions"][0]
        revisions = await asyncio.to_thread(
            ecs.describe_service_revisions, serviceRevisionArns=[revision["arn"]]
        )
        await asyncio.to_thread(ecs.update_service, service="web", serviceRegistries=[])
        await asyncio.to_thread(wait_for_service, ecs, "services_stable")
        none = await asyncio.to_thread(health, cloudmap, service)

    assert first != second
    assert list(found) == second
    assert revisions["serviceRevisions"][0]["serviceRegistries"] == [registry]
    assert none == {}


async def test_names_that_are_not_acknowledged_are_sent_again_as_they_are_then(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_delivery, "GATHER_S", 0.01)
    plane = await asyncio.to_thread(start_control_plane, resend_s=0.2)
    cloudmap = make_cloud_map(plane)
    service = await asyncio.to_thread(
        lambda: make_service(cloudmap, make_namespace(cloudmap), records=[A])
    )
    async with SimulatedAgent(plane) as agent:
        first = await agent.receive(VpcNamesMessage)
        again = await agent.receive(VpcNamesMessage)
        await asyncio.to_thread(
            cloudmap.register_instance,
            ServiceId=service["Id"],
            InstanceId="one",
            Attributes={"AWS_INSTANCE_IPV4": "10.9.0.1"},
        )
        named = await wait_for_names(agent, lambda m: values_of(m, WEB) == ("10.9.0.1",))
        await agent.disconnect()
        await agent.connect()
        whole = await agent.receive(VpcNamesMessage)

    assert (again.vpcs, again.message_id != first.message_id) == (first.vpcs, True)
    assert whole.vpcs == named.vpcs


@pytest.mark.root
async def test_agent_is_told_what_another_process_has_changed(pair: Pair) -> None:
    one, two = await asyncio.to_thread(pair.start)
    cloudmap = make_cloud_map(one)
    async with SimulatedAgent(two) as agent:
        await wait_for_names(agent, lambda m: not m.vpcs)
        await asyncio.to_thread(make_namespace, cloudmap)
        named = await wait_for_names(agent, lambda m: bool(m.vpcs))

    assert [zone.name for vpc in named.vpcs for zone in vpc.zones] == [NAMESPACE]
