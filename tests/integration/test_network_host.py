"""What tasks can change of the host's own network, and what the agent does."""

import asyncio
import json
import socket
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from fargate_agent.network.forwarding import Forwarding
from fargate_agent.network.namespaces import inside, socket_in_netns
from fargate_agent.network.veth import VethEni
from fargate_agent.plan import EniPlan
from tests.fixtures.network import MakeEni, MakeNetns, MakeVeth, OpenFirewall, read_ip, run_ip
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
    ipv6: bool, netns: Path, make_eni: MakeEni, veth: VethEni
) -> None:
    subnet = IPv6Network("fd00:213:2::/64")
    addresses = {"ipv6_address": IPv6Interface((subnet[5], 64)), "ipv6_gateway": subnet[1]}
    eni = make_eni(**addresses if ipv6 else {})
    await veth.attach(eni, netns)
    (end,) = [link for link in read_ip("link") if link.get("ifalias", "").endswith(eni.id)]

    def has_come() -> bool:
        announce(netns, "eth1")
        return count_advertisements(end["ifname"]) > 0

    await eventually(has_come)

    believed = run_ip("-6", "address") + run_ip("-6", "route")
    assert str(ANNOUNCED.network_address) not in believed
    assert "fe80::213:1" not in believed
    await veth.detach(eni, netns)


def read_settings() -> dict[Path, str]:
    """The settings of all interfaces of the thread's namespace."""
    return {
        path: path.read_text()
        for version in ("ipv4", "ipv6")
        for path in (CONF / version / "conf").glob("*/*")
        if path.name != "stable_secret"  # can't be read before it is set
    }


