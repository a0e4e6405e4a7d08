"""What the host has beside its tasks, and the packet filter."""

import subprocess
import uuid
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from fargate_agent.findings import Findings
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.memory import FILE
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.veth import VethEni
from tests.fixtures.network import (
    ELSEWHERE,
    HOST_OUTSIDE,
    TEST_NETWORK,
    MakeEni,
    MakeNetns,
    ask_caller,
    remove_link,
    run_ip,
    serve_caller,
)
from tests.fixtures.packets import PORT, UDP, hearing, send

pytestmark = pytest.mark.root

SERVICE = IPv4Address("10.213.253.6")


@pytest.fixture
async def firewall(
    instance: str, tmp_path: Path, host_left_clean: None
) -> AsyncIterator[HostFirewall]:
    settings = FirewallSettings(host_ports=(("udp", 8081, 8081),))
    async with HostFirewall(instance, tmp_path / FILE, settings, Findings()) as firewall:
        yield firewall
        await firewall.release()


@pytest.fixture
async def service(make_netns: MakeNetns) -> AsyncIterator[Path]:
    """A namespace behind a link of the host."""
    netns, name = await make_netns(), f"fgt{uuid.uuid4().hex[:8]}"
    run_ip("link", "add", name, "type", "veth", "peer", "name", "out", "netns", str(netns))
    for address, side, where in (("10.213.253.5", name, None), (f"{SERVICE}", "out", netns)):
        run_ip("address", "add", f"{address}/30", "dev", side, netns=where)
        run_ip("link", "set", side, "up", netns=where)
    yield netns
    remove_link(name)


async def test_tasks_reach_what_the_host_publishes_if_the_port_is_open(
    veth: VethEni, make_eni: MakeEni, make_netns: MakeNetns, service: Path
) -> None:
    eni, netns = make_eni(), await make_netns()
    await veth.attach(eni, netns)
    table = f"test-{uuid.uuid4().hex[:8]}"
    rules = [f"add table ip {table}"]
    rules += [f"add chain ip {table} p {{ type nat hook prerouting priority -100; }}"]
    for port in (8080, 8081):
        match = f"ip daddr {eni.gateway} udp dport {port}"
        rules += [f"add rule ip {table} p {match} dnat to {SERVICE}:{PORT}"]
    subprocess.run(["nft", "; ".join(rules)], check=True)
    try:
        heard = []
        with hearing(service, "out") as wire:
            for port in (8080, 8081):
                send(netns, UDP, eni.gateway, port)
                packets = wire.read_until_marker(SERVICE)
                heard.append(any(b"probe" in packet.payload for packet in packets))
    finally:
        subprocess.run(["nft", "delete", "table", "ip", table], check=True)
        await veth.detach(eni, netns)

    assert heard == [False, True]


async def test_what_answers_the_host_in_the_vpcs_range_is_let_in(
    veth: VethEni, make_eni: MakeEni, make_netns: MakeNetns, wide_route: Path
) -> None:
    """A resolver of the machine's, for one."""
    eni, netns = make_eni(vpc_cidr_blocks=(TEST_NETWORK,)), await make_netns()
    await veth.attach(eni, netns)

    async with serve_caller(wide_route, ELSEWHERE) as port:
        assert await ask_caller(None, ELSEWHERE, port) == str(HOST_OUTSIDE)
    await veth.detach(eni, netns)
