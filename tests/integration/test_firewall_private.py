"""Private subnets: what their tasks reach, and what leaves the VPC."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.rules import VERSIONS
from fargate_agent.plan.security_groups import RulePlan
from tests.fixtures.firewall import ANYWHERE, IPV6, SAME, Cloud, group
from tests.fixtures.network import TEST_NETWORK, MakeNetns, remove_link, run_ip
from tests.fixtures.packets import ICMP, TCP, UDP, arrives

pytestmark = pytest.mark.root

VPC = (TEST_NETWORK, IPV6)
ALL = RulePlan(protocol="-1", cidrs=ANYWHERE)


@pytest.fixture
def firewall(real_firewall: HostFirewall) -> HostFirewall:
    """What ENIs of this module are behind."""
    return real_firewall


@dataclass
class Outside:
    """A machine that is in no VPC."""

    netns: Path
    addresses: tuple[IPv4Address, IPv6Address]

    def hears(self, sender: Path, kind: str, version: int) -> bool:
        address = next(one for one in self.addresses if one.version == version)
        return arrives(sender, self.netns, "out", kind, address)


@pytest.fixture
async def outside(make_netns: MakeNetns) -> AsyncIterator[Outside]:
    """It is behind a link of the host, and has routes back to the host."""
    switches = [Path(f"/proc/sys/net/ipv{one}/conf/all/forwarding") for one in VERSIONS]
    before = [one.read_text() for one in switches]
    for switch in switches:
        switch.write_text("1")
    netns, name = await make_netns(), "fgprivate0"
    networks = (IPv4Network("198.51.100.0/30"), IPv6Network("2001:db8:c::/64"))
    run_ip("link", "add", name, "type", "veth", "peer", "name", "out", "netns", str(netns))
    for place, side, where in ((1, name, None), (2, "out", netns)):
        for network in networks:
            address = f"{network[place]}/{network.prefixlen}"
            run_ip("address", "add", address, "dev", side, "nodad", netns=where)
        run_ip("link", "set", side, "up", netns=where)
    for network in networks:
        run_ip("route", "add", "default", "via", str(network[1]), netns=netns)
    yield Outside(netns, (networks[0][2], networks[1][2]))
    remove_link(name)
    for switch, value in zip(switches, before, strict=True):
        switch.write_text(value)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", [TCP, UDP, ICMP])
async def test_task_of_a_private_subnet_reaches_its_vpc_alone(
    cloud: Cloud, firewall: HostFirewall, outside: Outside, kind: str, version: int
) -> None:
    await firewall.learn([group(SAME, ALL)], is_whole=True)
    private = await cloud.start(SAME, vpc_cidr_blocks=VPC, nat=False)
    public = await cloud.start(SAME, vpc_cidr_blocks=VPC)

    assert public.hears(private, kind, version)
    assert private.hears(public, kind, version)
    assert outside.hears(public.netns, kind, version)
    assert not outside.hears(private.netns, kind, version)


async def test_it_stays_private_with_the_next_agent(
    cloud: Cloud, firewall: HostFirewall, outside: Outside
) -> None:
    await firewall.learn([group(SAME, ALL)], is_whole=True)
    private = await cloud.start(SAME, vpc_cidr_blocks=VPC, nat=False)
    await firewall.release()
    await firewall.adopt([private.eni])

    assert not outside.hears(private.netns, UDP, 4)
