"""What passes between tasks whose ENIs the host routes, packet by packet."""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path

import pytest

from fargate_agent.findings import Findings
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.memory import FILE
from fargate_agent.network.firewall.rules import VERSIONS
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.names import firewall_table_name
from fargate_agent.network.nft.tables import read_tables
from fargate_agent.plan.security_groups import RulePlan
from tests.fixtures.firewall import ANYWHERE, OTHER, SAME, Cloud, from_group, group
from tests.fixtures.network import TEST_NETWORK, MakeNetns, remove_link, run_ip
from tests.fixtures.packets import ICMP, PORT, TCP, UDP, arrives, open_socket, send

pytestmark = pytest.mark.root

LAN = {1: "fd00:213:a::", 2: "fd00:213:b::"}


@pytest.fixture
def firewall(real_firewall: HostFirewall) -> HostFirewall:
    """What ENIs of this module are behind."""
    return real_firewall


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", [TCP, UDP, ICMP])
async def test_a_group_is_reached_by_those_that_its_rules_name(
    cloud: Cloud, firewall: HostFirewall, kind: str, version: int
) -> None:
    await firewall.learn([group(SAME, from_group(SAME)), group(OTHER)], is_whole=True)
    server, same = await cloud.start(SAME), await cloud.start(SAME)
    other, none = await cloud.start(OTHER), await cloud.start()
    callers = (same, other, none)

    assert [server.hears(one, kind, version) for one in callers] == [True, False, False]

    await firewall.learn([group(SAME, from_group(OTHER))])

    assert [server.hears(one, kind, version) for one in callers] == [False, True, False]

    await cloud.update(none, OTHER)
    await cloud.update(other, SAME)

    assert [server.hears(one, kind, version) for one in callers] == [False, False, True]
    assert not none.hears(server, kind, version)


async def test_a_rule_is_of_its_protocol_and_ports(cloud: Cloud, firewall: HostFirewall) -> None:
    web = RulePlan(protocol="tcp", from_port=80, to_port=81, cidrs=ANYWHERE)
    names = RulePlan(protocol="17", from_port=53, to_port=53, cidrs=ANYWHERE[:1])
    echo = RulePlan(protocol="icmp", from_port=8, to_port=-1, cidrs=ANYWHERE)
    await firewall.learn([group(SAME, web, names, echo)])
    server, caller = await cloud.start(SAME), await cloud.start()

    heard = {
        (kind, version, port)
        for kind, port in (
            (TCP, 79),
            (TCP, 80),
            (TCP, 81),
            (TCP, 82),
            (UDP, 53),
            (UDP, 80),
            (ICMP, 0),
        )
        for version in (4, 6)
        if server.hears(caller, kind, version, port)
    }

    assert heard == {
        *((TCP, 4, 80), (TCP, 4, 81), (TCP, 6, 80), (TCP, 6, 81)),
        *((UDP, 4, 53), (ICMP, 4, 0)),
    }


async def test_egress_is_what_the_rules_let_out(cloud: Cloud, firewall: HostFirewall) -> None:
    only_tcp = RulePlan(protocol="tcp", from_port=0, to_port=65535, groups=(OTHER,))
    await firewall.learn(
        [group(SAME, egress=(only_tcp,)), group(OTHER, RulePlan(protocol="-1", cidrs=ANYWHERE))]
    )
    caller, server = await cloud.start(SAME), await cloud.start(OTHER)

    assert server.hears(caller, TCP, 4)
    assert server.hears(caller, TCP, 6)
    assert not server.hears(caller, UDP, 4)
    assert not server.hears(caller, ICMP, 6)


@pytest.mark.parametrize("version", [4, 6])
async def test_an_open_connection_outlives_the_rule_that_let_it_in(
    cloud: Cloud, firewall: HostFirewall, version: int
) -> None:
    await firewall.learn([group(SAME, from_group(SAME))])
    server, caller = await cloud.start(SAME), await cloud.start(SAME)
    address = server.address(version)
    with (
        open_socket(server.netns, address, socket.SOCK_STREAM) as listener,
        open_socket(caller.netns, address, socket.SOCK_STREAM) as connection,
    ):
        listener.bind((str(address), PORT))
        listener.listen()
        connection.connect((str(address), PORT))
        accepted, _ = listener.accept()
        with accepted:
            await firewall.learn([group(SAME)])
            assert not server.hears(caller, TCP, version)

            connection.sendall(b"still here")
            assert accepted.recv(100) == b"still here"
            accepted.sendall(b"so am I")
            assert connection.recv(100) == b"so am I"


