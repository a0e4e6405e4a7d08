"""Tasks of services are instances of Cloud Map while they run, and agents are told their names."""

import asyncio
from typing import Any

import pytest

from fargate_agent.controlplane.agents import name_delivery
from fargate_agent.wire.messages import VpcNamesMessage
from tests.fixtures.agents import CheckedAgent, SimulatedAgent, at_work
from tests.fixtures.controlplane import ControlPlane, Pair, StartControlPlane, make_discovery
from tests.fixtures.discovery import (
    NAMESPACE,
    SRV,
    VPC,
    A,
    make_namespace,
    make_service,
    records_of,
    values_of,
    wait_for_names,
)
from tests.fixtures.ecs import (
    FARGATE,
    create_service,
    describe_service,
    refusal,
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
WITH_PORT = {
    **FARGATE,
    "containerDefinitions": [
        {"name": "app", "image": "busybox", "portMappings": [{"containerPort": 8080}]}
    ],
}


def prepare(plane: ControlPlane, definition: Any = FARGATE, **more: Any) -> tuple[Any, Any, Any]:
    """Return clients of both APIs, and a service of Cloud Map."""
    ecs, cloudmap = plane.client(), make_discovery(plane)
    ecs.register_task_definition(**definition)
    return ecs, cloudmap, make_service(cloudmap, make_namespace(cloudmap), **more)


def health(cloudmap: Any, service: Any) -> dict[str, str]:
    found: dict[str, str] = cloudmap.get_instances_health_status(ServiceId=service["Id"])["Status"]
    return found


def ids(tasks: list[dict[str, Any]]) -> list[str]:
    return sorted(task["taskArn"][-32:] for task in tasks)


def addresses(tasks: list[dict[str, Any]]) -> list[str]:
    found = [{d["name"]: d["value"] for d in t["attachments"][0]["details"]} for t in tasks]
    return sorted(details["privateIPv4Address"] for details in found)


async def test_tasks_of_a_service_are_found_while_they_run(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    ecs, cloudmap, service = await asyncio.to_thread(prepare, plane)
    async with SimulatedAgent(plane) as agent:
        registry = {"registryArn": service["Arn"]}
        created = await asyncio.to_thread(create_service, ecs, serviceRegistries=[registry])
        tasks = [await agent.take_over() for _ in range(2)]
        early = await asyncio.to_thread(health, cloudmap, service)
        used = await asyncio.to_thread(refusal, cloudmap.delete_service, Id=service["Id"])
        for task in tasks:
            await agent.bring_up(task)
        shown = await asyncio.to_thread(running, ecs)
        named = await wait_for_names(agent, lambda m: len(values_of(m, WEB)) == 2)
        found = await asyncio.to_thread(
            cloudmap.discover_instances, NamespaceName=NAMESPACE, ServiceName="web"
        )
        await asyncio.to_thread(ecs.stop_task, task=tasks[0]["arn"])
        late = await asyncio.to_thread(health, cloudmap, service)
        fewer = await wait_for_names(agent, lambda m: len(values_of(m, WEB)) == 1)
        described = await asyncio.to_thread(describe_service, ecs)
        await asyncio.to_thread(ecs.delete_service, service="web", force=True)
        await wait_for_names(agent, lambda m: not values_of(m, WEB))
        await asyncio.to_thread(cloudmap.delete_service, Id=service["Id"])

    assert created["serviceRegistries"] == described["serviceRegistries"] == [registry]
    assert (early, used[0]) == ({}, "ResourceInUse")
    assert sorted(values_of(named, WEB)) == addresses(shown)
    assert records_of(named)[WEB, "A"].ttl_s == 10
    assert [vpc.vpc_id for vpc in named.vpcs] == [VPC]
    assert sorted(one["InstanceId"] for one in found["Instances"]) == ids(shown)
    attributes = found["Instances"][0]["Attributes"]
    assert attributes.pop("AWS_INSTANCE_IPV4") in addresses(shown)
    assert attributes == {
        "AVAILABILITY_ZONE": "us-east-1a",
        "ECS_CLUSTER_NAME": "default",
        "ECS_SERVICE_NAME": "web",
        "ECS_TASK_DEFINITION_FAMILY": "web",
        "REGION": "us-east-1",
    }
    assert list(late) == [tasks[1]["arn"][-32:]]
    assert values_of(fewer, WEB) != values_of(named, WEB)


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


async def test_srv_records_lead_to_the_names_of_tasks(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    ecs, _, service = await asyncio.to_thread(
        prepare, plane, WITH_PORT, name="_http._tcp", records=[SRV]
    )
    registry = {"registryArn": service["Arn"], "containerName": "app", "containerPort": 8080}
    async with SimulatedAgent(plane) as agent:
        await asyncio.to_thread(create_service, ecs, desiredCount=1, serviceRegistries=[registry])
        task = await agent.take_over()
        await agent.bring_up(task)
        name = f"_http._tcp.{NAMESPACE}"
        named = await wait_for_names(agent, lambda m: bool(values_of(m, name, "SRV")))
        shown = await asyncio.to_thread(running, ecs)

    target = f"{task['arn'][-32:]}.{name}"
    assert values_of(named, name, "SRV") == (f"1 1 8080 {target}",)
    assert list(values_of(named, target)) == addresses(shown)


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


async def test_task_can_be_taken_out_of_its_service_by_hand(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    ecs, cloudmap, service = await asyncio.to_thread(prepare, plane)
    registries = [{"registryArn": service["Arn"]}]
    async with SimulatedAgent(plane) as agent:
        await asyncio.to_thread(create_service, ecs, desiredCount=1, serviceRegistries=registries)
        await agent.bring_up(task := await agent.take_over())
        of_task = {"ServiceId": service["Id"], "InstanceId": task["arn"][-32:]}
        kept = await asyncio.to_thread(
            refusal,
            cloudmap.register_instance,
            **of_task,
            Attributes={"AWS_INSTANCE_IPV4": "10.9.9.9"},
        )
        await asyncio.to_thread(
            cloudmap.update_instance_custom_health_status, **of_task, Status="UNHEALTHY"
        )
        marked = await asyncio.to_thread(health, cloudmap, service)
        await asyncio.to_thread(cloudmap.deregister_instance, **of_task)
        none = await asyncio.to_thread(health, cloudmap, service)

    assert kept[0] == "ResourceInUse"
    assert (list(marked.values()), none) == (["UNHEALTHY"], {})


async def test_service_says_when_its_registry_is_gone(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    ecs, cloudmap, service = await asyncio.to_thread(prepare, plane)
    registries = [{"registryArn": service["Arn"]}]
    await asyncio.to_thread(create_service, ecs, desiredCount=0, serviceRegistries=registries)
    await asyncio.to_thread(cloudmap.delete_service, Id=service["Id"])
    await asyncio.to_thread(ecs.update_service, service="web", desiredCount=1)
    async with SimulatedAgent(plane):
        while not (said := (await asyncio.to_thread(describe_service, ecs))["events"]) or (
            "place" not in said[0]["message"]
        ):
            await asyncio.sleep(0.02)

    assert said[0]["message"].endswith(f"The service registry does not exist: {service['Arn']}.")


async def test_names_that_are_not_acknowledged_are_sent_again_as_they_are_then(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_delivery, "GATHER_S", 0.01)
    plane = await asyncio.to_thread(start_control_plane, resend_s=0.2)
    cloudmap = make_discovery(plane)
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
    cloudmap = make_discovery(one)
    async with SimulatedAgent(two) as agent:
        await wait_for_names(agent, lambda m: not m.vpcs)
        await asyncio.to_thread(make_namespace, cloudmap)
        named = await wait_for_names(agent, lambda m: bool(m.vpcs))

    assert [zone.name for vpc in named.vpcs for zone in vpc.zones] == [NAMESPACE]
