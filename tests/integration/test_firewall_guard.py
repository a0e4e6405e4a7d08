"""What a task sends and receives on a wire that the host doesn't route, packet by packet."""

import random
import socket
import struct
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from fargate_agent.findings import Findings
from fargate_agent.network.firewall import guards
from fargate_agent.network.firewall.firewall import HostFirewall
from fargate_agent.network.firewall.guard_tables import link_local_of, render_egress_guard
from fargate_agent.network.firewall.memory import FILE
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.namespaces import inside
from fargate_agent.network.nft.expressions import expression
from fargate_agent.network.nft.objects import Table
from fargate_agent.plan import EniPlan
from fargate_agent.plan.security_groups import GroupPlan, RulePlan
from fargate_agent.wire.eni_kinds import EniKind
from tests.fixtures.network import MakeEni, MakeNetns, run_ip
from tests.fixtures.packets import PORT, TCP, UDP, Address, hearing, open_socket, send

pytestmark = pytest.mark.root

IPV6 = IPv6Network("fd00:213::/64")
ANYWHERE = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
GROUP, FRIENDS = "sg-0aaa", "sg-0bbb"
MAX_FLOWS = 16
OUT = RulePlan(protocol="-1", cidrs=ANYWHERE)


@dataclass
class Lan:
    """A task's interface, and another machine at the other end of its wire."""

    eni: EniPlan
    task: Path
    other: Path
    other_v4: IPv4Address
    other_v6: IPv6Address
    other_mac: bytes

    def own(self, version: int) -> Address:
        assert self.eni.ipv6_address is not None
        return self.eni.address.ip if version == 4 else self.eni.ipv6_address.ip

    def peer(self, version: int) -> Address:
        return self.other_v4 if version == 4 else self.other_v6

    @property
    def mac(self) -> bytes:
        return bytes.fromhex(self.eni.mac.replace(":", ""))


@pytest.fixture
def findings() -> Findings:
    return Findings()


@pytest.fixture
async def firewall(
    instance: str, tmp_path: Path, findings: Findings, host_left_clean: None
) -> AsyncIterator[HostFirewall]:
    settings = FirewallSettings(max_tracked_flows=MAX_FLOWS)
    async with HostFirewall(instance, tmp_path / FILE, settings, findings) as firewall:
        yield firewall


@pytest.fixture
async def lan(make_eni: MakeEni, make_netns: MakeNetns, subnet: IPv4Network) -> Lan:
    eni = make_eni(
        kind=EniKind.MACVLAN,
        ifname="wire",
        parent="none",
        security_groups=(GROUP,),
        ipv6_address=IPv6Interface((IPV6[5], 64)),
    )
    task, other = await make_netns(), await make_netns()
    name = f"fgt{uuid.uuid4().hex[:8]}"
    run_ip(
        "link",
        "add",
        name,
        "netns",
        str(task),
        "type",
        "veth",
        "peer",
        "name",
        "wire",
        "netns",
        str(other),
    )
    run_ip("link", "set", name, "name", "wire", "address", eni.mac, netns=task)
    mac = bytes((2, *random.randbytes(5)))
    run_ip("link", "set", "wire", "address", mac.hex(":"), netns=other)
    peers = (subnet[-3], IPV6[9])
    for netns, addresses in (
        (task, (eni.address, eni.ipv6_address)),
        (other, (f"{peers[0]}/{subnet.prefixlen}", f"{peers[1]}/64")),
    ):
        run_ip("link", "set", "wire", "up", netns=netns)
        for address in addresses:
            run_ip("address", "add", str(address), "dev", "wire", "nodad", netns=netns)
    return Lan(eni, task, other, *peers, mac)


@pytest.fixture
async def guarded(lan: Lan, firewall: HostFirewall) -> AsyncIterator[Lan]:
    """The task's group lets out everything, and nothing in."""
    await firewall.learn([GroupPlan(id=GROUP, egress=(OUT,))])
    await firewall.guard_netns(lan.eni, lan.task)
    yield lan
    await firewall.unguard_netns(lan.eni, lan.task)


