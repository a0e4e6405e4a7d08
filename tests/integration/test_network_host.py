"""What tasks can change of the host's own network, and what the agent does."""

import asyncio
import socket
import struct
import uuid
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from fargate_agent.network.bridge import Bridges
from fargate_agent.network.forwarding import ensure_forwarding
from fargate_agent.network.names import veth_name
from fargate_agent.network.namespaces import inside, socket_in_netns
from fargate_agent.network.veth import VethEni
from fargate_agent.plan import EniPlan
from tests.fixtures.network import MakeEni, MakeNetns, read_ip, run_ip
from tests.fixtures.pulls import eventually

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

CONF = Path("/proc/sys/net")
ANNOUNCED = IPv6Network("2001:db8:213::/64")
ALL_NODES = IPv6Address("ff02::1")
LIFETIME_S = 20
ROUTER_ADVERTISEMENT = 134
"""Source: RFC 4861, section 4.2."""


def render_advertisement(sender: bytes) -> bytes:
    """A frame in which a router announces a prefix for addresses, and itself for that time."""
    source = IPv6Address("fe80::213:1").packed
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, LIFETIME_S, LIFETIME_S, 0)
    body = struct.pack("!BBHII", 64, 0, LIFETIME_S, 0, 0) + prefix
    body += ANNOUNCED.network_address.packed
    length = 4 + len(body)
    pseudo = source + ALL_NODES.packed + struct.pack("!IHBB", length, 0, 0, socket.IPPROTO_ICMPV6)
    head = struct.pack("!BB", ROUTER_ADVERTISEMENT, 0)
    words = struct.unpack(f"!{(len(pseudo) + length) // 2}H", pseudo + head + b"\0\0" + body)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    packet = struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_ICMPV6, 255)
    packet += source + ALL_NODES.packed + head + struct.pack("!H", ~total & 0xFFFF) + body
    return bytes.fromhex("333300000001") + sender + b"\x86\xdd" + packet


def announce(netns: Path, name: str) -> None:
    """Send it out of an interface of a namespace."""
    (link,) = read_ip("link", "show", name, netns=netns)
    sender = bytes.fromhex(link["address"].replace(":", ""))
    with socket_in_netns(netns, socket.AF_PACKET, socket.SOCK_RAW) as card:
        card.bind((name, 0))
        card.send(render_advertisement(sender))


def count_advertisements(name: str) -> int:
    """How many have come in through an interface of the thread's namespace."""
    lines = Path(f"/proc/thread-self/net/dev_snmp6/{name}").read_text().splitlines()
    counters = dict(line.split() for line in lines)
    return int(counters.get(f"Icmp6InType{ROUTER_ADVERTISEMENT}", 0))


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4 only", "with IPv6"])
async def test_a_router_that_a_task_plays_is_ignored(
    ipv6: bool, netns: Path, make_eni: MakeEni, veth: VethEni, bridges: Bridges
) -> None:
    subnet = IPv6Network("fd00:213:2::/64")
    addresses = {"ipv6_address": IPv6Interface((subnet[5], 64)), "ipv6_gateway": subnet[1]}
    eni = make_eni(**addresses if ipv6 else {})
    await veth.attach(eni, netns)

    def has_come() -> bool:
        announce(netns, "eth1")
        return count_advertisements(bridges.name_of(eni)) > 0

    await eventually(has_come)

    believed = run_ip("-6", "address") + run_ip("-6", "route")
    assert str(ANNOUNCED.network_address) not in believed
    assert "fe80::213:1" not in believed
    await veth.detach(eni, netns)


@pytest.mark.parametrize(
    "setting",
    [
        "ipv4/{}/accept_redirects",
        "ipv6/{}/accept_ra",
        "ipv6/{}/accept_redirects",
        "ipv6/{}/autoconf",
    ],
)
async def test_interfaces_of_the_host_take_nothing_from_tasks(
    setting: str, attached: EniPlan, netns: Path, bridges: Bridges, instance: str, veth: VethEni
) -> None:
    for name in (bridges.name_of(attached), veth_name(instance, attached.id)):
        path = CONF / setting.format(f"conf/{name}")
        assert path.read_text() == "0\n"
        path.write_text("1")  # as an older agent left it

    await veth.attach(attached, netns)

    for name in (bridges.name_of(attached), veth_name(instance, attached.id)):
        assert (CONF / setting.format(f"conf/{name}")).read_text() == "0\n"


