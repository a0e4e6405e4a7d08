"""A task finds a service by its name, and its VPC by the resolver, from inside a container."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.controlplane import make_cloud_map
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import Stack, make_stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root]

DEADLINE_S = 60
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-default"]}}


@pytest.fixture
async def cached_stack(
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    outside: tuple[Path, str],
    registry: FakeRegistry,
) -> AsyncIterator[Stack]:
    """It has the image already: nothing in its VPC reaches the registry."""
    cached = {"FARGATE_AGENT_IMAGE_PULL_BEHAVIOR": "prefer-cached"}
    async with make_stack(tmp_path, private_containerd, outside, **cached) as stack:
        first = await asyncio.to_thread(stack.run, tool("app", "true"))
        with suppress(AssertionError):
            await stack.wait_for(first, "STOPPED")
        yield stack


async def test_container_reaches_a_service_by_its_name(cached_stack: Stack) -> None:
    stack = cached_stack
    cloud_map = make_cloud_map(stack.plane)
    started = cloud_map.create_private_dns_namespace(Name="local", Vpc="vpc-default")
    operation = cloud_map.get_operation(OperationId=started["OperationId"])["Operation"]
    named = cloud_map.create_service(
        Name="web",
        NamespaceId=operation["Targets"]["NAMESPACE"],
        DnsConfig={"DnsRecords": [{"Type": "A", "TTL": 1}]},
    )["Service"]
    stack.ecs.register_task_definition(
        family="web",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
        containerDefinitions=[tool("web", "httpd -f -p 8080 -h /www")],
    )
    stack.ecs.create_service(
        cluster="default",
        serviceName="web",
        taskDefinition="web",
        desiredCount=1,
        launchType="FARGATE",
        networkConfiguration=NETWORK,
        serviceRegistries=[{"registryArn": named["Arn"]}],
    )
    ask = "until wget -q -O - http://web.local:8080/; do sleep 0.2; done"
    script = f"cat /etc/resolv.conf; {ask}; nslookup $(cat /etc/hostname); sleep 1000"
    arn = await asyncio.to_thread(stack.run, tool("app", script), subnet="subnet-default")
    lines = await stack.wait_for_log(arn, "Address: 10.")
    own = (await asyncio.to_thread(stack.describe, arn))["attachments"][0]["details"]
    addresses = {one["name"]: one["value"] for one in own}

    await asyncio.to_thread(stack.ecs.delete_service, cluster="default", service="web", force=True)
    await asyncio.to_thread(stack.stop, arn)
    async with asyncio.timeout(DEADLINE_S):
        while (await asyncio.to_thread(stack.ecs.list_tasks, cluster="default"))["taskArns"]:
            await asyncio.sleep(0.05)

    told = "\n".join(lines)
    assert "hello from the web" in told
    assert "search ec2.internal" in told
    servers = [line for line in lines if "nameserver" in line]
    assert len(servers) == 1
    assert servers[0].endswith(".0.2")
    assert f"Address: {addresses['privateIPv4Address']}" in told