def is_let_in(lan: Lan, version: int, kind: str = UDP, port: int = PORT) -> bool:
    """Whether a first packet reaches a socket of the task; answers to what it has sent do."""
    own, peer = lan.own(version), lan.peer(version)
    with ExitStack() as stack:
        type_ = socket.SOCK_DGRAM if kind == UDP else socket.SOCK_STREAM
        target = stack.enter_context(open_socket(lan.task, own, type_))
        asking = stack.enter_context(open_socket(lan.task, own, socket.SOCK_DGRAM))
        answering = stack.enter_context(open_socket(lan.other, peer, socket.SOCK_DGRAM))
        target.bind((str(own), port))
        if kind == TCP:
            target.listen()
        answering.bind((str(peer), 0))
        asking.sendto(b"ask", (str(peer), answering.getsockname()[1]))
        _, asker = answering.recvfrom(100)
        send(lan.other, kind, own, port)
        answering.sendto(b"answer", asker)
        assert asking.recv(100) == b"answer"
        target.setblocking(False)
        try:
            if kind == UDP:
                target.recv(100)
            else:
                target.accept()[0].close()
        except BlockingIOError:
            return False
        return True


def comes_out(lan: Lan, *frames: bytes) -> list[bytes]:
    """Return those of the frames that a task writes to its wire which come out of it."""
    with hearing(lan.other, "wire") as wire:
        with inside(lan.task):
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with raw:
            raw.bind(("wire", 0))
            for frame in frames:
                with suppress(OSError):  # one that is dropped finds no room
                    raw.send(frame)
        return [
            one for one in wire.read_frames_until_marker(lan.other_v4, lan.task) if one in frames
        ]


def render_ipv4(lan: Lan, source: str, destination: str, mac: bytes | None = None) -> bytes:
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 36, 1, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", header))
    total = ~((total >> 16) + (total & 0xFFFF)) & 0xFFFF
    header = header[:10] + struct.pack("!H", total) + header[12:]
    datagram = struct.pack("!HHHH", 1, 2, 16, 0) + b"spoofed!"
    return lan.other_mac + (mac or lan.mac) + b"\x08\x00" + header + datagram


def render_arp(lan: Lan, sender: str, mac: bytes | None = None) -> bytes:
    mac = mac or lan.mac
    sent = IPv4Address(sender).packed
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + mac + sent + bytes(6) + lan.other_v4.packed
    return lan.other_mac + lan.mac + b"\x08\x06" + body


def render_ipv6(lan: Lan, source: IPv6Address, payload: bytes, protocol: int = 58) -> bytes:
    header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255)
    packet = header + source.packed + lan.other_v6.packed + payload
    return lan.other_mac + lan.mac + b"\x86\xdd" + packet


def render_advertisement(lan: Lan, target: IPv6Address) -> bytes:
    return render_ipv6(lan, lan.own(6), struct.pack("!BBHI", 136, 0, 0, 0x6 << 28) + target.packed)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [4, 6])
async def test_groups_let_in_what_their_rules_allow(
    guarded: Lan, firewall: HostFirewall, version: int
) -> None:
    assert not is_let_in(guarded, version)
    assert not is_let_in(guarded, version, TCP)

    tcp = RulePlan(protocol="tcp", from_port=PORT, to_port=PORT, cidrs=ANYWHERE)
    await firewall.learn([GroupPlan(id=GROUP, ingress=(tcp,), egress=(OUT,))])

    assert is_let_in(guarded, version, TCP)
    assert not is_let_in(guarded, version, TCP, PORT + 1)
    assert not is_let_in(guarded, version)


@pytest.mark.parametrize("version", [4, 6])
async def test_members_elsewhere_and_here_are_let_in_by_name(
    guarded: Lan, firewall: HostFirewall, make_eni: MakeEni, version: int
) -> None:
    friendly = GroupPlan(
        id=GROUP, ingress=(RulePlan(protocol="-1", groups=(FRIENDS,)),), egress=(OUT,)
    )
    await firewall.learn([friendly])
    assert not is_let_in(guarded, version)

    await firewall.learn([GroupPlan(id=FRIENDS, members=frozenset({guarded.peer(version)}))])
    assert is_let_in(guarded, version)

    await firewall.learn([GroupPlan(id=FRIENDS)])
    assert not is_let_in(guarded, version)

    here = make_eni(security_groups=(FRIENDS,))
    here = replace(
        here,
        address=type(here.address)((guarded.other_v4, here.address.network.prefixlen)),
        ipv6_address=IPv6Interface((guarded.other_v6, 64)),
    )
    await firewall.open_eni(here)
    assert is_let_in(guarded, version)

    await firewall.close_eni(here)
    assert not is_let_in(guarded, version)
    await firewall.release()


