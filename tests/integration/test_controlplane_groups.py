"""Security groups as an agent is told them with a task."""

import asyncio
from typing import Any

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import StartControlPlane
from tests.fixtures.ecs import FARGATE

WEB = {
    "id": "sg-web",
    "ingress": [
        {"protocol": "tcp", "from_port": 80, "to_port": 80, "cidrs": ["10.0.0.0/8", "fd00::/8"]},
        {"protocol": "tcp", "from_port": 80, "to_port": 80, "groups": ["sg-lb"]},
        {"protocol": "icmp", "from_port": 8, "groups": ["sg-web"]},
    ],
}
LB = {"id": "sg-lb", "egress": []}
LAN = {"id": "subnet-lan", "cidr": "192.168.57.0/24", "kind": "macvlan", "parent": "eth1"}
"""What goes there leaves the VPC: agents don't route to it."""
ROUTED = {"id": "subnet-routed", "cidr": "10.99.0.0/24", "nat": False}


async def test_task_comes_with_its_groups_and_those_that_their_rules_name(
    start_control_plane: StartControlPlane,
) -> None:
    plane = start_control_plane(security_groups=[WEB, LB], subnets=[LAN, ROUTED])
    client = plane.client()
    client.register_task_definition(**FARGATE)

    def run(subnet: str, *groups: str) -> dict[str, Any]:
        network = {"subnets": [subnet], "securityGroups": list(groups)}
        answer: dict[str, Any] = client.run_task(
            taskDefinition="web",
            launchType="FARGATE",
            networkConfiguration={"awsvpcConfiguration": network},
        )
        return answer

    async with SimulatedAgent(plane) as agent:
        await asyncio.to_thread(run, "subnet-default", "sg-lb")
        assert (await agent.take())["elasticNetworkInterfaces"][0]["nat"] is True
        await asyncio.to_thread(run, "subnet-routed", "sg-web")
        task = await agent.take()

    (eni,) = task["elasticNetworkInterfaces"]
    assert eni["securityGroups"] == ["sg-web"]
    assert eni["nat"] is False
    assert eni["vpcCidrBlocks"] == ["10.0.0.0/16", "10.99.0.0/24"]
    lb, web = task["securityGroups"]
    assert (lb["id"], lb["ingress"], lb["egress"], lb["members"]) == ("sg-lb", [], [], [])
    assert web["ingress"] == [
        {
            "protocol": "tcp",
            "fromPort": 80,
            "toPort": 80,
            "cidrs": ["10.0.0.0/8", "fd00::/8"],
            "groups": ["sg-lb"],
        },
        {"protocol": "icmp", "fromPort": 8, "toPort": -1, "cidrs": [], "groups": ["sg-web"]},
    ]
    assert web["egress"][0]["cidrs"] == ["0.0.0.0/0", "::/0"]


async def test_members_are_the_tasks_of_other_agents(
    start_control_plane: StartControlPlane,
) -> None:
    plane = start_control_plane()
    client = plane.client()
    client.register_task_definition(**FARGATE)
    network = {"awsvpcConfiguration": {"subnets": ["subnet-default"]}}

    client.create_cluster(clusterName="blue")

    def run(cluster: str) -> None:
        client.run_task(
            cluster=cluster,
            taskDefinition="web",
            launchType="FARGATE",
            networkConfiguration=network,
        )

    async with (
        SimulatedAgent(plane, serves=["default"]) as one,
        SimulatedAgent(plane, "blue", serves=["blue"]) as other,
    ):
        await asyncio.to_thread(run, "default")
        first = await one.take()
        await asyncio.to_thread(run, "blue")
        second = await other.take()

    (address,) = first["elasticNetworkInterfaces"][0]["ipv4Addresses"]
    members = [task["securityGroups"][0]["members"] for task in (first, second)]
    assert members == [[], [address["privateAddress"]]]
