"""What a task with an interface on a LAN can do there, which is a network that is really shared.

The host isn't on the way, so the task's namespace keeps it from speaking for others: whatever its
containers write to the wire has its own MAC and address. What a LAN can't prevent is what machines
do that aren't tasks: they reach a task's interface with any frame they like, can forge ARP to it,
and can use its address. The last tests say so.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from fargate_agent.network.namespaces import socket_in_netns
from tests.fixtures import frames
from tests.fixtures.attacked import (
    PORT,
    VERSIONS,
    Inside,
    Seen,
    Wire,
    answering,
    find_inside,
    mac_of,
    place,
    read_neighbours,
    send_from,
)
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.network import open_tcp, run_ip
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import OUTSIDE, WEB_GROUP, bind_outside, make_outside, make_stack
from tests.third_party.images import add_plain_python, plain_python

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

MARK: Final = b"SPOOFED!"
MACHINE: Final = {4: f"{OUTSIDE}.1", 6: "fd00:213:0:40::1"}
UNUSED: Final = {4: f"{OUTSIDE}.200", 6: "fd00:213:0:40::200"}
SUBNET: Final = f'ipv6_cidr = "fd00:213:0:40::/64"\ngateway6 = "{MACHINE[6]}"\n'
PLANE: Final = 'vpc_ipv6_cidr = "fd00:213::/56"\n'
PATIENCE_S: Final = 2.0
"""How long a connection is waited for that must not come about."""


@dataclass(kw_only=True)
class Lan:
    """A machine on a wire, and two tasks there, of which the second is in a group of its own."""

    machine: Path
    one: Inside
    web: Inside

    async def watched(self, sent: list[bytes], version: int = 4) -> tuple[list[Seen], list[Seen]]:
        """Have one task send frames; return what the other one's wire saw, and the machine's."""
        with Wire(self.web.netns, "eth1") as its, Wire(self.machine, "eth0") as machines:
            await self.one.send(sent, place(MACHINE[version]))
            seen = await machines.until()
            send_from(self.machine, "eth0", [_last(self)])
            return await its.until(), seen


def _last(lan: Lan) -> bytes:
    sender = mac_of("eth0", lan.machine)
    return frames.udp_frame(lan.web.mac, sender, MACHINE[4], lan.web.addresses[4], 9, b"the end")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lan(
    tmp_path_factory: pytest.TempPathFactory, private_containerd: PrivateContainerd
) -> AsyncIterator[Lan]:
    registry = FakeRegistry()
    add_plain_python(registry)
    with make_outside() as outside:
        added = ["address", "add", f"{MACHINE[6]}/64", "dev", "eth0", "nodad"]
        run_ip("-n", outside[0].name, *added)
        root = tmp_path_factory.mktemp("lan")
        async with (
            answering(outside[0], MACHINE),
            registry.serve(bind_outside(outside[0], 5000)),
            make_stack(
                root, private_containerd, outside, plane_toml=PLANE, subnet_toml=SUBNET
            ) as stack,
        ):
            tasks = []
            for groups in ((), (WEB_GROUP,)):
                arn = stack.run(plain_python("main", "echo.py"), groups=groups)
                await stack.wait_for_log(arn, "serving")
                tasks.append(find_inside(stack, arn))
                await tasks[-1].send([], *map(place, MACHINE.values()))
            yield Lan(machine=outside[0], one=tasks[0], web=tasks[1])


def marked(seen: list[Seen]) -> list[Seen]:
    return [one for one in seen if MARK in one.data]


@pytest.mark.parametrize("version", VERSIONS)
async def test_only_packets_with_the_own_source_come_out(lan: Lan, version: int) -> None:
    sources = [
        lan.web.addresses[version],
        MACHINE[version],
        UNUSED[version],
        *({4: ("127.0.0.1", "0.0.0.0", "169.254.7.7"), 6: ("::1", "::", "fe80::7")}[version]),
    ]
    sent = [
        frames.udp_frame(to, by, source, MACHINE[version], PORT, MARK)
        for source in sources
        for to in (mac_of("eth0", lan.machine), lan.web.mac, frames.BROADCAST)
        for by in (lan.one.mac, lan.web.mac)
    ]

    seen, on_machine = await lan.watched(sent, version)

    assert (marked(seen), marked(on_machine)) == ([], [])


async def test_frames_with_another_mac_or_of_another_kind_do_not_come_out(lan: Lan) -> None:
    sent = [
        frames.ethernet(to, by, kind, MARK * 6)
        for to in (lan.web.mac, mac_of("eth0", lan.machine), frames.BROADCAST)
        for by in (lan.one.mac, lan.web.mac, mac_of("eth0", lan.machine))
        for kind in (0x88B5, 0x8100, 0x88CC, frames.ARP, 40)
    ]

    seen, on_machine = await lan.watched(sent)

    assert (marked(seen), marked(on_machine)) == ([], [])


async def test_a_task_cannot_claim_the_address_of_others(lan: Lan) -> None:
    one = lan.one
    sent = []
    for to in (mac_of("eth0", lan.machine), lan.web.mac, frames.BROADCAST):
        for victim in (lan.web.addresses, MACHINE, UNUSED):
            sent += [
                frames.arp_frame(
                    to, one.mac, says=victim[4], at=one.mac, asks=asks, of=to, is_reply=is_reply
                )
                for asks in (MACHINE[4], victim[4])
                for is_reply in (True, False)
            ]
            sent += [
                frames.advertisement(one.mac, victim[6], target, victim[6], to)
                for target in (MACHINE[6], frames.ALL_NODES, lan.web.addresses[6])
            ]
    before = [read_neighbours(netns) for netns in (lan.machine, lan.web.netns)]

    await lan.watched(sent)

    assert [read_neighbours(netns) for netns in (lan.machine, lan.web.netns)] == before


async def test_router_advertisements_and_redirects_do_not_come_out(lan: Lan) -> None:
    one, to = lan.one, mac_of("eth0", lan.machine)
    sent = [
        frames.router_advertisement(one.mac, "fe80::bad", target, "2001:db8:bad::")
        for target in (to, frames.ALL_NODES_MAC)
    ]
    sent += [
        frames.redirect(
            one.mac, source, MACHINE[version], one.addresses[version], UNUSED[version], to
        )
        for version in VERSIONS
        for source in (UNUSED[version], one.addresses[version])
    ]
    kinds = {frames.ip_frame(to, one.mac, "::", "::", frames.ICMPV6, b"")[20]}

    seen, on_machine = await lan.watched(sent)

    told = [one for one in (*seen, *on_machine) if one.kind == frames.IPV6]
    assert [one for one in told if one.data[20] in kinds and one.data[54] in {134, 137}] == []
    assert [one for one in on_machine if one.kind == frames.IPV4 and one.data[23] == 1] == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_security_groups_decide_who_reaches_a_task(lan: Lan, version: int) -> None:
    async def is_reached(task: Inside, port: int) -> bool:
        address = task.addresses[version]
        with open_tcp(lan.machine, ip_address(address)) as sock:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await asyncio.get_running_loop().sock_connect(sock, (address, port))
            except ConnectionRefusedError:
                return True  # by the task itself: nothing listens on the open port
            except TimeoutError:
                return False
            return True

    assert await is_reached(lan.web, 8080)
    assert not await is_reached(lan.web, PORT)
    assert not await is_reached(lan.one, PORT)
    answers = await lan.one.reach([lan.web.at(version), lan.web.at(version, 8080)])
    assert list(answers.values()) == ["silence", "ECONNREFUSED"]


async def test_the_lan_reaches_no_metadata(lan: Lan) -> None:
    by = mac_of("eth0", lan.machine)
    sent = [
        frames.syn_frame(lan.one.mac, by, source, "169.254.170.2", 80)
        for source in (MACHINE[4], "169.254.172.2", UNUSED[4])
    ]

    with Wire(lan.machine, "eth0") as wire:
        send_from(lan.machine, "eth0", sent)
        await lan.one.send([], place(MACHINE[4]))
        seen = await wire.until()

    assert [one for one in map(frames.tcp_of, (one.data for one in seen)) if one] == []


async def test_a_lan_can_forge_what_its_machines_say_to_a_task(lan: Lan) -> None:
    """No machine of a LAN can be kept from that; a routed ENI has no such wire."""
    liar = "02:00:00:00:0b:ad"
    claim = frames.arp_frame(
        lan.one.mac, liar, says=MACHINE[4], at=liar, asks=lan.one.addresses[4], of=lan.one.mac
    )
    with socket_in_netns(lan.one.netns, socket.AF_PACKET, socket.SOCK_RAW) as its:
        its.bind(("eth1", frames.ARP))
        its.settimeout(PATIENCE_S)
        send_from(lan.machine, "eth0", [claim])
        got = its.recv(100)

    assert frames.mac(liar) in got
