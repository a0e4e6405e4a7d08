"""The agent's table as the kernel has it; `nft` reads it independently of what wrote it."""

import asyncio
import errno
import re
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from fargate_agent.findings import Findings
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.firewall import owned, watch
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.memory import FILE
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.names import firewall_table_name, host_end_prefix
from fargate_agent.network.nft import logged
from fargate_agent.plan import EniPlan
from fargate_agent.plan.security_groups import GroupPlan, RulePlan
from fargate_agent.wire.eni_kinds import EniKind
from tests.fixtures.network import MakeEni
from tests.fixtures.pulls import eventually

pytestmark = pytest.mark.root

ANYWHERE = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
GROUP, FRIENDS = "sg-0aaa", "sg-0bbb"
SETTINGS = FirewallSettings(host_ports=(("tcp", 5432, 5432), ("udp", 53, 54)))


def nft(*arguments: str) -> str:
    done = subprocess.run(["nft", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def read_chains(table: str) -> dict[str, list[str]]:
    """Return the rules of each chain, and the elements of each set or map, as `nft` writes them."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in nft("list", "table", "inet", table).splitlines():
        words = line.split()
        if words[:1] in (["chain"], ["set"], ["map"]):
            name = words[1]
            found[name] = []
        elif words and name and line.startswith("\t\t"):
            found[name].append(line.strip())
    return found


def elements(chains: dict[str, list[str]], name: str) -> set[str]:
    text = " ".join(chains[name])
    inside = re.search(r"elements = \{(.*)\}", text)
    return set() if inside is None else {one.strip() for one in inside[1].split(",")}


@pytest.fixture
def table(instance: str) -> str:
    return firewall_table_name(instance)


@pytest.fixture
async def firewall(
    instance: str, tmp_path: Path, host_left_clean: None
) -> AsyncIterator[HostFirewall]:
    async with HostFirewall(instance, tmp_path / FILE, SETTINGS, Findings()) as firewall:
        yield firewall
        await firewall.release()


@pytest.fixture
def eni(make_eni: MakeEni) -> EniPlan:
    return make_eni(security_groups=(GROUP,), ipv6_address=IPv6Interface("fd00:213::5/64"))


async def test_nft_reads_what_was_meant(
    firewall: HostFirewall, table: str, instance: str, eni: EniPlan
) -> None:
    ours = host_end_prefix(instance)
    rules = (
        RulePlan(protocol="tcp", from_port=80, to_port=81, cidrs=(IPv4Network("10.1.2.0/24"),)),
        RulePlan(protocol="udp", from_port=53, to_port=53, cidrs=ANYWHERE),
        RulePlan(protocol="icmp", from_port=8, to_port=-1, cidrs=ANYWHERE),
        RulePlan(protocol="icmpv6", cidrs=(IPv6Network("fd00::/16"),)),
        RulePlan(protocol="47", cidrs=(IPv4Network("10.9.9.9/32"),)),
        RulePlan(protocol="-1", groups=(FRIENDS,)),
    )
    out = RulePlan(protocol="-1", cidrs=ANYWHERE)
    friends = GroupPlan(id=FRIENDS, members=frozenset({IPv4Address("10.213.9.9")}))
    await firewall.learn([GroupPlan(id=GROUP, ingress=rules, egress=(out,)), friends])
    await firewall.note_uplinks({4: ["eth9", "eth8"], 6: ["eth7"]})
    await firewall.open_eni(eni)

    chains = read_chains(table)

    assert chains["antispoof"][1:] == [
        f'iifname "{ours}*" goto from_wire',
        'iifname "lo" accept',
        "ip saddr @ranges4 fib saddr . iif oif 0 drop",
        "ip6 saddr @ranges6 fib saddr . iif oif 0 drop",
    ]
    assert chains["from_wire"] == [
        "fib saddr . iif oif 0 drop",
        "ip6 saddr fe80::/10 drop",
        "meta pkttype != host drop",
        "fib daddr type broadcast drop",
        "fib daddr type anycast drop",
        "fib daddr type multicast drop",
    ]
    assert chains["to_host"] == [
        "ct state established,related accept",
        "tcp dport 5432 accept",
        "udp dport 53-54 accept",
        "goto refused",
    ]
    assert chains["forward"][1:] == [
        f'iifname "{ours}*" goto from_task',
        f'oifname "{ours}*" goto to_task',
        "meta nfproto ipv4 iifname @uplinks4 goto from_uplink",
        "meta nfproto ipv6 iifname @uplinks6 goto from_uplink",
    ]
    of_agents = [f'oifname "fg{digit:x}*" accept' for digit in range(16)]
    assert chains["from_uplink"] == [*of_agents, "drop"]
    assert chains["from_task"][6:] == [
        "ct state established,related accept",
        "ct state invalid goto refused",
        "ct status dnat jump published",
        "add @flows4 { ip saddr ct count over 16384 } goto refused",
        "add @flows6 { ip6 saddr ct count over 16384 } goto refused",
        "ip saddr vmap @out4",
        "ip6 saddr vmap @out6",
        "goto refused",
    ]
    assert (chains["refused"], chains["refused_in"]) == (["drop"], ["drop"])
    assert chains[f"in_{GROUP}"] == [
        "ip saddr 10.1.2.0/24 tcp dport 80-81 accept",
        "meta nfproto ipv4 udp dport 53 accept",
        "meta nfproto ipv6 udp dport 53 accept",
        "icmp type echo-request accept",
        "ip6 saddr fd00::/16 meta l4proto ipv6-icmp accept",
        "ip saddr 10.9.9.9 meta l4proto gre accept",
        f"ip saddr @members4_{FRIENDS} accept",
        f"ip6 saddr @members6_{FRIENDS} accept",
    ]
    assert elements(chains, "uplinks4") == {'"eth8"', '"eth9"'}
    assert elements(chains, "uplinks6") == {'"eth7"'}
    assert elements(chains, f"members4_{FRIENDS}") == {"10.213.9.9"}
    assert elements(chains, f"members4_{GROUP}") == {str(eni.address.ip)}
    assert elements(chains, f"members6_{GROUP}") == {"fd00:213::5"}
    assert elements(chains, "ranges4") == {str(eni.address.network)}


async def test_an_eni_that_is_closed_leaves_no_element(
    firewall: HostFirewall, table: str, eni: EniPlan
) -> None:
    await firewall.open_eni(eni)
    await firewall.open_eni(eni)
    await firewall.open_eni(replace(eni, security_groups=(FRIENDS, GROUP)))
    await firewall.close_eni(eni)
    await firewall.close_eni(eni)

    chains = read_chains(table)
    names = ("in4", "in6", "out4", "out6", f"members4_{GROUP}", f"members6_{FRIENDS}")
    assert [elements(chains, name) for name in names] == [set()] * 6


async def test_a_group_that_is_forgotten_allows_nothing(
    firewall: HostFirewall, table: str, eni: EniPlan
) -> None:
    out = RulePlan(protocol="-1", cidrs=ANYWHERE)
    member = IPv4Address("10.213.9.9")
    await firewall.learn([GroupPlan(id=GROUP, egress=(out,), members=frozenset({member}))])
    await firewall.open_eni(eni)

    await firewall.learn([], is_whole=True)

    chains = read_chains(table)
    assert chains[f"out_{GROUP}"] == []
    assert elements(chains, f"members4_{GROUP}") == {str(eni.address.ip)}


async def test_the_next_agent_takes_the_table_over(
    firewall: HostFirewall,
    table: str,
    instance: str,
    tmp_path: Path,
    make_eni: MakeEni,
    eni: EniPlan,
) -> None:
    gone = make_eni(security_groups=(GROUP,))
    tcp = RulePlan(protocol="tcp", from_port=1, to_port=2, cidrs=ANYWHERE)
    await firewall.learn([GroupPlan(id=GROUP, ingress=(tcp,))])
    await firewall.open_eni(gone)
    await firewall.open_eni(eni)
    await firewall.__aexit__()
    assert str(gone.address.ip) in elements(read_chains(table), f"members4_{GROUP}")

    macvlan = make_eni(kind=EniKind.MACVLAN, security_groups=(GROUP,))
    async with HostFirewall(instance, tmp_path / FILE, SETTINGS, Findings()) as successor:
        await successor.adopt([eni, macvlan])

        chains = read_chains(table)
        members = {str(eni.address.ip), str(macvlan.address.ip)}
        assert elements(chains, f"members4_{GROUP}") == members
        assert {one.split()[0] for one in elements(chains, "in4")} == {str(eni.address.ip)}
        assert chains[f"in_{GROUP}"] == [
            "meta nfproto ipv4 tcp dport 1-2 accept",
            "meta nfproto ipv6 tcp dport 1-2 accept",
        ]

        await successor.close_eni(eni)
        assert await successor.sweep(["kept"]) == []
        assert await successor.sweep([]) == [f"table {table}"]
        assert await successor.release() == []


async def test_others_can_neither_flush_nor_change_a_table_that_is_owned(
    firewall: HostFirewall, table: str, eni: EniPlan
) -> None:
    await firewall.open_eni(eni)
    if "owner" not in nft("list", "table", "inet", table):
        pytest.skip("this kernel is older than 6.9 and knows no owners that go")
    before = read_chains(table)

    nft("flush", "ruleset")
    with pytest.raises(subprocess.CalledProcessError):
        nft("flush", "chain", "inet", table, "refused")

    assert read_chains(table) == before


@pytest.fixture
def without_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel before 6.9."""
    monkeypatch.setattr(owned, "OWNER", 0)
    monkeypatch.setattr(owned, "PERSIST", 0)


@pytest.mark.parametrize(
    "command", [("flush", "ruleset"), ("flush", "chain", "inet", "TABLE", "from_task")]
)
async def test_a_table_that_somebody_has_flushed_comes_back(
    without_owners: None,
    instance: str,
    tmp_path: Path,
    host_left_clean: None,
    table: str,
    eni: EniPlan,
    command: tuple[str, ...],
) -> None:
    async with HostFirewall(instance, tmp_path / FILE, SETTINGS, Findings()) as firewall:
        await firewall.open_eni(eni)
        before = read_chains(table)
        serving = asyncio.create_task(firewall.serve())
        await asyncio.sleep(0)  # it listens from its first step on
        nft(*(table if word == "TABLE" else word for word in command))

        await eventually(lambda: is_whole(table, before))

        serving.cancel()
        await asyncio.wait([serving])
        await firewall.release()


def is_whole(table: str, wanted: dict[str, list[str]]) -> bool:
    try:
        return read_chains(table) == wanted
    except subprocess.CalledProcessError:
        return False


async def test_groups_that_cannot_be_read_allow_nothing(
    firewall: HostFirewall, tmp_path: Path, table: str, eni: EniPlan
) -> None:
    (tmp_path / FILE).write_text("{")

    await firewall.open_eni(eni)

    assert read_chains(table)[f"out_{GROUP}"] == []


async def test_a_change_makes_a_table_again_that_somebody_has_removed(
    without_owners: None, firewall: HostFirewall, table: str, eni: EniPlan, make_eni: MakeEni
) -> None:
    await firewall.open_eni(eni)
    nft("delete", "table", "inet", table)

    other = make_eni(security_groups=(GROUP,))
    await firewall.open_eni(other)

    members = {str(eni.address.ip), str(other.address.ip)}
    assert elements(read_chains(table), f"members4_{GROUP}") == members

    nft("delete", "table", "inet", table)
    await firewall.close_eni(eni)
    nft("delete", "table", "inet", table)
    await firewall.note_uplinks({4: ["eth9"]})
    chains = read_chains(table)
    assert elements(chains, "uplinks4") == {'"eth9"'}
    assert elements(chains, f"members4_{GROUP}") == {str(other.address.ip)}


async def test_a_kernel_without_packet_filter_ends_no_agent(
    firewall: HostFirewall, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise NetlinkError("listen", errno.EPROTONOSUPPORT)

    monkeypatch.setattr(watch, "open_events", refuse)
    serving = asyncio.create_task(firewall.serve())
    await eventually(lambda: "aren't heard of" in caplog.text)

    assert not serving.done()
    serving.cancel()
    await asyncio.wait([serving])


async def test_tasks_are_not_reached_by_the_host_if_it_may_not(
    instance: str, tmp_path: Path, host_left_clean: None, table: str, eni: EniPlan
) -> None:
    settings = FirewallSettings(host_reaches_tasks=False)
    async with HostFirewall(instance, tmp_path / FILE, settings, Findings()) as firewall:
        await firewall.open_eni(eni)

        ours = host_end_prefix(instance)
        assert read_chains(table)["output"][1:] == [
            f'oifname "{ours}*" ct state established,related accept',
            f'oifname "{ours}*" goto refused_in',
        ]
        await firewall.release()


async def test_what_is_refused_is_told_if_it_is_asked_for(
    instance: str, tmp_path: Path, host_left_clean: None, table: str
) -> None:
    settings = FirewallSettings(log_group=4711)
    async with HostFirewall(instance, tmp_path / FILE, settings, Findings()) as firewall:
        await firewall.ensure()

        pace = 'limit rate 200/second burst 1000 packets } log prefix "out" group 4711 drop'
        few = 'limit rate 1/second burst 1 packets } log prefix "out skipped" group 4711 drop'
        assert read_chains(table)["refused"] == [
            f"update @pace0_out4 {{ ip saddr timeout 1m {pace}",
            f"update @pace0_out6 {{ ip6 saddr timeout 1m {pace}",
            f"update @pace1_out4 {{ ip saddr timeout 1m {few}",
            f"update @pace1_out6 {{ ip6 saddr timeout 1m {few}",
            "drop",
        ]
        await firewall.release()


async def test_a_kernel_that_tells_of_nothing_still_filters(
    instance: str,
    tmp_path: Path,
    host_left_clean: None,
    table: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logged, "LOG", "nothing")
    findings = Findings()
    settings = FirewallSettings(log_group=4711)
    async with HostFirewall(instance, tmp_path / FILE, settings, findings) as firewall:
        await firewall.ensure()

        assert read_chains(table)["refused"] == ["drop"]
        assert [one.what for one in findings] == [logged.NO_LOG]
        await firewall.release()


async def test_who_had_an_address_before_loses_it(
    firewall: HostFirewall, table: str, make_eni: MakeEni
) -> None:
    before = make_eni(security_groups=(GROUP,))
    after = make_eni(security_groups=(FRIENDS,), address=before.address)
    await firewall.open_eni(before)

    await firewall.open_eni(after)
    await firewall.close_eni(before)

    chains = read_chains(table)
    assert elements(chains, f"members4_{GROUP}") == set()
    assert elements(chains, f"members4_{FRIENDS}") == {str(after.address.ip)}
