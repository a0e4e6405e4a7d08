"""What a real task is told by its metadata endpoint, and what the control plane is told by it."""

import asyncio
import json
import re

import pytest

from tests.fixtures.stack import DEADLINE_S, Stack, tool
from tests.fixtures.tmds import fetch

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(120)]

SERVERS = re.compile(r"nameserver (\S+)")


async def begin_service(stack: Stack) -> str:
    """Run a task of a service; return its ARN when it is RUNNING."""
    script = (
        "echo id ${ECS_CONTAINER_METADATA_URI_V4##*/}; head -c 8388608 /dev/zero > /big;"
        "head -c 4194304 /dev/zero > /data/big; cat /etc/resolv.conf; echo ready; sleep 1000"
    )
    stack.ecs.register_task_definition(
        family="told",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
        taskRoleArn="arn:aws:iam::123456789012:role/app",
        volumes=[{"name": "data"}],
        containerDefinitions=[
            tool("main", script, mountPoints=[{"sourceVolume": "data", "containerPath": "/data"}])
        ],
    )
    stack.ecs.create_service(
        serviceName="told",
        taskDefinition="told",
        desiredCount=1,
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-outside"]}},
    )
    async with asyncio.timeout(DEADLINE_S):
        while not (arns := stack.ecs.list_tasks(serviceName="told")["taskArns"]):
            await asyncio.sleep(0.05)
    arn = str(arns[0])
    await stack.wait_for(arn, "RUNNING")
    return arn


@pytest.mark.usefixtures("registry")
async def test_task_learns_what_is_so_and_protects_itself(stack: Stack) -> None:
    arn = await begin_service(stack)
    lines = await stack.wait_for_log(arn, "main: ready")
    metadata_id = lines[0].rpartition(" ")[2]
    netns = stack.root / "netns" / f"fargate-{arn.rpartition('/')[2]}"
    base, state = f"/v4/{metadata_id}", f"/api/{metadata_id}/task-protection/v1/state"
    stack.ecs.tag_resource(resourceArn=arn, tags=[{"key": "team", "value": "blue"}])

    task = (await fetch(netns, f"{base}/taskWithTags")).json
    stats = (await fetch(netns, f"{base}/stats")).json
    before = (await fetch(netns, state)).json
    wanted = json.dumps({"ProtectionEnabled": True, "ExpiresInMinutes": 5}).encode()
    changed = await fetch(netns, state, "PUT", wanted)
    (protected,) = stack.ecs.get_task_protection(cluster="default", tasks=[arn])["protectedTasks"]

    assert task["TaskTags"] == {"team": "blue"}
    assert not {"VPCID", "ServiceName", "Errors"} & task.keys()
    (network,) = task["Containers"][0]["Networks"]
    assert network.get("DomainNameServers", []) == SERVERS.findall("\n".join(lines))
    used_mib = task["EphemeralStorageMetrics"]["Utilized"]
    assert 12 <= used_mib <= 14, "what it wrote, without its image"
    assert stats["precpu_stats"]["system_cpu_usage"] < stats["cpu_stats"]["system_cpu_usage"]
    assert before == {"protection": {"ProtectionEnabled": False, "TaskArn": arn}}
    assert (changed.status, changed.json["protection"]["ProtectionEnabled"]) == (200, True)
    assert protected["protectionEnabled"]
    stack.ecs.delete_service(service="told", force=True)