async def test_a_group_nobody_has_told_of_lets_nothing_in_or_out(cloud: Cloud) -> None:
    one, other = await cloud.start("sg-0unknown"), await cloud.start()

    assert not one.hears(other, UDP, 4)
    assert not other.hears(one, UDP, 4)


@pytest.mark.parametrize("is_shared", [True, False])
async def test_vpcs_are_apart_whatever_the_rules_say(
    cloud: Cloud, firewall: HostFirewall, is_shared: bool
) -> None:
    await firewall.learn([group(SAME, RulePlan(protocol="-1", cidrs=ANYWHERE))])
    subnet = TEST_NETWORK[255 * 256 + 192]
    elsewhere = {
        "address": IPv4Interface((subnet + 5, 26)),
        "gateway": subnet + 1,
        "ipv6_address": IPv6Interface("fd00:214::5/64"),
        "ipv6_gateway": IPv6Address("fd00:214::1"),
    }
    vpc = (TEST_NETWORK, IPv6Network("fd00:200::/23")) if is_shared else ()
    one = await cloud.start(SAME, vpc_cidr_blocks=vpc)
    other = await cloud.start(SAME, vpc_cidr_blocks=vpc, **elsewhere)

    heard = [
        target.hears(caller, UDP, version)
        for caller, target in ((one, other), (other, one))
        for version in (4, 6)
    ]

    assert heard == [is_shared] * 4


async def test_an_open_connection_outlives_the_agent(
    cloud: Cloud, firewall: HostFirewall, instance: str, tmp_path: Path
) -> None:
    await firewall.learn([group(SAME, from_group(SAME))])
    server, caller = await cloud.start(SAME), await cloud.start(SAME)
    address = server.address(4)
    with (
        open_socket(server.netns, address, socket.SOCK_STREAM) as listener,
        open_socket(caller.netns, address, socket.SOCK_STREAM) as connection,
    ):
        listener.bind((str(address), PORT))
        listener.listen()
        connection.connect((str(address), PORT))
        accepted, _ = listener.accept()
        await firewall.__aexit__()
        async with HostFirewall(instance, tmp_path / FILE, FirewallSettings()) as successor:
            with accepted:
                connection.sendall(b"while nobody is there")
                assert accepted.recv(100) == b"while nobody is there"

                await successor.adopt([server.eni, caller.eni])
                accepted.sendall(b"with the next one")
                assert connection.recv(100) == b"with the next one"
                assert server.hears(caller, TCP, 4)


async def test_the_table_stays_for_a_task_whose_record_is_lost(
    cloud: Cloud, firewall: HostFirewall, instance: str, tmp_path: Path
) -> None:
    task, caller = await cloud.start(), await cloud.start()
    assert not task.hears(caller, UDP, 4)
    await firewall.__aexit__()

    async with HostFirewall(instance, tmp_path / FILE, FirewallSettings(), Findings()) as successor:
        await successor.adopt(())
        serving = asyncio.create_task(successor.serve())
        await asyncio.sleep(0)
        serving.cancel()
        await asyncio.wait([serving])

    assert firewall_table_name(instance) in read_tables()
    assert not task.hears(caller, UDP, 4)


@pytest.mark.parametrize("version", [4, 6])
async def test_the_host_reaches_tasks_and_not_they_it(cloud: Cloud, version: int) -> None:
    task = await cloud.start()

    assert task.hears(None, UDP, version, 5)


