"""ENIs on bridges: what tasks reach, and what the kernel holds of them."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.findings import Findings
from fargate_agent.network.bridge import Bridges
from fargate_agent.network.veth import VethEni
from fargate_agent.parallel import together
from fargate_agent.plan import EniPlan
from tests.fixtures.network import (
    MakeEni,
    MakeNetns,
    ask_caller,
    read_host_names,
    read_ip,
    remove_link,
    run_ip,
    serve_caller,
)
from tests.fixtures.pulls import eventually
from tests.fixtures.seccomp import forbid_packet_filter

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

OUTSIDE = IPv4Network("10.213.255.252/30")
HOST_OUTSIDE, OUTSIDER = OUTSIDE[1], OUTSIDE[2]


@pytest.fixture
async def second(
    make_eni: MakeEni, make_netns: MakeNetns, veth: VethEni
) -> AsyncIterator[tuple[EniPlan, Path]]:
    """Another task on the same subnet."""
    eni, netns = make_eni(), await make_netns()
    await veth.attach(eni, netns)
    yield eni, netns
    await veth.detach(eni, netns)


@pytest.fixture
async def outsider(make_netns: MakeNetns) -> AsyncIterator[Path]:
    """A machine elsewhere: a namespace behind a link of the host, that knows no task's subnet."""
    netns, name = await make_netns(), f"fgt{uuid.uuid4().hex[:8]}"
    run_ip("link", "add", name, "type", "veth", "peer", "name", "out", "netns", str(netns))
    run_ip("address", "add", f"{HOST_OUTSIDE}/30", "dev", name)
    run_ip("link", "set", name, "up")
    run_ip("address", "add", f"{OUTSIDER}/30", "dev", "out", netns=netns)
    run_ip("link", "set", "out", "up", netns=netns)
    yield netns
    remove_link(name)


async def test_tasks_of_a_subnet_reach_each_other_under_their_own_addresses(
    attached: EniPlan, netns: Path, second: tuple[EniPlan, Path]
) -> None:
    eni, other = second
    async with serve_caller(other, eni.address.ip) as port:
        caller = await ask_caller(netns, eni.address.ip, port)

    assert caller == str(attached.address.ip)


async def test_a_task_reaches_the_host_at_the_gateway(attached: EniPlan, netns: Path) -> None:
    async with serve_caller(None, attached.gateway) as port:
        assert await ask_caller(netns, attached.gateway, port) == str(attached.address.ip)


async def test_the_host_reaches_a_task(attached: EniPlan, netns: Path) -> None:
    async with serve_caller(netns, attached.address.ip) as port:
        assert await ask_caller(None, attached.address.ip, port) == str(attached.gateway)


async def test_an_outsider_sees_the_hosts_address(
    eni: EniPlan, netns: Path, veth: VethEni, outsider: Path
) -> None:
    await veth.attach(eni, netns)  # now that the host has its uplink

    async with serve_caller(outsider, OUTSIDER) as port:
        assert await ask_caller(netns, OUTSIDER, port) == str(HOST_OUTSIDE)
    await veth.detach(eni, netns)


async def test_subnets_of_one_agent_see_each_others_own_addresses(
    attached: EniPlan, netns: Path, make_netns: MakeNetns, make_eni: MakeEni, veth: VethEni
) -> None:
    elsewhere = IPv4Network("10.213.255.0/28")
    eni = make_eni(gateway=elsewhere[1], address=_interface(elsewhere, 2))
    other = await make_netns()
    await veth.attach(eni, other)

    async with serve_caller(other, elsewhere[2]) as port:
        caller = await ask_caller(netns, elsewhere[2], port)

    assert caller == str(attached.address.ip)
    await veth.detach(eni, other)


async def test_the_kernel_holds_what_the_plan_says(
    netns: Path, make_eni: MakeEni, veth: VethEni
) -> None:
    ipv6 = IPv6Network("fd00:213::/64")
    eni = make_eni(
        mtu=9001, ipv6_address=IPv6Interface((ipv6[5], 64)), ipv6_gateway=IPv6Address(ipv6[1])
    )
    await veth.attach(eni, netns)

    (link,) = read_ip("address", "show", "dev", "eth1", "scope", "global", netns=netns)
    (route,) = read_ip("-6", "route", "show", "default", netns=netns)
    assert (link["address"], link["mtu"]) == (eni.mac, 9001)
    assert {f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a} == {
        str(eni.address),
        str(eni.ipv6_address),
    }
    assert route["gateway"] == str(eni.ipv6_gateway)
    async with serve_caller(None, ipv6[1]) as port:
        assert await ask_caller(netns, ipv6[1], port) == str(ipv6[5])
    await veth.detach(eni, netns)