@pytest.mark.parametrize("version", [4, 6])
async def test_groups_let_out_what_their_rules_allow_and_answers(
    guarded: Lan, firewall: HostFirewall, version: int
) -> None:
    own, peer = guarded.own(version), guarded.peer(version)
    with (
        open_socket(guarded.task, own, socket.SOCK_STREAM) as listener,
        open_socket(guarded.other, peer, socket.SOCK_STREAM) as caller,
    ):
        anything = RulePlan(protocol="-1", cidrs=ANYWHERE)
        await firewall.learn([GroupPlan(id=GROUP, ingress=(anything,))])
        listener.bind((str(own), PORT))
        listener.listen()
        caller.connect((str(own), PORT))
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b"an answer")
            assert caller.recv(100) == b"an answer"

    with pytest.raises(PermissionError):  # the kernel's word for an output that is dropped
        send(guarded.task, UDP, peer)


@pytest.mark.parametrize("version", [4, 6])
async def test_an_eni_has_no_more_flows_than_it_may(guarded: Lan, version: int) -> None:
    peer = guarded.peer(version)
    for number in range(MAX_FLOWS):
        send(guarded.task, UDP, peer, 1000 + number)

    with pytest.raises(PermissionError):
        send(guarded.task, UDP, peer, 2000)


async def test_only_frames_of_the_enis_own_addresses_come_out(guarded: Lan) -> None:
    own, peer = str(guarded.own(4)), str(guarded.other_v4)
    stolen = bytes((2, *random.randbytes(5)))
    fine = [render_arp(guarded, own), render_arp(guarded, "0.0.0.0")]
    forged = [
        render_arp(guarded, peer),
        render_arp(guarded, own, mac=stolen),
        render_ipv4(guarded, peer, peer),
        render_ipv4(guarded, own, peer, mac=stolen),
        render_ipv4(guarded, own, "169.254.169.254"),
        render_ipv4(guarded, own, "224.0.0.1"),
        render_ipv4(guarded, own, peer),  # past the rules of its groups
        guarded.other_mac + guarded.mac + b"\x88\xcc" + bytes(50),
    ]

    assert comes_out(guarded, *forged, *fine) == fine


async def test_only_neighbour_discovery_of_the_enis_own_addresses_comes_out(guarded: Lan) -> None:
    own = IPv6Address(guarded.own(6))
    fine = [
        render_advertisement(guarded, own),
        render_advertisement(guarded, link_local_of(guarded.mac)),
    ]
    router = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    forged = [
        render_advertisement(guarded, guarded.other_v6),
        render_ipv6(guarded, link_local_of(guarded.mac), router),
        render_ipv6(guarded, guarded.other_v6, b"spoofed", protocol=59),
        render_ipv6(guarded, own, b"no route", protocol=59),
    ]

    assert comes_out(guarded, *forged, *fine) == fine


async def test_without_a_guard_everything_comes_out(lan: Lan) -> None:
    forged = render_ipv4(lan, str(lan.other_v4), str(lan.other_v4))

    assert comes_out(lan, forged) == [forged]


async def test_nothing_of_it_is_left_and_a_repetition_is_fine(
    lan: Lan, firewall: HostFirewall, findings: Findings
) -> None:
    await firewall.guard_netns(lan.eni, lan.task)
    await firewall.guard_netns(lan.eni, lan.task)
    assert list(findings) == []
    await firewall.unguard_netns(lan.eni, lan.task)
    await firewall.unguard_netns(lan.eni, lan.task)
    await firewall.unguard_netns(lan.eni, lan.task.parent / "fargate-never-made")

    assert is_let_in(lan, 4)
    assert is_let_in(lan, 6)


@pytest.mark.parametrize(
    ("understood", "finding"),
    [
        ([False], "the kernel has no CONFIG_IP_ROUTE_CLASSID"),
        ([], "a kernel older than 5.16 can't filter what interfaces of tasks send"),
    ],
)
async def test_what_a_kernel_cannot_filter_is_noted(
    lan: Lan,
    firewall: HostFirewall,
    findings: Findings,
    monkeypatch: pytest.MonkeyPatch,
    understood: list[bool],
    finding: str,
) -> None:
    def render(table: Table, eni: EniPlan, *, knows_routes: bool) -> Iterator[bytes]:
        yield from render_egress_guard(table, eni, knows_routes=knows_routes)
        if knows_routes not in understood:
            yield table.rule("egress", expression("of a later kernel"))

    monkeypatch.setattr(guards, "render_egress_guard", render)

    await firewall.guard_netns(lan.eni, lan.task)

    assert [one.what for one in findings] == [finding]
    spoofed = render_ipv4(lan, str(lan.other_v4), str(lan.other_v4))
    raw = render_ipv4(lan, str(lan.own(4)), str(lan.other_v4))
    await firewall.learn([GroupPlan(id=GROUP, egress=(OUT,))])
    assert comes_out(lan, spoofed, raw) == ([raw] if understood else [spoofed, raw])
    assert not is_let_in(lan, 4)
