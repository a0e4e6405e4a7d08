"""Security groups that are changed while tasks are launched, and by several control planes."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, Pair, StartControlPlane, make_ec2
from tests.fixtures.ecs import FARGATE

HTTP = {
    "IpProtocol": "tcp",
    "FromPort": 80,
    "ToPort": 80,
    "IpRanges": [{"CidrIp": "10.0.0.0/8"}],
}


@pytest.fixture
def plane(start_control_plane: StartControlPlane) -> ControlPlane:
    plane = start_control_plane()
    plane.client().register_task_definition(**FARGATE)
    return plane


@pytest.fixture
def ec2(plane: ControlPlane) -> Any:
    return make_ec2(plane)


def make_group(ec2: Any, name: str) -> str:
    id_: str = ec2.create_security_group(GroupName=name, Description=name)["GroupId"]
    return id_


def describe(ec2: Any, group: str) -> dict[str, Any]:
    (found,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    return dict(found)


def run(plane: ControlPlane, *groups: str) -> dict[str, Any]:
    network = {"subnets": ["subnet-default"], "securityGroups": list(groups)}
    answer: dict[str, Any] = plane.client().run_task(
        taskDefinition="web",
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": network},
    )
    return answer


async def test_rule_is_told_whether_it_comes_before_a_launch_or_beside_it(
    plane: ControlPlane, ec2: Any
) -> None:
    groups = [await asyncio.to_thread(make_group, ec2, f"g{number}") for number in range(4)]
    async with SimulatedAgent(plane) as agent:

        async def change(group: str) -> None:
            await asyncio.to_thread(
                make_ec2(plane).authorize_security_group_ingress,
                GroupId=group,
                IpPermissions=[HTTP],
            )

        async with asyncio.TaskGroup() as jobs:
            for group in groups:
                jobs.create_task(change(group))
                jobs.create_task(asyncio.to_thread(run, plane, group))
        tasks = [await agent.take() for _ in groups]

    for task in tasks:
        (told,) = task["securityGroups"]
        (eni,) = task["elasticNetworkInterfaces"]
        assert eni["securityGroups"] == [told["id"]]
        assert [rule["cidrs"] for rule in told["ingress"]] in ([], [["10.0.0.0/8"]])
    for group in groups:
        assert len(describe(ec2, group)["IpPermissions"]) == 1


async def test_group_is_deleted_or_used_but_not_both(plane: ControlPlane, ec2: Any) -> None:
    groups = [await asyncio.to_thread(make_group, ec2, f"g{number}") for number in range(6)]

    async def code_of(call: Callable[..., Any], *asked: Any, **request: Any) -> str:
        try:
            await asyncio.to_thread(call, *asked, **request)
        except ClientError as error:
            answer: Any = error.response
            return str(answer["Error"]["Code"])
        return "done"

    async with SimulatedAgent(plane), asyncio.TaskGroup() as jobs:
        ends = [
            (
                jobs.create_task(code_of(run, plane, group)),
                jobs.create_task(code_of(make_ec2(plane).delete_security_group, GroupId=group)),
            )
            for group in groups
        ]

    for launched, deleted in ends:
        assert (launched.result(), deleted.result()) in (
            ("done", "DependencyViolation"),
            ("InvalidParameterException", "done"),
        )
    enis = ec2.describe_network_interfaces()["NetworkInterfaces"]
    known = {group["GroupId"] for group in ec2.describe_security_groups()["SecurityGroups"]}
    assert {group["GroupId"] for eni in enis for group in eni["Groups"]} <= known


@pytest.mark.timeout(120)  # processes of PostgreSQL and of control planes start
async def test_what_one_control_plane_makes_holds_at_once_for_the_other(pair: Pair) -> None:
    one, other = await asyncio.to_thread(pair.start)
    ec2 = make_ec2(one)
    await asyncio.to_thread(one.client().register_task_definition, **FARGATE)
    async with SimulatedAgent(other) as agent:
        for number in range(3):
            group = await asyncio.to_thread(make_group, ec2, f"g{number}")
            await asyncio.to_thread(
                ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[HTTP]
            )
            await asyncio.to_thread(run, other, group)
            task = await agent.take()
            (told,) = [one for one in task["securityGroups"] if one["id"] == group]
            assert told["ingress"][0]["cidrs"] == ["10.0.0.0/8"]
