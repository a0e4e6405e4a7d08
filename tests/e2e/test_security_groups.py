"""Security groups of running tasks: changed by EC2's API, seen by packets between their ENIs.

The sockets are opened by the test in the network namespaces of real tasks.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from fargate_agent.network.namespaces import socket_in_netns
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.controlplane import make_ec2
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import Stack, make_stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root]

PORT: Final = 9000
DEADLINE_S: Final = 20
TRY_S: Final = 0.5
"""How long one connection is tried. What is dropped never answers."""


@dataclass
class Member:
    """A running task, and where it is."""

    arn: str
    address: str
    eni: str
    netns: Path


@dataclass
class Connection:
    """Both ends of a connection."""

    client: socket.socket
    server: socket.socket

    def is_alive(self) -> bool:
        """Whether both ends still hear each other."""
        ways = ((self.client, self.server), (self.server, self.client))
        return all(_is_passed(one, other) for one, other in ways)

    def close(self) -> None:
        self.client.close()
        self.server.close()


@dataclass
class Pair:
    """Two tasks, of which one is asked by the other."""

    client: Member
    server: Member
    listener: socket.socket
    group: str
    """The server's only one; nothing is allowed in."""
    ec2: Any
    stack: Stack

    def connect(self) -> "Connection | None":
        """Open a connection; None: nothing answers."""
        opened = socket_in_netns(self.client.netns, socket.AF_INET, socket.SOCK_STREAM)
        opened.settimeout(TRY_S)
        try:
            opened.connect((self.server.address, PORT))
        except TimeoutError:
            opened.close()
            return None
        self.listener.settimeout(DEADLINE_S)
        while True:
            accepted, peer = self.listener.accept()
            if peer == opened.getsockname():
                return Connection(opened, accepted)
            accepted.close()  # of a try that took too long

    def wait_until(self, *, reachable: bool) -> None:
        """Return when a new connection is answered, or isn't any more."""
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            connection = self.connect()
            if connection is not None:
                connection.close()
            if (connection is not None) == reachable:
                return
            assert time.monotonic() < deadline_s, f"reachable: {not reachable}"

    def allow(self, **source: Any) -> list[dict[str, Any]]:
        """Let the source reach the server's port; return what was allowed."""
        rule = [{"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, **source}]
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=rule)
        return rule


def _is_passed(sender: socket.socket, receiver: socket.socket) -> bool:
    receiver.settimeout(DEADLINE_S)
    sender.sendall(b"still there")
    return receiver.recv(64) == b"still there"


async def _run(stack: Stack, group: str) -> Member:
    arn = await asyncio.to_thread(
        stack.run, tool("app", "sleep 1000"), subnet="subnet-default", groups=[group]
    )
    task = await stack.wait_for(arn, "RUNNING")
    details = {d["name"]: d["value"] for d in task["attachments"][0]["details"]}
    return Member(
        arn=arn,
        address=details["privateIPv4Address"],
        eni=details["networkInterfaceId"],
        netns=stack.root / "netns" / f"fargate-{arn.rpartition('/')[2]}",
    )


@pytest.fixture
async def pair(
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    outside: tuple[Path, str],
    registry: FakeRegistry,
) -> AsyncIterator[Pair]:
    cached = {"FARGATE_AGENT_IMAGE_PULL_BEHAVIOR": "prefer-cached"}
    async with make_stack(tmp_path, private_containerd, outside, **cached) as stack:
        first = stack.run(tool("app", "true"))  # fetches the image
        with suppress(AssertionError):
            await stack.wait_for(first, "STOPPED")
        ec2 = make_ec2(stack.plane)
        made = ec2.create_security_group(
            GroupName="server", Description="server", VpcId="vpc-default"
        )
        server = await _run(stack, made["GroupId"])
        client = await _run(stack, "sg-default")
        with socket_in_netns(server.netns, socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind((server.address, PORT))
            listener.listen(128)
            yield Pair(client, server, listener, made["GroupId"], ec2, stack)


async def test_rule_that_is_added_and_taken_back_holds_for_running_tasks(pair: Pair) -> None:
    assert await asyncio.to_thread(pair.connect) is None

    rule = await asyncio.to_thread(pair.allow, UserIdGroupPairs=[{"GroupId": "sg-default"}])
    await asyncio.to_thread(pair.wait_until, reachable=True)
    kept = await asyncio.to_thread(pair.connect)
    assert kept is not None
    await asyncio.to_thread(
        pair.ec2.revoke_security_group_ingress, GroupId=pair.group, IpPermissions=rule
    )
    await asyncio.to_thread(pair.wait_until, reachable=False)

    assert await asyncio.to_thread(kept.is_alive)
    kept.close()


async def test_interface_that_joins_and_leaves_a_group_is_a_source_or_none(pair: Pair) -> None:
    made = await asyncio.to_thread(
        pair.ec2.create_security_group,
        GroupName="clients",
        Description="clients",
        VpcId="vpc-default",
    )
    await asyncio.to_thread(pair.allow, UserIdGroupPairs=[{"GroupId": made["GroupId"]}])
    assert await asyncio.to_thread(pair.connect) is None

    await asyncio.to_thread(
        pair.ec2.modify_network_interface_attribute,
        NetworkInterfaceId=pair.client.eni,
        Groups=["sg-default", made["GroupId"]],
    )
    await asyncio.to_thread(pair.wait_until, reachable=True)
    await asyncio.to_thread(
        pair.ec2.modify_network_interface_attribute,
        NetworkInterfaceId=pair.client.eni,
        Groups=["sg-default"],
    )
    await asyncio.to_thread(pair.wait_until, reachable=False)


async def test_groups_are_enforced_while_the_agent_is_away_and_by_the_next_one(
    pair: Pair,
) -> None:
    rule = await asyncio.to_thread(pair.allow, UserIdGroupPairs=[{"GroupId": "sg-default"}])
    await asyncio.to_thread(pair.wait_until, reachable=True)

    await asyncio.to_thread(pair.stack.agent.end)
    while_away = await asyncio.to_thread(pair.connect)
    await asyncio.to_thread(
        pair.ec2.revoke_security_group_ingress, GroupId=pair.group, IpPermissions=rule
    )
    pair.stack.agent.start()
    await asyncio.to_thread(pair.wait_until, reachable=False)

    assert while_away is not None
    assert await asyncio.to_thread(while_away.is_alive)
    while_away.close()


async def test_interface_that_is_asked_changes_its_groups_and_its_flows_go_on(pair: Pair) -> None:
    made = await asyncio.to_thread(
        pair.ec2.create_security_group, GroupName="open", Description="open", VpcId="vpc-default"
    )
    closed, pair.group = pair.group, made["GroupId"]
    await asyncio.to_thread(pair.allow, IpRanges=[{"CidrIp": "0.0.0.0/0"}])

    async def move(group: str) -> None:
        await asyncio.to_thread(
            pair.ec2.modify_network_interface_attribute,
            NetworkInterfaceId=pair.server.eni,
            Groups=[group],
        )

    assert await asyncio.to_thread(pair.connect) is None
    await move(made["GroupId"])
    await asyncio.to_thread(pair.wait_until, reachable=True)
    kept = await asyncio.to_thread(pair.connect)
    assert kept is not None
    await move(closed)
    await asyncio.to_thread(pair.wait_until, reachable=False)

    assert await asyncio.to_thread(kept.is_alive)
    kept.close()
    assert pair.stack.describe(pair.server.arn)["lastStatus"] == "RUNNING"
