"""Faults in the network of a task, by what becomes of its packets and by what the kernel holds."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Network, IPv6Interface, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final

import pytest

from fargate_agent.drivers.faults import (
    BlackHole,
    Impairment,
    Latency,
    Loss,
    Network,
    Traffic,
    Transport,
)
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.findings import Findings
from fargate_agent.network.faults.flows import render_flows
from fargate_agent.network.faults.injector import NO_IMPAIRMENTS_EFFECT, KernelFaults
from fargate_agent.network.faults.qdiscs import IMPAIRED
from fargate_agent.network.namespaces import inside
from fargate_agent.network.nft.connection import Nft
from fargate_agent.network.nft.objects import Table
from fargate_agent.network.veth import VethEni
from tests.fixtures.injection import (
    OTHER_PORT,
    PORT,
    Pair,
    Peer,
    ask,
    has_impairments,
    look,
    passes,
    show,
)
from tests.fixtures.network import MakeEni, MakeNetns
from tests.fixtures.packets import TCP, UDP, open_socket
from tests.fixtures.tmds import Endpoint, fetch

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

IPV6: Final = IPv6Network("fd00:213::/64")
ANYWHERE: Final = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))


@pytest.fixture
async def pair(veth: VethEni, make_eni: MakeEni, make_netns: MakeNetns) -> AsyncIterator[Pair]:
    """Two tasks that nothing keeps apart."""
    peers = []
    for place in (10, 11):
        eni = make_eni(ipv6_address=IPv6Interface((IPV6[place], 64)), ipv6_gateway=IPV6[1])
        peers.append(Peer(eni, await make_netns()))
        await veth.attach(peers[-1].eni, peers[-1].netns)
    yield Pair(*peers)
    for peer in peers:
        await veth.detach(peer.eni, peer.netns)


@pytest.fixture
def findings() -> Findings:
    return Findings()


@pytest.fixture
def faults(findings: Findings) -> KernelFaults:
    return KernelFaults(findings)


needs_impairments = pytest.mark.skipif(
    not has_impairments(),
    reason="the kernel has no sch_prio or no sch_netem; the VM's journey `injection` has them",
)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("traffic", list(Traffic))
@pytest.mark.parametrize("kind", [TCP, UDP])
async def test_black_hole_swallows_its_port_alone(
    kind: str, traffic: Traffic, version: int, pair: Pair, faults: KernelFaults
) -> None:
    hole = BlackHole(port=PORT, transport=Transport(kind), traffic=traffic)
    there_and_back = [(pair.task, pair.other), (pair.other, pair.task)]
    swallowed = there_and_back[0 if traffic is Traffic.EGRESS else 1]
    free = there_and_back[1 if traffic is Traffic.EGRESS else 0]
    other_kind = UDP if kind == TCP else TCP
    state = look(pair.task.netns)
    before = [passes(*way, kind, version) for way in there_and_back]

    await faults.swallow(pair.task.netns, hole, ())
    await faults.swallow(pair.task.netns, hole, ANYWHERE)  # changes nothing

    assert before == [True, True]
    assert not passes(*swallowed, kind, version)
    assert passes(*free, kind, version)
    assert passes(*swallowed, kind, version, OTHER_PORT)
    assert passes(*swallowed, other_kind, version)

    await faults.fill(pair.task.netns, hole)
    await faults.fill(pair.task.netns, hole)

    assert passes(*swallowed, kind, version)
    assert look(pair.task.netns) == state


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("traffic", list(Traffic))
async def test_who_is_exempt_from_a_black_hole_does_not_notice_it(
    traffic: Traffic, version: int, pair: Pair, faults: KernelFaults
) -> None:
    hole = BlackHole(port=PORT, transport=Transport.TCP, traffic=traffic)
    way = (pair.task, pair.other) if traffic is Traffic.EGRESS else (pair.other, pair.task)
    remote, netns = pair.other.address(version), pair.task.netns
    wide: Network = ip_network((remote, remote.max_prefixlen - 1), strict=False)
    foreign = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))

    async def passes_with(*exempt: Network) -> bool:
        await faults.swallow(netns, hole, exempt)
        try:
            return passes(*way, TCP, version)
        finally:
            await faults.fill(netns, hole)

    assert not await passes_with(*foreign)
    assert await passes_with(*foreign, ip_network(remote))
    assert await passes_with(wide)


async def test_black_holes_are_apart_from_each_other_and_from_other_tables(
    pair: Pair, faults: KernelFaults
) -> None:
    netns = pair.task.netns
    one = BlackHole(port=PORT, transport=Transport.TCP, traffic=Traffic.EGRESS)
    two = BlackHole(port=OTHER_PORT, transport=Transport.UDP, traffic=Traffic.EGRESS)
    guard = Table("fargate-eni-0123456789abcdef0")
    with Nft(netns) as nft:
        nft.transact("make a table", [guard.make(), guard.chain("egress-tcp-7777")])
    before = look(netns)

    await faults.swallow(netns, one, ())
    await faults.swallow(netns, two, ())
    await faults.fill(netns, one)
    next_agent = KernelFaults(Findings())

    assert [await next_agent.swallows(netns, hole) for hole in (one, two)] == [False, True]
    assert not passes(pair.task, pair.other, UDP, 4, OTHER_PORT)
    assert passes(pair.task, pair.other, TCP, 4)

    await next_agent.fill(netns, two)

    assert look(netns) == before


async def test_task_swallows_its_port_80_by_its_endpoint_which_still_answers(
    endpoint: Endpoint, pair: Pair
) -> None:
    netns = pair.task.netns
    task = await endpoint.add(netns, "web", enableFaultInjection=True)
    (container,) = task.containers
    base = f"/api/{container.metadata_id}/fault/v1/network-blackhole-port"
    body = json.dumps({"Port": 80, "Protocol": "tcp", "TrafficType": "egress"}).encode()
    before = look(netns)

    started = await fetch(netns, f"{base}/start", "POST", body)
    swallowed = not passes(pair.task, pair.other, TCP, 4, 80)
    status = await fetch(netns, f"{base}/status", "POST", body)
    told = await fetch(netns, f"/v4/{container.metadata_id}/task")
    stopped = await fetch(netns, f"{base}/stop", "POST", body)

    assert [(one.status, one.json) for one in (started, status, stopped)] == [
        (200, {"Status": "running"}),
        (200, {"Status": "running"}),
        (200, {"Status": "stopped"}),
    ]
    assert swallowed
    assert told.json["FaultInjectionEnabled"] is True
    assert passes(pair.task, pair.other, TCP, 4, 80)
    assert look(netns) == before


async def test_namespace_that_has_gone_is_a_reason(faults: KernelFaults, tmp_path: Path) -> None:
    hole = BlackHole(port=PORT, transport=Transport.TCP, traffic=Traffic.EGRESS)

    with pytest.raises(ResourceInitializationError, match="start black hole egress-tcp-7777: "):
        await faults.swallow(tmp_path / "gone", hole, ())


@pytest.mark.skipif(has_impairments(), reason="the kernel has sch_prio and sch_netem")
async def test_kernel_without_the_queues_says_so_and_nothing_is_left(
    endpoint: Endpoint, pair: Pair, faults: KernelFaults, findings: Findings
) -> None:
    netns = pair.task.netns
    task = await endpoint.add(netns, "web", enableFaultInjection=True)
    base = f"/api/{task.containers[0].metadata_id}/fault/v1/network-latency"
    asked = {"DelayMilliseconds": 5, "JitterMilliseconds": 0, "Sources": ["0.0.0.0/0"]}
    lossy = Impairment(effect=Loss(percent=100), destinations=ANYWHERE)
    before = look(netns)

    started = await fetch(netns, f"{base}/start", "POST", json.dumps(asked).encode())
    status = await fetch(netns, f"{base}/status", "POST")
    stopped = await fetch(netns, f"{base}/stop", "POST")
    with pytest.raises(ResourceInitializationError, match="the kernel has no sch_"):
        await faults.impair(netns, "eth1", lossy)

    assert (started.status, started.json["Error"]) == (500, "internal error")
    assert started.json["Reason"].startswith("the kernel has no sch_")
    assert (status.json, stopped.json) == ({"Status": "not-running"}, {"Status": "stopped"})
    assert [one.effect for one in findings] == [NO_IMPAIRMENTS_EFFECT]
    assert look(netns) == before


async def test_queue_of_somebody_else_stays_and_is_a_reason(
    pair: Pair, faults: KernelFaults
) -> None:
    netns = pair.task.netns
    tbf = ["rate", "1gbit", "burst", "1mbit", "latency", "1ms"]
    show(netns, "tc", "qdisc", "add", "dev", "eth1", "root", "handle", "9:", "tbf", *tbf)
    before = look(netns)

    with pytest.raises(ResourceInitializationError):
        await faults.impair(
            netns, "eth1", Impairment(effect=Loss(percent=100), destinations=ANYWHERE)
        )
    await faults.repair(netns, "eth1")

    assert look(netns) == before
    assert await faults.find_impairment(netns, "eth1") is None


async def test_flows_are_chosen_as_a_whole_and_as_many_as_are_asked_for(pair: Pair) -> None:
    """By rules alone: what is marked would be impaired, and is dropped here instead."""
    netns, address = pair.task.netns, pair.other.address(4)
    table = Table("fargate-faults")
    half = Impairment(
        effect=Loss(percent=100), destinations=(ip_network(address),), flows_percent=50
    )
    with Nft(netns) as nft:
        nft.transact("mark", [table.make(), *render_flows(table, "eth1", half, IMPAIRED)])
    show(netns, "nft", "add table inet counts")
    show(netns, "nft", "add chain inet counts c { type filter hook postrouting priority 301; }")
    show(netns, "nft", "add rule inet counts c udp dport 7777 meta priority ec5:1 drop")

    def send(own: int) -> bool:
        try:
            with open_socket(netns, address, socket.SOCK_DGRAM) as flow:
                flow.bind((str(pair.task.address(4)), own))
                flow.sendto(b"x", (str(address), PORT))
        except PermissionError:  # dropped on its way out
            return False
        return True

    ports = range(20_000, 20_400)
    first, second = [[send(own) for own in ports] for _ in range(2)]

    assert first == second
    assert 100 < sum(first) < 300


@needs_impairments
@pytest.mark.parametrize("version", [4, 6])
async def test_latency_holds_for_its_destinations_alone_and_ends(
    version: int, pair: Pair, faults: KernelFaults
) -> None:
    netns, remote = pair.task.netns, ip_network(pair.other.address(version))
    before = look(netns)
    late = Latency(delay_ms=300, jitter_ms=0)

    await faults.impair(netns, "eth1", Impairment(effect=late, destinations=(remote,)))
    kind, took_s = (
        await faults.find_impairment(netns, "eth1"),
        await asyncio.to_thread(ask, pair, version),
    )
    await faults.repair(netns, "eth1")

    assert kind is Latency
    assert took_s is not None
    assert took_s >= 0.3
    assert look(netns) == before


@needs_impairments
async def test_loss_is_total_but_for_who_is_exempt(pair: Pair, faults: KernelFaults) -> None:
    netns, remote = pair.task.netns, ip_network(pair.other.address(4))
    loss = Loss(percent=100)

    def lossy(**more: Any) -> Impairment:
        return Impairment(effect=loss, destinations=ANYWHERE, **more)

    await faults.impair(netns, "eth1", lossy(exempt=(remote,)))
    exempt = passes(pair.task, pair.other, UDP, 4)
    await faults.impair(netns, "eth1", lossy())
    kind = await faults.find_impairment(netns, "eth1")
    with inside(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.sendto(b"probe", (str(pair.other.address(4)), PORT))
    lost = show(netns, "tc", "-s", "qdisc", "show", "dev", "eth1", "handle", "ec6:")
    await faults.repair(netns, "eth1")

    assert (exempt, kind) == (True, Loss)
    assert "dropped 1," in lost