async def test_tasks_of_a_subnet_reach_each_other_by_ipv6_at_once(
    netns: Path, make_netns: MakeNetns, make_eni: MakeEni, veth: VethEni
) -> None:
    ipv6, other_netns = IPv6Network("fd00:213:1::/64"), await make_netns()
    one, other = (
        make_eni(ipv6_address=IPv6Interface((ipv6[place], 64)), ipv6_gateway=ipv6[1])
        for place in (5, 6)
    )
    await veth.attach(one, netns)
    await veth.attach(other, other_netns)

    async with serve_caller(other_netns, ipv6[6]) as port:
        caller = await ask_caller(netns, ipv6[6], port)

    assert caller == str(ipv6[5])
    await veth.detach(one, netns)
    await veth.detach(other, other_netns)


async def test_only_the_primary_interface_carries_a_default_route(
    attached: EniPlan, netns: Path, make_eni: MakeEni, veth: VethEni
) -> None:
    second = make_eni(ifname="eth2", primary=False)

    await veth.attach(second, netns)

    assert [route["dev"] for route in read_ip("route", "show", "default", netns=netns)] == ["eth1"]
    await veth.detach(second, netns)
    assert [link["ifname"] for link in read_ip("link", netns=netns)] == ["lo", "eth0", "eth1"]


async def test_detach_frees_the_address_though_a_socket_is_still_open(
    eni: EniPlan, netns: Path, veth: VethEni, instance: str
) -> None:
    await veth.attach(eni, netns)
    async with serve_caller(netns, eni.address.ip):
        await veth.detach(eni, netns)

        assert read_host_names(instance) == set()
        assert [link["ifname"] for link in read_ip("link", netns=netns)] == ["lo", "eth0"]


async def test_bridge_and_nat_stay_until_the_last_eni_leaves(
    eni: EniPlan,
    netns: Path,
    make_eni: MakeEni,
    make_netns: MakeNetns,
    instance: str,
    veth: VethEni,
) -> None:
    other, other_netns = make_eni(), await make_netns()
    await veth.attach(eni, netns)
    await veth.attach(other, other_netns)
    both = read_host_names(instance)

    await veth.detach(eni, netns)
    one = read_host_names(instance)
    await veth.detach(other, other_netns)

    assert (len(both), len(one), len(read_host_names(instance))) == (4, 3, 0)


async def test_many_come_and_go_at_once(
    make_eni: MakeEni, make_netns: MakeNetns, veth: VethEni, instance: str
) -> None:
    tasks = [(make_eni(), await make_netns()) for _ in range(12)]

    async def live(eni: EniPlan, netns: Path) -> None:
        for _ in range(2):
            await veth.attach(eni, netns)
            async with serve_caller(None, eni.gateway) as port:
                assert await ask_caller(netns, eni.gateway, port) == str(eni.address.ip)
            await veth.detach(eni, netns)

    await together(live(eni, netns) for eni, netns in tasks)

    assert read_host_names(instance) == set()


async def test_nothing_is_left_open_after_many_rounds(
    eni: EniPlan, netns: Path, veth: VethEni
) -> None:
    descriptors = Path("/proc/self/fd")

    async def run_round() -> int:
        await veth.attach(eni, netns)
        await veth.confirm(eni, netns)
        await veth.detach(eni, netns)
        return len(list(descriptors.iterdir()))

    first = await run_round()
    for _ in range(25):
        await run_round()

    # the kernel takes its time to let go of the last probe's socket
    await eventually(lambda: len(list(descriptors.iterdir())) <= first)


async def test_a_subnet_of_the_hosts_own_is_refused(
    eni: EniPlan, netns: Path, outsider: Path, make_eni: MakeEni, veth: VethEni
) -> None:
    eni = make_eni(gateway=OUTSIDER, address=_interface(OUTSIDE, 2))

    with pytest.raises(ResourceInitializationError) as refusal:
        await veth.attach(eni, netns)

    assert refusal.value.reason == (
        f"ResourceInitializationError: ENI {eni.id}: this machine has an address of its own, "
        f"{HOST_OUTSIDE}, in the subnet {OUTSIDE}"
    )


async def test_a_task_starts_on_a_host_without_packet_filter_and_the_finding_is_noted_once(
    eni: EniPlan, netns: Path, instance: str
) -> None:
    findings = Findings()
    veth = VethEni(Bridges(instance, findings))
    without = ThreadPoolExecutor(1, initializer=forbid_packet_filter)
    asyncio.get_running_loop().set_default_executor(without)

    await veth.attach(eni, netns)
    await veth.attach(eni, netns)

    async with serve_caller(None, eni.gateway) as port:
        assert await ask_caller(netns, eni.gateway, port) == str(eni.address.ip)
    assert [finding.effect for finding in findings] == [
        "tasks reach their own subnet, but no other network"
    ]
    await veth.detach(eni, netns)
    assert read_host_names(instance) == set()


def _interface(network: IPv4Network, number: int) -> IPv4Interface:
    return IPv4Interface((network[number], network.prefixlen))