def read_global_settings() -> dict[Path, str]:
    """The settings of the thread's namespace that are for all interfaces, and for new ones."""
    return {
        path: path.read_text()
        for version in ("ipv4", "ipv6")
        for scope in ("all", "default")
        for path in (CONF / version / "conf" / scope).iterdir()
        if path.name != "stable_secret"  # can't be read before it is set
    }


@dataclass(frozen=True)
class Host:
    """A namespace in the place of a host, and the router on its wire."""

    netns: Path
    router: Path

    def read(self, setting: str) -> str:
        with inside(self.netns):
            return (CONF / setting).read_text().strip()

    def write(self, setting: str, value: str) -> None:
        with inside(self.netns):
            (CONF / setting).write_text(value)


@pytest.fixture
async def host(make_netns: MakeNetns) -> Host:
    """One with two NICs, `wan` to a router and `idle`, and no forwarding."""
    netns, router = await make_netns(), await make_netns()
    wire = f"fgt{uuid.uuid4().hex[:8]}"
    peer = ("peer", "name", wire, "netns", str(router))
    run_ip("link", "add", "wan", "type", "veth", *peer, netns=netns)
    run_ip("link", "add", "idle", "type", "veth", "peer", "name", "other", netns=netns)
    for address in ("10.213.254.1/24", "fd00:213:3::1/64"):
        run_ip("address", "add", address, "dev", "wan", netns=netns)
    for name in ("wan", "idle"):
        run_ip("link", "set", name, "up", netns=netns)
    run_ip("link", "set", wire, "name", "wire", "up", netns=router)
    return Host(netns, router)


@pytest.fixture
def without_force_forwarding(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the kernel were older than 6.17."""
    monkeypatch.setattr("fargate_agent.network.forwarding.FORCE_FORWARDING", "no_such_setting")


@pytest.mark.parametrize(
    ("version", "setting"),
    [(4, "ipv4/conf/{}/forwarding"), (6, "ipv6/conf/{}/force_forwarding")],
    ids=["ipv4", "ipv6"],
)
async def test_interfaces_with_routes_forward_and_the_whole_host_stays_as_it_is(
    version: int, setting: str, host: Host
) -> None:
    with inside(host.netns):
        if not (CONF / setting.format("all")).exists():
            pytest.skip("the kernel can't forward IPv6 on single interfaces")
        before = read_global_settings()

        ensure_forwarding(version)

        assert read_global_settings() == before
    assert host.read(setting.format("wan")) == "1"
    assert host.read(setting.format("idle")) == "0"


async def test_a_host_that_forwards_is_left_alone(host: Host) -> None:
    host.write("ipv4/ip_forward", "1")
    host.write("ipv4/conf/wan/forwarding", "0")

    with inside(host.netns):
        ensure_forwarding(4)

    assert host.read("ipv4/conf/wan/forwarding") == "0"


@pytest.mark.usefixtures("without_force_forwarding")
@pytest.mark.parametrize("what", ["bridge", "master"])
async def test_uplinks_that_listen_to_routers_go_on_when_the_host_forwards(
    host: Host, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wan", "idle"):
        host.write(f"ipv6/conf/{name}/accept_ra", "1")
    (tmp_path / "idle" / what).mkdir(parents=True)  # sysfs shows no other network namespace
    monkeypatch.setattr("fargate_agent.network.forwarding._LINKS", tmp_path)

    with inside(host.netns):
        ensure_forwarding(6)

    assert host.read("ipv6/conf/all/forwarding") == "1"
    assert host.read("ipv6/conf/wan/accept_ra") == "2"  # before it has heard any
    assert host.read("ipv6/conf/idle/accept_ra") == "1"
    assert host.read("ipv6/conf/default/accept_ra") == "0"


async def test_an_uplink_that_comes_while_tasks_run_forwards_too(
    bridges: Bridges, make_eni: MakeEni, netns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fargate_agent.network.bridge.FORWARDING_PERIOD_S", 0.01)
    (CONF / "ipv4/ip_forward").write_text("0")
    eni, driver = make_eni(), VethEni(bridges)
    await driver.attach(eni, netns)
    job = asyncio.create_task(bridges.keep_forwarding())

    run_ip("link", "add", "late", "type", "veth", "peer", "name", "latepeer")
    run_ip("addr", "add", "198.51.100.1/24", "dev", "late")
    run_ip("link", "set", "late", "up")

    forwarding = CONF / "ipv4/conf/late/forwarding"
    await eventually(lambda: forwarding.read_text().strip() == "1")
    job.cancel()
    await asyncio.wait([job])
    run_ip("link", "del", "late")
    await driver.detach(eni, netns)
