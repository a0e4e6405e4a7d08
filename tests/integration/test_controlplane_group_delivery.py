"""Security groups reach the agents whose tasks need them, as they are now."""

import asyncio
from typing import Any

from fargate_agent.wire.messages import (
    PayloadMessage,
    SecurityGroupsMessage,
    TaskManifestMessage,
)
from fargate_agent.wire.security_groups import SecurityGroupRule
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane, make_ec2
from tests.fixtures.ecs import FARGATE, run

DEFAULT = "sg-default"


def web(port: int, **source: Any) -> list[dict[str, Any]]:
    source = source or {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    return [{"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **source}]


async def allow(ec2: Any, port: int) -> None:
    """Let TCP to a port into the default group."""
    await asyncio.to_thread(
        ec2.authorize_security_group_ingress, GroupId=DEFAULT, IpPermissions=web(port)
    )


async def take_groups(agent: SimulatedAgent) -> SecurityGroupsMessage:
    message = await agent.receive(SecurityGroupsMessage)
    await agent.ack(message)
    return message


def ports(message: SecurityGroupsMessage) -> list[int]:
    (group,) = message.groups
    return [rule.from_port for rule in group.ingress if rule.protocol == "tcp"]


async def start(plane: ControlPlane, agent: SimulatedAgent) -> dict[str, Any]:
    """Run a task, and return it as the agent is told it."""
    job = asyncio.create_task(asyncio.to_thread(run, plane.client()))
    task = await agent.take()
    await job
    return task


async def test_connected_agent_is_told_all_groups_and_then_what_changes(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    ec2 = make_ec2(plane)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        first = await take_groups(agent)
        task = await start(plane, agent)
        await allow(ec2, 8080)
        changed = await take_groups(agent)
        await agent.disconnect()
        await agent.connect()
        again = await take_groups(agent)

    assert (first.is_whole, first.groups) == (True, ())
    assert [group["id"] for group in task["securityGroups"]] == [DEFAULT]
    assert (changed.is_whole, ports(changed)) == (False, [8080])
    assert (again.is_whole, ports(again)) == (True, [8080])


async def test_tasks_of_one_agent_come_without_a_message_about_groups(
    start_control_plane: StartControlPlane,
) -> None:
    """It knows its own: between two tasks there is only what was changed after them."""
    plane = await asyncio.to_thread(start_control_plane)
    ec2 = make_ec2(plane)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        await take_groups(agent)
        await start(plane, agent)
        await start(plane, agent)
        await allow(ec2, 1)
        first = await take_groups(agent)
        await start(plane, agent)
        await start(plane, agent)
        await allow(ec2, 2)
        following = await take_groups(agent)

    assert (ports(first), ports(following)) == ([1], [1, 2])
    assert following.groups[0].members == ()


async def test_each_agent_is_told_the_members_that_others_have(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as one:
        await take_groups(one)
        first = await start(plane, one)
        async with SimulatedAgent(plane) as other:
            await take_groups(other)
            await asyncio.to_thread(
                plane.client().update_container_instances_state,
                containerInstances=[one.instance_arn],
                status="DRAINING",
            )
            second = await start(plane, other)
            told = await take_groups(one)

    (group,) = told.groups
    assert [str(address) for address in group.members] == [address_of(second)]
    assert second["securityGroups"][0]["members"] == [address_of(first)]


async def test_task_repeats_no_large_group_that_its_agent_knows(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as one:
        for _ in range(7):
            await asyncio.to_thread(run, ecs, count=10)
        for _ in range(70):
            await one.take()
        await asyncio.to_thread(
            ecs.update_container_instances_state,
            containerInstances=[one.instance_arn],
            status="DRAINING",
        )
        async with SimulatedAgent(plane) as other:
            await take_groups(other)
            first = await start(plane, other)
            second = await start(plane, other)

    brought = [len(group["members"]) for group in first["securityGroups"]]
    pushed = [len(group.members) for message in other.pushed for group in message.groups]
    assert set(brought + pushed) == {70}  # a push may be there before the task
    assert second["securityGroups"] == []


def address_of(task: dict[str, Any]) -> str:
    (eni,) = task["elasticNetworkInterfaces"]
    (address,) = eni["ipv4Addresses"]
    return str(address["privateAddress"])


async def test_change_that_is_not_acknowledged_is_sent_again_as_it_is_then(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, resend_s=0.3)
    ec2 = make_ec2(plane)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        await take_groups(agent)
        await start(plane, agent)
        await allow(ec2, 1)
        unacked = await agent.receive(SecurityGroupsMessage)
        await allow(ec2, 2)
        while (later := await agent.receive(SecurityGroupsMessage)).groups == unacked.groups:
            pass

    assert (ports(unacked), ports(later)) == ([1], [1, 2])


async def test_state_that_a_task_brought_is_followed_by_that_of_before_if_it_holds_again(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    ec2 = make_ec2(plane)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        await take_groups(agent)
        await start(plane, agent)
        await allow(ec2, 1)
        pushed = await agent.receive(SecurityGroupsMessage)
        await allow(ec2, 2)
        brought = await start(plane, agent)
        await asyncio.to_thread(
            ec2.revoke_security_group_ingress, GroupId=DEFAULT, IpPermissions=web(2)
        )
        await agent.ack(pushed)
        following = await take_groups(agent)

    assert ports(pushed) == [1]
    (group,) = brought["securityGroups"]
    assert [rule["fromPort"] for rule in group["ingress"] if rule["protocol"] == "tcp"] == [1, 2]
    assert ports(following) == [1]


async def test_acknowledgement_of_earlier_groups_is_none_of_later_ones(
    start_control_plane: StartControlPlane,
) -> None:
    """A task whose groups have changed while its message was on its way goes out again at once."""
    plane = await asyncio.to_thread(start_control_plane, resend_s=0.3)
    ec2 = make_ec2(plane)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    made = await asyncio.to_thread(
        ec2.create_security_group, GroupName="web", Description="web", VpcId="vpc-default"
    )
    async with SimulatedAgent(plane) as agent:
        await take_groups(agent)
        job = asyncio.create_task(asyncio.to_thread(run, plane.client()))
        first = await agent.receive(PayloadMessage)
        await job
        (eni,) = first.tasks[0]["elasticNetworkInterfaces"]
        await asyncio.to_thread(
            ec2.modify_network_interface_attribute,
            NetworkInterfaceId=eni["ec2Id"],
            Groups=[made["GroupId"]],
        )
        later = await agent.receive(PayloadMessage)
        while later.message_id == first.message_id:  # sent before the change
            later = await agent.receive(PayloadMessage)
        await agent.ack(first)
        again = await agent.receive(PayloadMessage)  # for the ack was not of it

    assert again.message_id == later.message_id
    assert again.tasks[0]["elasticNetworkInterfaces"][0]["securityGroups"] == [made["GroupId"]]


async def test_task_whose_interface_changes_groups_is_sent_again(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    ec2 = make_ec2(plane)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    made = await asyncio.to_thread(
        ec2.create_security_group, GroupName="web", Description="web", VpcId="vpc-default"
    )
    await asyncio.to_thread(
        ec2.authorize_security_group_ingress, GroupId=made["GroupId"], IpPermissions=web(80)
    )
    async with SimulatedAgent(plane) as agent:
        await take_groups(agent)
        task = await start(plane, agent)
        (eni,) = task["elasticNetworkInterfaces"]
        await asyncio.to_thread(
            ec2.modify_network_interface_attribute,
            NetworkInterfaceId=eni["ec2Id"],
            Groups=[made["GroupId"]],
        )
        again = (await agent.receive(PayloadMessage)).tasks[0]

    assert again["arn"] == task["arn"]
    assert again["elasticNetworkInterfaces"][0]["securityGroups"] == [made["GroupId"]]
    (group,) = again["securityGroups"]
    assert group["id"] == made["GroupId"]
    (rule,) = group["ingress"]
    assert SecurityGroupRule.model_validate(rule).from_port == 80


async def test_change_waits_for_no_acknowledgement_of_the_one_before(
    start_control_plane: StartControlPlane,
) -> None:
    """An agent that can't enforce one group is told of all others."""
    plane = await asyncio.to_thread(start_control_plane)  # where nothing is sent again for 10 s
    ec2 = make_ec2(plane)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    async with SimulatedAgent(plane) as agent:
        await take_groups(agent)
        await start(plane, agent)
        await allow(ec2, 1)
        unacked = await agent.receive(SecurityGroupsMessage)
        agent.deadline_s = 5
        await asyncio.to_thread(
            ec2.revoke_security_group_ingress, GroupId=DEFAULT, IpPermissions=web(1)
        )
        later = await take_groups(agent)

    assert (ports(unacked), ports(later)) == ([1], [])


async def test_task_whose_change_is_on_its_way_is_what_its_agent_answers_for(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane)
    ec2 = make_ec2(plane)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    made = await asyncio.to_thread(
        ec2.create_security_group, GroupName="web", Description="web", VpcId="vpc-default"
    )
    async with SimulatedAgent(plane) as agent:
        task = await start(plane, agent)
        await agent.wait_taken(task["arn"])
        await agent.disconnect()
        (eni,) = task["elasticNetworkInterfaces"]
        await asyncio.to_thread(
            ec2.modify_network_interface_attribute,
            NetworkInterfaceId=eni["ec2Id"],
            Groups=[made["GroupId"]],
        )
        await agent.connect()
        manifest = await agent.receive(TaskManifestMessage)
        again = await agent.take()

    assert [one.task_arn for one in manifest.tasks] == [task["arn"]]
    assert again["elasticNetworkInterfaces"][0]["securityGroups"] == [made["GroupId"]]
