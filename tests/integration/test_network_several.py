"""Tasks with several ENIs: each address is reached, and answers, by its own interface."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path

import pytest

from fargate_agent.findings import Findings
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.memory import FILE
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.macvlan import MacvlanEni
from fargate_agent.network.netns import KernelNetns
from fargate_agent.network.veth import VethEni
from fargate_agent.plan import EniPlan
from fargate_agent.plan.security_groups import GroupPlan, RulePlan
from fargate_agent.wire.eni_kinds import EniKind
from tests.fixtures.network import (
    MakeEni,
    MakeNetns,
    ask_caller,
    read_ip,
    remove_link,
    run_ip,
    serve_caller,
)

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

ANYTHING = RulePlan(protocol="-1", cidrs=(IPv4Network("0.0.0.0/0"), IPv6Network("::/0")))
GROUP = GroupPlan(id="sg-0aaa", ingress=(ANYTHING,), egress=(ANYTHING,))
IPV6 = IPv6Network("fd00:213::/64")
ELSEWHERE = IPv4Network("10.213.255.0/28")
ELSEWHERE_V6 = IPv6Network("fd00:213:0:1::/64")
Subnets = tuple[IPv4Network, IPv6Network]


@pytest.fixture
async def firewall(
    instance: str, tmp_path: Path, host_left_clean: None
) -> AsyncIterator[HostFirewall]:
    async with HostFirewall(instance, tmp_path / FILE, FirewallSettings(), Findings()) as firewall:
        await firewall.learn([GROUP], is_whole=True)
        yield firewall
        await firewall.release()


def plan(make_eni: MakeEni, place: int, **changes: object) -> EniPlan:
    v6 = {"ipv6_address": IPv6Interface((IPV6[place], 64)), "ipv6_gateway": IPV6[1]}
    ranges = (IPv4Network("10.213.0.0/16"), IPv6Network("fd00:213::/48"))
    given = {"security_groups": (GROUP.id,), "vpc_cidr_blocks": ranges}
    return make_eni(**(v6 | given | changes))


def second_of(first: EniPlan, make_eni: MakeEni, has_subnet_of_its_own: bool) -> EniPlan:
    """Plan another ENI of a task, like the first."""
    second = plan(make_eni, 6, kind=first.kind, parent=first.parent)
    second = replace(second, ifname="eth2", primary=False)
    if not has_subnet_of_its_own:
        return second
    return replace(
        second,
        address=IPv4Interface((ELSEWHERE[5], ELSEWHERE.prefixlen)),
        gateway=ELSEWHERE[1],
        ipv6_address=IPv6Interface((ELSEWHERE_V6[5], 64)),
        ipv6_gateway=ELSEWHERE_V6[1],
    )


def addresses(eni: EniPlan) -> tuple[IPv4Address | IPv6Address, ...]:
    assert eni.ipv6_address is not None
    return eni.address.ip, eni.ipv6_address.ip


two_subnets = pytest.mark.parametrize("two_subnets", [False, True], ids=["one subnet", "two"])


@two_subnets
async def test_a_task_is_reached_at_each_of_its_addresses(
    two_subnets: bool, make_eni: MakeEni, make_netns: MakeNetns, veth: VethEni
) -> None:
    netns, caller_netns = await make_netns(), await make_netns()
    first, caller = plan(make_eni, 5), plan(make_eni, 7)
    second = second_of(first, make_eni, two_subnets)
    await veth.attach(caller, caller_netns)
    for eni in (first, second, second):
        await veth.attach(eni, netns)

    for address in (*addresses(first), *addresses(second)):
        async with serve_caller(netns, address) as port:
            by = addresses(caller)[address.version == 6]
            assert await ask_caller(caller_netns, address, port) == str(by)
            assert await ask_caller(None, address, port)
    rules = [*read_ip("rule", netns=netns), *read_ip("-6", "rule", netns=netns)]
    own = [one["src"] for one in rules if one["table"] not in {"local", "main", "default"}]
    assert own == [str(one) for one in addresses(second)]  # once, however often it is attached
    for eni in (first, second):
        await veth.detach(eni, netns)
    await veth.detach(caller, caller_netns)


@pytest.fixture
async def lan(make_netns: MakeNetns) -> AsyncIterator[tuple[str, Path]]:
    """A NIC of this host, and a router at the other end of its wire, with no address yet."""
    name, netns = f"fgt{uuid.uuid4().hex[:8]}", await make_netns()
    run_ip("link", "add", name, "type", "veth", "peer", "name", "lan", "netns", str(netns))
    run_ip("link", "set", "lan", "up", netns=netns)
    yield name, netns
    remove_link(name)


@two_subnets
async def test_a_task_on_a_lan_is_reached_at_each_of_its_addresses(
    two_subnets: bool,
    make_eni: MakeEni,
    netns: Path,
    netns_driver: KernelNetns,
    firewall: HostFirewall,
    lan: tuple[str, Path],
) -> None:
    """By a machine behind the router, which isn't in either subnet; each by its own MAC."""
    parent, router = lan
    first = plan(make_eni, 5, kind=EniKind.MACVLAN, parent=parent)
    second = second_of(first, make_eni, two_subnets)
    behind = IPv4Address("10.213.254.9"), IPv6Address("fd00:213:9::9")
    for one in behind:
        run_ip("address", "add", str(one), "dev", "lo", netns=router)
    for eni in (first, second) if two_subnets else (first,):
        assert eni.ipv6_address is not None
        for gateway, network in (
            (eni.gateway, eni.address.network),
            (eni.ipv6_gateway, eni.ipv6_address.network),
        ):
            here = f"{gateway}/{network.prefixlen}"
            run_ip("address", "add", here, "dev", "lan", "nodad", netns=router)

    async with MacvlanEni(netns_driver.prepared, firewall) as driver:
        for eni in (first, second, second):
            await driver.attach(eni, netns)

        for eni in (first, second):
            for address, source in zip(addresses(eni), behind, strict=True):
                run_ip(
                    "route", "replace", str(address), "dev", "lan", "src", str(source), netns=router
                )
                async with serve_caller(netns, address) as port:
                    assert await ask_caller(router, address, port) == str(source)
                (found,) = read_ip("neigh", "show", str(address), netns=router)
                assert found["lladdr"] == eni.mac
        for eni in (second, first):
            await driver.detach(eni, netns)
