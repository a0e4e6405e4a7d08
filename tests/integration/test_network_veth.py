"""Routed ENIs: what tasks reach, and what the kernel holds of them."""

import asyncio
from dataclasses import replace
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.names import first_rule_priority
from fargate_agent.network.veth import VethEni
from fargate_agent.parallel import together
from fargate_agent.plan import EniPlan
from tests.fixtures.network import (
    ELSEWHERE,
    HOST_OUTSIDE,
    NARROW,
    OUTSIDE,
    OUTSIDER,
    TEST_NETWORK,
    MakeEni,
    MakeNetns,
    OpenFirewall,
    ask_caller,
    open_tcp,
    read_ip,
    read_rules,
    read_unreachable,
    run_ip,
    serve_caller,
)
from tests.fixtures.pulls import eventually

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

IPV6 = IPv6Network("fd00:213::/64")
IPV6_OUTSIDE = IPv6Network("fd00:213:ffff::/64")
LARGE = bytes(200_000)


def plan_ipv6(place: int) -> dict[str, Any]:
    """What an ENI of both versions has more."""
    return {"ipv6_address": IPv6Interface((IPV6[place], 64)), "ipv6_gateway": IPV6[1]}


async def test_tasks_reach_each_other_under_their_own_addresses(
    attached: EniPlan, netns: Path, second: tuple[EniPlan, Path]
) -> None:
    eni, other = second
    async with serve_caller(other, eni.address.ip) as port:
        caller = await ask_caller(netns, eni.address.ip, port)

    assert caller == str(attached.address.ip)


async def test_the_host_reaches_a_task_from_the_gateways_address(
    attached: EniPlan, netns: Path
) -> None:
    async with serve_caller(netns, attached.address.ip) as port:
        assert await ask_caller(None, attached.address.ip, port) == str(attached.gateway)