def read_global_settings() -> dict[Path, str]:
    """Those that are for all interfaces, and for new ones."""
    settings = read_settings()
    return {path: settings[path] for path in settings if path.parent.name in {"all", "default"}}


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
def forwarding(tmp_path: Path) -> Forwarding:
    """What an agent has changed, whose interfaces are named `fgxxxx…`."""
    return Forwarding(tmp_path / "forwarding.json", "fgxxxx")


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
    version: int, setting: str, host: Host, forwarding: Forwarding
) -> None:
    with inside(host.netns):
        if not (CONF / setting.format("all")).exists():
            pytest.skip("the kernel can't forward IPv6 on single interfaces")
        before = read_global_settings()

        forwarding.ensure(version)

        assert read_global_settings() == before
        assert forwarding.find([version])[version] - {"eth0"} == {"wan"}
    assert host.read(setting.format("wan")) == "1"
    assert host.read(setting.format("idle")) == "0"


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
async def test_what_will_forward_is_known_before_it_does(
    version: int, host: Host, forwarding: Forwarding, tmp_path: Path
) -> None:
    with inside(host.netns):
        before = forwarding.find([version])
        forwarding.ensure(version)
        after = forwarding.find([version])

        of_next_agent = Forwarding(tmp_path / "forwarding.json", "fgxxxx").find([])

    assert before == after == of_next_agent
    assert before[version] - {"eth0"} == {"wan"}


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("is_old", [False, True], ids=["by interface", "the whole host"])
async def test_the_next_agent_puts_back_what_was_off(
    version: int,
    is_old: bool,
    host: Host,
    forwarding: Forwarding,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    if is_old:
        request.getfixturevalue("without_force_forwarding")
    host.write("ipv6/conf/wan/accept_ra", "1")
    with inside(host.netns):
        before = read_settings()
        forwarding.ensure(version)
        assert read_settings() != before

        Forwarding(tmp_path / "forwarding.json", "fgxxxx").restore()

        assert read_settings() == before
    assert not (tmp_path / "forwarding.json").exists()


async def test_a_host_that_somebody_else_makes_a_router_since_is_his(
    host: Host, forwarding: Forwarding
) -> None:
    """Only of that version of IP."""
    with inside(host.netns):
        forwarding.ensure(4)
        forwarding.ensure(6)
    host.write("ipv4/ip_forward", "1")

    with inside(host.netns):
        found = forwarding.find([4])

    assert found[4] == set()
    assert "wan" in found[6]


async def test_what_somebody_has_changed_since_stays(host: Host, forwarding: Forwarding) -> None:
    with inside(host.netns):
        forwarding.ensure(4)
    host.write("ipv4/conf/wan/forwarding", "0")
    host.write("ipv4/conf/idle/forwarding", "1")

    with inside(host.netns):
        forwarding.restore()

    assert host.read("ipv4/conf/wan/forwarding") == "0"
    assert host.read("ipv4/conf/idle/forwarding") == "1"


@pytest.mark.parametrize(
    ("version", "setting"),
    [(4, "ipv4/conf/{}/forwarding"), (6, "ipv6/conf/{}/force_forwarding")],
    ids=["ipv4", "ipv6"],
)
async def test_what_somebody_has_switched_on_for_all_stays_on_everywhere(
    version: int, setting: str, host: Host, forwarding: Forwarding
) -> None:
    with inside(host.netns):
        if not (CONF / setting.format("all")).exists():
            pytest.skip("the kernel can't forward IPv6 on single interfaces")
        forwarding.ensure(version)
    host.write(setting.format("all"), "1")

    with inside(host.netns):
        before = read_settings()
        forwarding.restore()
        assert read_settings() == before


async def test_what_was_written_down_before_the_machine_started_is_forgotten(
    host: Host, forwarding: Forwarding, tmp_path: Path
) -> None:
    changed = {"ipv4/conf/wan/forwarding": ["0", "1"]}
    noted = json.dumps({"boot": "another", "changed": changed})
    (tmp_path / "forwarding.json").write_text(noted)
    host.write("ipv4/conf/wan/forwarding", "1")

    with inside(host.netns):
        forwarding.restore()

    assert host.read("ipv4/conf/wan/forwarding") == "1"


async def test_a_host_that_forwards_is_left_alone(host: Host, forwarding: Forwarding) -> None:
    host.write("ipv4/ip_forward", "1")
    host.write("ipv4/conf/wan/forwarding", "0")

    with inside(host.netns):
        forwarding.ensure(4)

    assert host.read("ipv4/conf/wan/forwarding") == "0"


@pytest.mark.usefixtures("without_force_forwarding")
@pytest.mark.parametrize("what", ["bridge", "master"])
async def test_uplinks_that_listen_to_routers_go_on_when_the_host_forwards(
    host: Host,
    forwarding: Forwarding,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("wan", "idle"):
        host.write(f"ipv6/conf/{name}/accept_ra", "1")
    (tmp_path / "idle" / what).mkdir(parents=True)  # sysfs shows no other network namespace
    monkeypatch.setattr("fargate_agent.network.forwarding._LINKS", tmp_path)

    with inside(host.netns):
        forwarding.ensure(6)

    assert host.read("ipv6/conf/all/forwarding") == "1"
    assert host.read("ipv6/conf/wan/accept_ra") == "2"  # before it has heard any
    assert host.read("ipv6/conf/idle/accept_ra") == "1"
    assert host.read("ipv6/conf/default/accept_ra") == "0"


def is_on(setting: Path) -> bool:
    return setting.read_text().strip() == "1"


@pytest.fixture
def forwarding_off(test_network: object) -> Iterator[None]:
    """The host of the test forwards nothing, and is as before in the end."""
    path = CONF / "ipv4/ip_forward"
    before = path.read_text()
    path.write_text("0")
    yield
    path.write_text(before)


@pytest.mark.usefixtures("forwarding_off")
@pytest.mark.parametrize("has_eni", [True, False], ids=["with an ENI", "without"])
async def test_an_agent_that_ends_puts_forwarding_back_unless_there_is_an_eni(
    has_eni: bool, eni: EniPlan, netns: Path, veth: VethEni, make_veth: MakeVeth
) -> None:
    """Also one that has not taken over the ENI yet."""
    run_ip("link", "add", "late", "type", "veth", "peer", "name", "latepeer")
    run_ip("addr", "add", "198.51.100.1/24", "dev", "late")
    run_ip("link", "set", "late", "up")
    await veth.attach(eni, netns)
    if not has_eni:
        await veth.detach(eni, netns)
    assert is_on(CONF / "ipv4/conf/late/forwarding")

    job = asyncio.create_task(make_veth().serve())
    await asyncio.sleep(0)
    job.cancel()
    await asyncio.wait([job])

    assert is_on(CONF / "ipv4/conf/late/forwarding") == has_eni
    run_ip("link", "del", "late")
    await veth.detach(eni, netns)


@pytest.mark.usefixtures("forwarding_off")
async def test_an_uplink_that_comes_while_tasks_run_forwards_too(
    eni: EniPlan,
    netns: Path,
    veth: VethEni,
    firewall: OpenFirewall,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The firewall is told of it before; and what was switched off on the host's end is on."""
    monkeypatch.setattr("fargate_agent.network.veth.FORWARDING_PERIOD_S", 0.01)
    await veth.attach(eni, netns)
    (end,) = [link for link in read_ip("link") if link.get("ifalias", "").endswith(eni.id)]
    (CONF / "ipv4/conf" / end["ifname"] / "forwarding").write_text("0")
    job = asyncio.create_task(veth.serve())

    run_ip("link", "add", "late", "type", "veth", "peer", "name", "latepeer")
    run_ip("addr", "add", "198.51.100.1/24", "dev", "late")
    run_ip("link", "set", "late", "up")

    for name in ("late", end["ifname"]):
        forwarding = CONF / f"ipv4/conf/{name}/forwarding"
        await eventually(partial(is_on, forwarding))
    assert "uplinks4 late" in firewall.told
    job.cancel()
    await asyncio.wait([job])
    assert (CONF / "ipv4/conf/late/forwarding").read_text().strip() == "1"  # there is an ENI
    run_ip("link", "del", "late")
    await veth.detach(eni, netns)


@pytest.mark.usefixtures("forwarding_off")
@pytest.mark.parametrize("version", [4, 6])
async def test_forwarding_that_somebody_switches_off_for_the_whole_host_comes_back_at_once(
    version: int, make_eni: MakeEni, netns: Path, veth: VethEni, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the agent looks by itself."""
    monkeypatch.setattr("fargate_agent.network.veth.FORWARDING_PERIOD_S", 1000)
    switch = CONF / f"ipv{version}/conf/all/forwarding"
    before = switch.read_text()
    subnet = IPv6Network("fd00:213:2::/64")
    eni = make_eni(ipv6_address=IPv6Interface((subnet[5], 64)), ipv6_gateway=subnet[1])
    await veth.attach(eni, netns)
    (end,) = [link for link in read_ip("link") if link.get("ifalias", "").endswith(eni.id)]
    own = CONF / f"ipv{version}/conf/{end['ifname']}"
    setting = own / ("forwarding" if version == 4 else "force_forwarding")
    if not setting.exists():
        pytest.skip("the kernel can't forward IPv6 on single interfaces")
    job = asyncio.create_task(veth.serve())
    await asyncio.sleep(0)

    switch.write_text("1")
    switch.write_text("0")

    await eventually(partial(is_on, setting))
    job.cancel()
    await asyncio.wait([job])
    switch.write_text(before)
    await veth.detach(eni, netns)
