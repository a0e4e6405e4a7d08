"""What tasks of a private subnet reach, and what reaches them, packet by packet."""

import socket
import subprocess
import uuid
from collections.abc import AsyncIterator
from ipaddress import IPv4Network, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from fargate_agent.findings import Findings
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.memory import FILE
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.veth import VethEni
from fargate_agent.plan import EniPlan
from fargate_agent.plan.security_groups import GroupPlan, RulePlan
from tests.fixtures.network import MakeEni, MakeNetns
from tests.fixtures.outside import IPV6, OUTSIDE
from tests.fixtures.packets import PORT, TCP, UDP, Address, arrives, hearing, open_socket, send

pytestmark = pytest.mark.root

GROUP = "sg-0aaa"
EVERYTHING = RulePlan(protocol="-1", cidrs=(IPv4Network("0.0.0.0/0"), IPv6Network("::/0")))


@pytest.fixture
async def firewall(
    instance: str, tmp_path: Path, host_left_clean: None
) -> AsyncIterator[HostFirewall]:
    settings = FirewallSettings(host_ports=(("udp", 8081, 8082),))
    async with HostFirewall(instance, tmp_path / FILE, settings, Findings()) as firewall:
        await firewall.learn([GroupPlan(id=GROUP, ingress=(EVERYTHING,), egress=(EVERYTHING,))])
        yield firewall
        await firewall.release()


class Task:
    """One that is attached."""

    def __init__(self, eni: EniPlan, netns: Path) -> None:
        self.eni = eni
        self.netns = netns

    def address(self, version: int) -> Address:
        if version == 4:
            return self.eni.address.ip
        assert self.eni.ipv6_address is not None
        return self.eni.ipv6_address.ip


@pytest.fixture
async def tasks(
    veth: VethEni, make_eni: MakeEni, make_netns: MakeNetns, machine: Path
) -> AsyncIterator[tuple[Task, Task]]:
    """One in a private subnet, and one in another."""
    made = []
    for number, nat in enumerate((False, True)):
        eni = make_eni(
            security_groups=(GROUP,),
            nat=nat,
            ipv6_address=IPv6Interface((IPV6[10 + number], 64)),
            ipv6_gateway=IPV6[1],
        )
        made.append(Task(eni, await make_netns()))
        await veth.attach(eni, made[-1].netns)
    yield made[0], made[1]
    for one in made:
        await veth.detach(one.eni, one.netns)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", [TCP, UDP])
async def test_a_private_subnet_reaches_its_vpc_alone(
    tasks: tuple[Task, Task], machine: Path, kind: str, version: int
) -> None:
    private, public = tasks
    outside = OUTSIDE[version]

    assert not arrives(private.netns, machine, "out", kind, outside)
    assert arrives(public.netns, machine, "out", kind, outside)
    assert arrives(private.netns, public.netns, "eth1", kind, public.address(version))
    assert arrives(public.netns, private.netns, "eth1", kind, private.address(version))


@pytest.mark.parametrize("version", [4, 6])
async def test_a_private_subnet_is_reached_by_its_vpc_and_the_host_alone(
    tasks: tuple[Task, Task], machine: Path, version: int
) -> None:
    private, public = tasks

    assert not arrives(machine, private.netns, "eth1", UDP, private.address(version))
    assert arrives(machine, public.netns, "eth1", UDP, public.address(version))
    assert arrives(None, private.netns, "eth1", UDP, private.address(version))


async def test_a_private_subnet_reaches_the_ports_of_the_host(
    tasks: tuple[Task, Task], machine: Path
) -> None:
    private, _ = tasks
    gateway = private.eni.gateway
    table = f"test-{uuid.uuid4().hex[:8]}"
    published = f"ip daddr {gateway} udp dport 8081 dnat to {OUTSIDE[4]}:{PORT}"
    rules = [f"add table ip {table}"]
    rules += [f"add chain ip {table} p {{ type nat hook prerouting priority -100; }}"]
    rules += [f"add rule ip {table} p {published}"]
    subprocess.run(["nft", "; ".join(rules)], check=True)
    try:
        with (
            hearing(machine, "out") as wire,
            open_socket(None, gateway, socket.SOCK_DGRAM) as service,
        ):
            service.bind((str(gateway), 8082))
            send(private.netns, UDP, gateway, 8082)
            assert service.recv(100) == b"probe"

            send(private.netns, UDP, gateway, 8081)
            packets = wire.read_until_marker(OUTSIDE[4])
            assert any(b"probe" in packet.payload for packet in packets)
    finally:
        subprocess.run(["nft", "delete", "table", "ip", table], check=True)


async def test_a_private_subnet_stays_one_when_the_table_is_made_again(
    tasks: tuple[Task, Task], machine: Path, firewall: HostFirewall, instance: str, tmp_path: Path
) -> None:
    await firewall.__aexit__()
    async with HostFirewall(instance, tmp_path / FILE, FirewallSettings()) as successor:
        await successor.adopt([one.eni for one in tasks])

        assert not arrives(tasks[0].netns, machine, "out", UDP, OUTSIDE[4])
        assert arrives(tasks[1].netns, machine, "out", UDP, OUTSIDE[4])
