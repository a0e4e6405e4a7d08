"""Tasks of services are registered with Cloud Map, and agents are told their names."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fargate_agent.wire.messages import VpcNamesMessage
from tests.fixtures.agents import SimulatedAgent, at_work
from tests.fixtures.controlplane import (
    DEADLINE_S,
    ControlPlane,
    StartControlPlane,
    make_cloud_map,
)
from tests.fixtures.ecs import FARGATE, NETWORK

VPC = "vpc-default"
CHECKED = {
    **FARGATE,
    "containerDefinitions": [
        {
            "name": "app",
            "image": "busybox",
            "portMappings": [{"containerPort": 8080}],
            "healthCheck": {"command": ["CMD", "true"]},
        }
    ],
}
Named = dict[tuple[str, str], tuple[str, ...]]


class Registry:
    """A control plane with one service of Cloud Map, `web.local`."""

    def __init__(self, plane: ControlPlane, *kinds: str, **more: Any) -> None:
        self.plane, self.ecs = plane, plane.client()
        self.cloud_map = make_cloud_map(plane)
        self.ecs.register_task_definition(**CHECKED)
        started = self.cloud_map.create_private_dns_namespace(Name="local", Vpc=VPC)
        operation = self.cloud_map.get_operation(OperationId=started["OperationId"])
        records = [{"Type": kind, "TTL": 10} for kind in kinds or ("A",)]
        self.service = self.cloud_map.create_service(
            Name="web",
            NamespaceId=operation["Operation"]["Targets"]["NAMESPACE"],
            DnsConfig={"DnsRecords": records},
            **more,
        )["Service"]

    def create(self, count: int = 1, **registry: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.ecs.create_service(
            serviceName="web",
            taskDefinition="web",
            desiredCount=count,
            launchType="FARGATE",
            networkConfiguration=NETWORK,
            serviceRegistries=[{"registryArn": self.service["Arn"], **registry}],
        )["service"]
        return made

    def instances(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cloud_map.list_instances(ServiceId=self.service["Id"])[
            "Instances"
        ]
        return found

    async def wait_instances(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(DEADLINE_S):
            while len(found := await asyncio.to_thread(self.instances)) != count:
                await asyncio.sleep(0.02)
        return found


def read(message: VpcNamesMessage) -> Named:
    return {
        (record.name, record.type): record.values
        for vpc in message.vpcs
        for zone in vpc.zones
        for record in zone.records
    }


async def wait_names(agent: SimulatedAgent, names: Named) -> None:
    """Return when an agent is told just these names."""
    async with asyncio.timeout(DEADLINE_S):
        told: Named | None = None
        while told != names:
            message = await agent.receive(VpcNamesMessage)
            await agent.ack(message)
            told = read(message)


@asynccontextmanager
async def listener(plane: ControlPlane) -> AsyncIterator[SimulatedAgent]:
    """An agent that takes no tasks and is told names."""
    async with SimulatedAgent(plane) as agent:
        await asyncio.to_thread(
            plane.client().update_container_instances_state,
            containerInstances=[agent.instance_arn],
            status="DRAINING",
        )
        yield agent


@pytest.fixture
def registry(start_control_plane: StartControlPlane) -> Registry:
    return Registry(start_control_plane(), HealthCheckCustomConfig={"FailureThreshold": 1})


async def test_task_of_a_service_is_an_instance_while_it_runs(registry: Registry) -> None:
    async with SimulatedAgent(registry.plane) as agent, at_work(agent):
        service = await asyncio.to_thread(registry.create)
        (instance,) = await registry.wait_instances(1)
        (arn,) = await asyncio.to_thread(lambda: registry.ecs.list_tasks()["taskArns"])
        await asyncio.to_thread(registry.ecs.update_service, service="web", desiredCount=0)
        await registry.wait_instances(0)

    assert service["serviceRegistries"] == [{"registryArn": registry.service["Arn"]}]
    assert instance["Id"] == arn.rpartition("/")[2]
    told = {**instance["Attributes"]}
    address = told.pop("AWS_INSTANCE_IPV4")
    assert address.startswith("10.")
    assert told == {
        "AVAILABILITY_ZONE": "us-east-1a",
        "ECS_CLUSTER_NAME": "default",
        "ECS_SERVICE_NAME": "web",
        "ECS_TASK_DEFINITION_FAMILY": "web",
        "REGION": "us-east-1",
    }


async def test_agents_are_told_the_names_of_healthy_tasks(registry: Registry) -> None:
    async with (
        listener(registry.plane) as told,
        SimulatedAgent(registry.plane) as agent,
        at_work(agent),
    ):
        await wait_names(told, {})
        await asyncio.to_thread(registry.create, 2)
        instances = await registry.wait_instances(2)
        addresses = {one["Id"]: one["Attributes"]["AWS_INSTANCE_IPV4"] for one in instances}
        tasks = {arn[-32:]: arn for arn in registry.ecs.list_tasks()["taskArns"]}
        one, other = sorted(addresses)
        await agent.report_health(tasks[one], "HEALTHY")
        await wait_names(told, {("web.local", "A"): (addresses[one],)})
        await agent.report_health(tasks[other], "HEALTHY")
        await wait_names(told, {("web.local", "A"): (addresses[one], addresses[other])})
        await agent.report_health(tasks[one], "UNHEALTHY")
        await wait_names(told, {("web.local", "A"): (addresses[other],)})


async def test_srv_records_name_a_port_and_each_task(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    registry = await asyncio.to_thread(Registry, plane, "SRV")
    async with listener(plane) as told, SimulatedAgent(plane) as agent, at_work(agent):
        await asyncio.to_thread(registry.create, containerName="app", containerPort=8080)
        (instance,) = await registry.wait_instances(1)
        target = f"{instance['Id']}.web.local"
        await wait_names(
            told,
            {
                ("web.local", "SRV"): (f"1 1 8080 {target}",),
                (target, "A"): (instance["Attributes"]["AWS_INSTANCE_IPV4"],),
            },
        )


async def test_agent_that_connects_is_told_all_names(registry: Registry) -> None:
    service = registry.service["Id"]
    await asyncio.to_thread(
        registry.cloud_map.register_instance,
        ServiceId=service,
        InstanceId="db",
        Attributes={"AWS_INSTANCE_IPV4": "10.0.9.9"},
    )
    async with SimulatedAgent(registry.plane) as agent:
        await wait_names(agent, {("web.local", "A"): ("10.0.9.9",)})
        await asyncio.to_thread(
            registry.cloud_map.deregister_instance, ServiceId=service, InstanceId="db"
        )
        await wait_names(agent, {})


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"registryArn": "arn:aws:servicediscovery:x"}, id="no such registry"),
        pytest.param({"containerName": "app"}, id="no container port"),
        pytest.param({"containerName": "app", "containerPort": 1}, id="not mapped"),
        pytest.param({"port": 70_000}, id="no port"),
        pytest.param({"port": 80, "containerName": "app", "containerPort": 8080}, id="port twice"),
    ],
)
def test_registry_that_cannot_be_is_refused(registry: Registry, given: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as refusal:
        registry.create(**given)

    assert refusal.value.response["Error"]["Code"] == "InvalidParameterException"


def test_registry_that_a_service_uses_is_not_deleted(registry: Registry) -> None:
    registry.create(0)

    with pytest.raises(ClientError) as refusal:
        registry.cloud_map.delete_service(Id=registry.service["Id"])

    assert refusal.value.response["Error"]["Code"] == "ResourceInUse"