async def test_tasks_of_different_subnets_reach_each_other(
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


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
async def test_large_packets_find_the_smaller_mtu_on_their_way(
    ipv6: bool, make_eni: MakeEni, netns: Path, veth: VethEni, outsider: Path
) -> None:
    eni = make_eni(**plan_ipv6(5))
    (uplink,) = [one["dev"] for one in read_ip("route") if one["dst"] == str(OUTSIDE)]
    run_ip("address", "add", f"{IPV6_OUTSIDE[1]}/64", "dev", uplink, "nodad")
    run_ip("address", "add", f"{IPV6_OUTSIDE[2]}/64", "dev", "out", "nodad", netns=outsider)
    run_ip("route", "add", str(IPV6), "via", str(IPV6_OUTSIDE[1]), netns=outsider)
    # So that the task's packets are as large as its own interface lets them be.
    run_ip("link", "set", "out", "mtu", "9001", netns=outsider)
    await veth.attach(eni, netns)  # now that the host has its uplink
    there = IPV6_OUTSIDE[2] if ipv6 else OUTSIDER
    loop = asyncio.get_running_loop()
    with open_tcp(outsider, there) as listener, open_tcp(netns, there) as connection:
        listener.bind((str(there), 0))
        listener.listen()
        async with asyncio.timeout(10):
            await loop.sock_connect(connection, listener.getsockname())
            accepted, _ = await loop.sock_accept(listener)
            sending = asyncio.create_task(loop.sock_sendall(connection, LARGE))
            received = 0
            with accepted:
                while received < len(LARGE):
                    received += len(await loop.sock_recv(accepted, 65536))
            await sending

    (route,) = read_ip("route", "get", str(there), netns=netns)
    assert route["metrics"][0]["mtu"] == 1500
    await veth.detach(eni, netns)


async def test_the_task_sees_what_it_sees_on_fargate(
    netns: Path, make_eni: MakeEni, veth: VethEni
) -> None:
    eni = make_eni(**plan_ipv6(5))

    await veth.attach(eni, netns)

    (link,) = read_ip("address", "show", "dev", "eth1", netns=netns)
    assert (link["ifindex"], link["address"], link["mtu"]) == (3, eni.mac, 9001)
    assert {f"{a['local']}/{a['prefixlen']}": a["scope"] for a in link["addr_info"]} == {
        str(eni.address): "global",
        str(eni.ipv6_address): "global",
        f"{_link_local(eni.mac)}/64": "link",
    }
    assert not [a for a in link["addr_info"] if "tentative" in a]
    for version, gateway, network in (
        ("-4", eni.gateway, eni.address.network),
        ("-6", eni.ipv6_gateway, IPV6),
    ):
        routes = read_ip(version, "route", "show", "dev", "eth1", netns=netns)
        (default,) = [route for route in routes if route["dst"] == "default"]
        assert default["gateway"] == str(gateway)
        assert str(network) in {route["dst"] for route in routes}
    assert read_ip("neighbour", netns=netns) == []
    await veth.detach(eni, netns)


async def test_the_mtu_of_the_plan_is_that_of_both_ends(
    netns: Path, make_eni: MakeEni, veth: VethEni
) -> None:
    eni = make_eni(mtu=1400)

    await veth.attach(eni, netns)

    (inside,) = read_ip("link", "show", "eth1", netns=netns)
    assert (inside["mtu"], find_end(eni)["mtu"]) == (1400, 1400)
    await veth.detach(eni, netns)


async def test_the_host_has_a_route_to_the_address_and_none_to_others_of_the_vpc(
    make_eni: MakeEni, netns: Path, veth: VethEni, instance: str
) -> None:
    ranges = (IPv4Network("10.213.0.0/17"), IPv6Network("fd00:213::/56"))
    eni = make_eni(vpc_cidr_blocks=ranges, **plan_ipv6(5))

    await veth.attach(eni, netns)

    routes = [*read_ip("-4", "route"), *read_ip("-6", "route")]
    end = find_end(eni)["ifname"]
    assert read_unreachable(instance) == {*map(str, ranges), str(eni.address.network), str(IPV6)}
    assert {r["dst"] for r in routes if r.get("dev") == end} == {
        str(eni.address.ip),
        str(IPV6[5]),
    }
    await veth.detach(eni, netns)
    await eventually(lambda: read_host_routes(instance) == set())


async def test_of_the_vpc_a_task_reaches_what_has_an_eni_or_a_narrow_route_and_the_host_all(
    make_eni: MakeEni, netns: Path, veth: VethEni, wide_route: Path
) -> None:
    eni = make_eni(vpc_cidr_blocks=(TEST_NETWORK,))
    await veth.attach(eni, netns)

    async with serve_caller(wide_route, ELSEWHERE) as port:
        assert await ask_caller(None, ELSEWHERE, port) == str(HOST_OUTSIDE)
        with pytest.raises(OSError, match=r"\[Errno 113\]"):  # EHOSTUNREACH
            await ask_caller(netns, ELSEWHERE, port)
    async with serve_caller(wide_route, NARROW) as port:
        assert await ask_caller(None, NARROW, port) == str(HOST_OUTSIDE)
        assert await ask_caller(netns, NARROW, port) == str(eni.address.ip)
    await veth.detach(eni, netns)


async def test_rules_that_somebody_removes_are_made_again(
    make_eni: MakeEni,
    netns: Path,
    veth: VethEni,
    instance: str,
    wide_route: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As systemd-networkd does when it is started again."""
    monkeypatch.setattr("fargate_agent.network.veth.FORWARDING_PERIOD_S", 0.01)
    eni = make_eni(vpc_cidr_blocks=(TEST_NETWORK,))
    await veth.attach(eni, netns)
    rules, first = read_rules(instance), first_rule_priority(instance)

    job = asyncio.create_task(veth.serve())
    for priority in {first, first + 1, first + 2, first + 3}:
        run_ip("rule", "del", "priority", str(priority))
    await eventually(lambda: read_rules(instance) == rules)
    job.cancel()

    assert len(rules) == 5
    async with serve_caller(wide_route, ELSEWHERE) as port:
        with pytest.raises(OSError, match=r"\[Errno 113\]"):  # EHOSTUNREACH
            await ask_caller(netns, ELSEWHERE, port)
    await veth.detach(eni, netns)


async def test_tasks_reach_each_other_by_ipv6_at_once(
    netns: Path, make_netns: MakeNetns, make_eni: MakeEni, veth: VethEni
) -> None:
    other_netns = await make_netns()
    one, other = make_eni(**plan_ipv6(5)), make_eni(**plan_ipv6(6))
    await veth.attach(one, netns)
    await veth.attach(other, other_netns)

    async with serve_caller(other_netns, IPV6[6]) as port:
        caller = await ask_caller(netns, IPV6[6], port)
        from_host = await ask_caller(None, IPV6[6], port)

    assert (caller, from_host) == (str(IPV6[5]), str(IPV6[1]))
    await veth.detach(one, netns)
    await veth.detach(other, other_netns)


async def test_further_interfaces_are_made_and_carry_no_default_route(
    attached: EniPlan, netns: Path, make_eni: MakeEni, veth: VethEni
) -> None:
    """Of another subnet: to the gateway of the same one the kernel would answer by the first."""
    elsewhere = IPv4Network("10.213.255.0/28")
    changes = {"gateway": elsewhere[1], "address": _interface(elsewhere, 2)}
    second = make_eni(ifname="eth2", primary=False, **changes)

    await veth.attach(second, netns)

    assert [route["dev"] for route in read_ip("route", "show", "default", netns=netns)] == ["eth1"]
    async with serve_caller(netns, second.address.ip) as port:
        assert await ask_caller(None, second.address.ip, port) == str(second.gateway)
    await veth.detach(second, netns)
    await eventually(lambda: read_names(netns) == ["lo", "eth0", "eth1"])


async def test_detach_frees_the_address_though_a_socket_is_still_open(
    eni: EniPlan, netns: Path, make_eni: MakeEni, make_netns: MakeNetns, veth: VethEni
) -> None:
    successor, other = make_eni(address=eni.address), await make_netns()
    await veth.attach(eni, netns)
    async with serve_caller(netns, eni.address.ip):
        await veth.detach(eni, netns)
        await veth.attach(successor, other)

        async with serve_caller(other, eni.address.ip) as port:
            assert await ask_caller(None, eni.address.ip, port) == str(eni.gateway)
        await eventually(lambda: read_names(netns) == ["lo", "eth0"])
    await veth.detach(successor, other)


async def test_an_address_in_use_is_refused_and_its_holder_keeps_it(
    attached: EniPlan,
    netns: Path,
    make_eni: MakeEni,
    make_netns: MakeNetns,
    veth: VethEni,
    firewall: OpenFirewall,
) -> None:
    rival, other = make_eni(address=attached.address), await make_netns()

    with pytest.raises(ResourceInitializationError) as refusal:
        await veth.attach(rival, other)
    await veth.detach(rival, other)

    assert refusal.value.detail == (
        f"ENI {rival.id}: address {rival.address.ip} is already in use by "
        f"{attached.id} of this machine"
    )
    assert not [told for told in firewall.told if rival.id in told]
    async with serve_caller(netns, attached.address.ip) as port:
        assert await ask_caller(None, attached.address.ip, port)


async def test_an_ipv6_address_in_use_leaves_the_rival_without_any(
    netns: Path, make_eni: MakeEni, make_netns: MakeNetns, veth: VethEni
) -> None:
    holder, rival, other = make_eni(**plan_ipv6(5)), make_eni(**plan_ipv6(5)), await make_netns()
    await veth.attach(holder, netns)

    with pytest.raises(ResourceInitializationError, match=f"{IPV6[5]} is already in use"):
        await veth.attach(rival, other)

    assert [r for r in read_ip("route") if r["dst"] == str(rival.address.ip)] == []
    await veth.detach(rival, other)
    await veth.detach(holder, netns)


async def test_the_gateways_address_is_refused_to_a_task(
    make_eni: MakeEni, netns: Path, veth: VethEni
) -> None:
    plan = make_eni()
    eni = replace(plan, address=IPv4Interface((plan.gateway, plan.address.network.prefixlen)))

    with pytest.raises(ResourceInitializationError, match=r"is already in use by the gateway"):
        await veth.attach(eni, netns)


async def test_packets_pass_when_they_are_let_through_and_not_before(
    eni: EniPlan, netns: Path, veth: VethEni, firewall: OpenFirewall
) -> None:
    await veth.attach(eni, netns)
    await veth.detach(eni, netns)

    told = [one for one in firewall.told if not one.startswith("uplinks")]
    assert told == ["ensure", f"open {eni.id}", f"close {eni.id}"]


async def test_many_come_and_go_at_once(
    make_eni: MakeEni, make_netns: MakeNetns, veth: VethEni, instance: str
) -> None:
    tasks = [(make_eni(), await make_netns()) for _ in range(50)]

    async def live(eni: EniPlan, netns: Path) -> None:
        await veth.attach(eni, netns)
        async with serve_caller(netns, eni.address.ip) as port:
            assert await ask_caller(None, eni.address.ip, port) == str(eni.gateway)
        await veth.detach(eni, netns)

    await together(live(eni, netns) for eni, netns in tasks)

    await eventually(lambda: read_host_routes(instance) == set())


async def test_nothing_is_left_open_after_many_rounds(
    eni: EniPlan, make_netns: MakeNetns, veth: VethEni
) -> None:
    async def run_round() -> int:
        netns = await make_netns()
        await veth.attach(eni, netns)
        await veth.confirm(eni, netns)
        await veth.detach(eni, netns)
        return len(list(Path("/proc/self/fd").iterdir()))

    first = await run_round()
    rest = [await run_round() for _ in range(10)]

    assert max(rest) <= first


async def test_a_subnet_of_the_hosts_own_is_refused(
    netns: Path, outsider: Path, make_eni: MakeEni, veth: VethEni
) -> None:
    eni = make_eni(gateway=OUTSIDE[3], address=_interface(OUTSIDE, 2))

    with pytest.raises(ResourceInitializationError) as refusal:
        await veth.attach(eni, netns)

    assert refusal.value.reason == (
        f"ResourceInitializationError: ENI {eni.id}: this machine has an address of its own, "
        f"{HOST_OUTSIDE}, in the subnet {OUTSIDE}"
    )


def find_end(eni: EniPlan) -> dict[str, Any]:
    """The host's end of an ENI, by its alias."""
    (link,) = [one for one in read_ip("link") if one.get("ifalias", "").endswith(f":{eni.id}")]
    return link


def read_names(netns: Path) -> list[str]:
    """The names of the interfaces of a namespace."""
    return [link["ifname"] for link in read_ip("link", netns=netns)]


def read_host_routes(instance: str) -> set[str]:
    """What an agent has on the host but interfaces, which go later."""
    return read_unreachable(instance) | read_rules(instance)


def _interface(network: IPv4Network, number: int) -> IPv4Interface:
    return IPv4Interface((network[number], network.prefixlen))


def _link_local(mac: str) -> IPv6Address:
    """The address that a kernel makes of a MAC. Source: RFC 4291, appendix A."""
    octets = bytes.fromhex(mac.replace(":", ""))
    last = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    return IPv6Address("fe80::") + int.from_bytes(last)
