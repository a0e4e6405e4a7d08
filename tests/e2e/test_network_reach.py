"""What tasks reach, and what reaches them: nothing but what security groups and settings allow.

From inside a task there is no host, no other task's endpoint and no instance metadata; the LANs of
the host are as far from each other as before. What the agent does for a task leaves by its ENI.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.fixtures import frames
from tests.fixtures.attacked import (
    AWS_PORT,
    GATEWAY,
    HOST,
    LAN,
    OTHER,
    PORT,
    REGISTRY_PORT,
    UNUSED,
    VERSIONS,
    Attacked,
    Wire,
    attacked,
    mac_of,
    place,
    send_from,
    tell_from_host,
)
from tests.fixtures.aws import REGION, ROLE
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.network import open_tcp
from tests.fixtures.stack import DEADLINE_S

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

MARK: Final = b"FORGED!!"
PATIENCE_S: Final = 2.0
"""How long a connection is waited for that must not come about."""
METADATA: Final = "169.254.170.2"
NOWHERE: Final = {
    4: (METADATA, "169.254.169.254", "169.254.169.123", "0.0.0.1", "240.0.0.1", "224.0.0.251"),
    6: ("fd00:ec2::254", "fd00:ec2::123", "fe80::1", "ff0e::1"),
}
"""AWS's services on link-local addresses, and what no router forwards."""
OTHER_SUBNET: Final = {4: "10.213.40.9", 6: "fd00:213:0:7::9"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def field(
    tmp_path_factory: pytest.TempPathFactory, private_containerd: PrivateContainerd
) -> AsyncIterator[Attacked]:
    async with attacked(tmp_path_factory.mktemp("reach"), private_containerd) as made:
        yield made


async def reached(netns: Path, addresses: Iterable[str]) -> set[str]:
    """Which addresses a machine can connect to."""

    async def try_one(address: str) -> bool:
        with open_tcp(netns, ip_address(address)) as sock:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await asyncio.get_running_loop().sock_connect(sock, (address, PORT))
            except (TimeoutError, OSError):
                return False
            return True

    async with asyncio.TaskGroup() as group:
        tried = {one: group.create_task(try_one(one)) for one in addresses}
    return {one for one, task in tried.items() if task.result()}


async def test_only_ports_that_the_setting_names_are_reached_on_the_host(field: Attacked) -> None:
    plane = urlsplit(field.stack.plane.url).port
    assert plane is not None
    here = [*GATEWAY.values(), *HOST.values()]
    shut = [place(address, port) for address in here for port in (field.shut_port, plane)]
    open_ = [place(address, field.open_port) for address in (*HOST.values(), GATEWAY[4])]

    answers = await field.tasks[0].reach([*shut, *open_])

    reached_there = {one for one, how in answers.items() if how == "reached"}
    assert reached_there == {f"tcp,{one}" for one in open_}
    assert {answers[f"tcp,{one}"] for one in shut} == {"silence"}


@pytest.mark.parametrize("version", VERSIONS)
async def test_frames_for_the_loopback_and_the_host_get_no_answer(
    field: Attacked, version: int
) -> None:
    attacker, sibling, _ = field.tasks
    own = attacker.addresses[version]
    loopback = {4: "127.0.0.1", 6: "::1"}[version]
    plane = urlsplit(field.stack.plane.url).port
    assert plane is not None
    sent = [
        frames.syn_frame(attacker.mac, attacker.mac, source, target, port)
        for source in (own, loopback)
        for target in (loopback, HOST[version], GATEWAY[version])
        for port in (plane, field.shut_port)
    ]

    with Wire(attacker.netns, "eth1") as wire:
        await attacker.send(sent, sibling.at(version))
        seen = await wire.until()

    assert seen == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_nowhere_does_not_leave_by_the_uplink(field: Attacked, version: int) -> None:
    attacker, sibling, _ = field.tasks
    targets = (*NOWHERE[version], UNUSED[version], OTHER_SUBNET[version])
    sent = [
        frames.udp_frame(attacker.mac, attacker.mac, attacker.addresses[version], one, 80, MARK)
        for one in targets
    ]

    with Wire(None) as host, Wire(field.lan, "eth0") as lan, Wire(sibling.netns, "eth1") as its:
        await attacker.send(sent, sibling.at(version), place(LAN[version]))
        seen = [*await lan.until(), *await its.until()]
        came_in = [one for one in await host.until() if MARK in one.data]

    assert len(came_in) == len(targets)  # the host's end has had them
    assert [one for one in seen if MARK in one.data] == []


async def test_security_groups_decide_between_tasks(field: Attacked) -> None:
    one, sibling, closed = field.tasks
    ours, theirs = ([task.at(version) for version in VERSIONS] for task in (sibling, closed))
    way_out = [place(LAN[version]) for version in VERSIONS]
    peers = [*ours, *theirs, *way_out]

    of_one = await one.reach(peers, "tcp", "udp")
    of_closed = await closed.reach([*ours, *way_out], "tcp", "udp")

    assert of_one == _all(peers, "reached") | _all(theirs, "silence")
    assert of_closed == _all(ours, "silence") | _all(way_out, "reached")


def _all(places: list[str], how: str) -> dict[str, str]:
    return {f"{protocol},{one}": how for one in places for protocol in ("tcp", "udp")}


async def test_a_lan_reaches_no_task_by_a_route(field: Attacked) -> None:
    addresses = [one for task in field.tasks for one in task.addresses.values()]

    assert await reached(field.lan, [*addresses, *HOST.values()]) == set()
    assert await reached(field.other, addresses) == set()


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_host_is_no_router_between_lans(field: Attacked, version: int) -> None:
    frame = frames.udp_frame(
        mac_of(field.uplink), mac_of("eth0", field.lan), LAN[version], OTHER[version], PORT, MARK
    )
    with Wire(field.other, "eth0") as other, Wire(None) as host:
        send_from(field.lan, "eth0", [frame])
        await host.until(MARK)  # the host has had it
        assert await reached(field.lan, [OTHER[version]]) == set()
        assert await reached(field.other, [LAN[version]]) == set()
        tell_from_host(OTHER[version])
        seen = await other.until()

    assert [one for one in seen if MARK in one.data] == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_lan_cannot_pretend_to_be_a_task(field: Attacked, version: int) -> None:
    one, sibling, closed = field.tasks
    router = mac_of(field.uplink)
    sent = [
        frames.udp_frame(router, mac_of("eth0", field.lan), source, target, PORT, MARK)
        for source in (
            *(task.addresses[version] for task in field.tasks),
            UNUSED[version],
            GATEWAY[version],
        )
        for target in (sibling.addresses[version], closed.addresses[version])
    ]

    with Wire(sibling.netns, "eth1") as its, Wire(closed.netns, "eth1") as closeds:
        send_from(field.lan, "eth0", sent)
        assert await one.run("pings", sibling.at(version)) == {sibling.at(version): True}
        seen = await its.until()
        assert await closed.run("pings", place(LAN[version])) == {place(LAN[version]): True}
        seen += await closeds.until()

    assert [one for one in seen if MARK in one.data] == []


async def test_nobody_but_the_task_reaches_its_metadata(field: Attacked) -> None:
    attacker, sibling, _ = field.tasks
    by_frames = [
        frames.syn_frame(to, attacker.mac, source, METADATA, 80)
        for to in (sibling.mac, attacker.mac, frames.BROADCAST)
        for source in (attacker.addresses[4], UNUSED[4], "169.254.172.2")
    ]
    by_lan = frames.syn_frame(mac_of(field.uplink), mac_of("eth0", field.lan), LAN[4], METADATA, 80)

    with (
        Wire(attacker.netns, "eth1") as own,
        Wire(sibling.netns, "eth1") as its,
        Wire(field.lan, "eth0") as lan,
    ):
        send_from(field.lan, "eth0", [by_lan])
        await attacker.send(by_frames, sibling.at(4), place(LAN[4]))
        assert await own.until() == []
        assert await its.until() == []
        answers = [frames.tcp_of(one.data) for one in await lan.until()]

    assert [one for one in answers if one is not None] == []
    assert set((await attacker.reach([place(METADATA, 80)])).values()) == {"reached"}


async def test_a_task_sees_no_socket_of_the_agent_or_of_containerd(field: Attacked) -> None:
    said = await field.tasks[0].run("look")

    assert [one for one in said["unix"] if "agent" in one or "containerd" in one] == []


async def test_image_secrets_and_logs_pass_the_eni_alone(field: Attacked) -> None:
    options = {"awslogs-group": "g", "awslogs-region": REGION, "awslogs-stream-prefix": "p"}
    secret = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:db-AbCdEf"
    with Wire(None) as host:
        task = await field.start(
            role=ROLE,
            secrets=[{"name": "A", "valueFrom": secret}],
            logConfiguration={"logDriver": "awslogs", "options": options},
        )
        async with asyncio.timeout(DEADLINE_S):
            while "PutLogEvents" not in field.asked:
                await asyncio.sleep(0.05)
        await task.send([], place(LAN[4]))
        seen = await host.both_until()

    field.stack.stop(task.arn)
    await field.stack.wait_for(task.arn, "STOPPED")
    assert "GetSecretValue" in field.asked
    by_eni, by_uplink = set(), set()
    for one in seen:
        packet = frames.tcp_of(one.data)
        if packet is None or packet[1] != LAN[4]:
            continue
        if one.is_outgoing and one.ifname == field.uplink:
            by_uplink.add(packet[2:])
        if not one.is_outgoing and packet[0] == task.addresses[4]:
            by_eni.add(packet[2:])
    assert {port for port, _ in by_eni} == {REGISTRY_PORT, AWS_PORT}
    assert by_uplink == by_eni  # port and number of each packet that went there