class TestHostPorts:
    @pytest.fixture
    def firewall_settings(self) -> FirewallSettings:
        return FirewallSettings(host_ports=(("udp", 5353, 5354),))

    async def test_tasks_reach_the_ports_of_the_host_that_are_open(self, cloud: Cloud) -> None:
        task = await cloud.start()
        gateway = task.eni.gateway
        with (
            open_socket(None, gateway, socket.SOCK_DGRAM) as refused,
            open_socket(None, gateway, socket.SOCK_DGRAM) as opened,
        ):
            refused.bind((str(gateway), 5352))
            opened.bind((str(gateway), 5354))
            send(task.netns, UDP, gateway, 5352)
            send(task.netns, UDP, gateway, 5354)

            assert opened.recv(100) == b"probe"
            refused.setblocking(False)
            with pytest.raises(BlockingIOError):
                refused.recv(100)


class TestFewFlows:
    @pytest.fixture
    def firewall_settings(self) -> FirewallSettings:
        return FirewallSettings(max_tracked_flows=16)

    @pytest.mark.parametrize("version", [4, 6])
    async def test_an_eni_has_no_more_flows_than_it_may(
        self, cloud: Cloud, firewall: HostFirewall, version: int
    ) -> None:
        await firewall.learn([group(SAME, from_group(SAME))])
        greedy, modest = await cloud.start(SAME), await cloud.start(SAME)
        server = await cloud.start(SAME)

        heard = [server.hears(greedy, UDP, version, 1000 + number) for number in range(20)]

        assert heard == [True] * 16 + [False] * 4
        assert server.hears(modest, UDP, version)


class TestRouter:
    """A host that somebody else makes a router, for one version of IP."""

    @pytest.fixture
    async def machines(self, make_netns: MakeNetns) -> AsyncIterator[list[tuple[str, Path]]]:
        """Two, each behind a link of the host, which forwards both versions."""
        switches = [Path(f"/proc/sys/net/ipv{one}/conf/all/forwarding") for one in VERSIONS]
        before = [one.read_text() for one in switches]
        for switch in switches:
            switch.write_text("1")
        made = []
        for number in (1, 2):
            netns, name = await make_netns(), f"fgt{uuid.uuid4().hex[:8]}"
            run_ip("link", "add", name, "type", "veth", "peer", "name", "out", "netns", str(netns))
            for place, side, where in ((1, name, None), (2, "out", netns)):
                for network in (f"10.213.253.{number * 4 + place}/30", f"{LAN[number]}{place}/64"):
                    run_ip("address", "add", network, "dev", side, "nodad", netns=where)
                run_ip("link", "set", side, "up", netns=where)
            run_ip(
                "route",
                "add",
                "10.213.253.0/24",
                "via",
                f"10.213.253.{number * 4 + 1}",
                netns=netns,
            )
            run_ip("route", "add", "default", "via", f"{LAN[number]}1", netns=netns)
            made.append((name, netns))
        yield made
        for name, _ in made:
            remove_link(name)
        for switch, value in zip(switches, before, strict=True):
            switch.write_text(value)

    @pytest.mark.parametrize("version", VERSIONS)
    async def test_what_it_forwards_for_others_passes(
        self, firewall: HostFirewall, machines: list[tuple[str, Path]], version: int
    ) -> None:
        (uplink, sender), (_, receiver) = machines
        await firewall.note_uplinks({version: {uplink}})
        addresses = (IPv4Address("10.213.253.10"), IPv6Address(f"{LAN[2]}2"))

        passes = {one.version: arrives(sender, receiver, "out", UDP, one) for one in addresses}

        assert passes == {4: version == 6, 6: version == 4}

    async def test_an_uplink_leads_to_the_tasks_of_other_agents(
        self,
        cloud: Cloud,
        firewall: HostFirewall,
        machines: list[tuple[str, Path]],
        instance: str,
        tmp_path: Path,
    ) -> None:
        (uplink, sender), _ = machines
        await firewall.learn([group(SAME, RulePlan(protocol="udp", cidrs=ANYWHERE))])
        task, closed = await cloud.start(SAME), await cloud.start()
        other, file = f"{instance}-other", tmp_path / "other.json"

        async with HostFirewall(other, file, FirewallSettings(), Findings()) as neighbour:
            await neighbour.note_uplinks({6: {uplink}})
            heard = [
                arrives(sender, one.netns, "eth1", UDP, one.address(6)) for one in (task, closed)
            ]
            await neighbour.release()

        assert heard == [True, False]
