"""What a task does on its own wire harms nobody: there is no layer 2 that it shares with others.

A container with the capabilities that all have sends frames of every kind. A wire is watched until
a datagram arrives that was sent last, by ordinary means.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.fixtures import frames
from tests.fixtures.attacked import (
    END,
    GATEWAY,
    HOST,
    LAN,
    OTHER,
    PORT,
    UNUSED,
    VERSIONS,
    Attacked,
    Inside,
    Seen,
    Wire,
    attacked,
    place,
    read_host,
    read_neighbours,
)
from tests.fixtures.containerd import PrivateContainerd

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

MARK: Final = b"SPOOFED!"
OWN: Final = b"MY OWN!!"
FLOOD: Final = 5000
LINK_LOCAL: Final = {4: "169.254.7.7", 6: "fe80::7"}
NET_RAW: Final = 1 << 13
NET_ADMIN: Final = 1 << 12
"""Source: Linux, include/uapi/linux/capability.h."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def field(
    tmp_path_factory: pytest.TempPathFactory, private_containerd: PrivateContainerd
) -> AsyncIterator[Attacked]:
    async with attacked(tmp_path_factory.mktemp("attacked"), private_containerd) as made:
        yield made


async def watched(
    field: Attacked, sent: list[bytes], version: int = 4
) -> tuple[list[Seen], list[Seen]]:
    """Have the first task send frames; return what its sibling's wire saw, and the LAN's."""
    attacker, sibling, _ = field.tasks
    with Wire(sibling.netns, "eth1") as its, Wire(field.lan, "eth0") as lans:
        places = sibling.at(version), place(LAN[version])
        assert await attacker.send(sent, *places) == len(sent)
        return await its.until(), await lans.until()


def marked(seen: list[Seen], mark: bytes = MARK) -> list[Seen]:
    return [one for one in seen if mark in one.data]


def gates(task: Inside) -> str:
    """The MAC that all of a task's frames should have as target: the host's end's."""
    return task.mac


async def test_the_attacker_has_what_containers_have(field: Attacked) -> None:
    said = await field.tasks[0].run("look")

    assert said["capabilities"] & NET_RAW
    assert not said["capabilities"] & NET_ADMIN


@pytest.mark.parametrize("to", ["host", "all nodes"])
async def test_router_advertisements_change_nothing_of_the_host(field: Attacked, to: str) -> None:
    attacker = field.tasks[0]
    target = gates(attacker) if to == "host" else frames.ALL_NODES_MAC
    sent = frames.router_advertisement(attacker.mac, "fe80::bad", target, "2001:db8:bad::")
    before = read_host()

    await watched(field, [sent] * 3)

    assert read_host() == before


@pytest.mark.parametrize("version", VERSIONS)
async def test_redirects_change_nothing_of_the_host(field: Attacked, version: int) -> None:
    attacker, sibling, _ = field.tasks
    own = attacker.addresses[version]
    before = read_host()
    sent = [
        frames.redirect(attacker.mac, source, HOST[version], own, of, gates(attacker))
        for source in (LAN[version], GATEWAY[version], LINK_LOCAL[version], own)
        for of in (OTHER[version], sibling.addresses[version])
    ]

    await watched(field, sent, version)

    assert read_host() == before


async def test_what_a_task_says_about_macs_is_not_heard(field: Attacked) -> None:
    attacker, sibling, _ = field.tasks
    sent = []
    for to in (gates(attacker), sibling.mac, frames.BROADCAST):
        for victim in (sibling.addresses, GATEWAY, LAN):
            sent += [
                _claim(attacker, to, victim[4], asks, is_reply=is_reply)
                for asks, is_reply in ((HOST[4], True), (victim[4], True), (victim[4], False))
            ]
            sent += [
                frames.advertisement(attacker.mac, victim[6], target, victim[6], to)
                for target in (HOST[6], frames.ALL_NODES, sibling.addresses[6])
            ]
    before = read_neighbours()

    seen, on_lan = await watched(field, sent)

    assert read_neighbours() == before
    assert await field.reached_from_host(sibling, 4) == 8
    assert [one for one in (*seen, *on_lan) if frames.mac(attacker.mac) in one.data] == []
    assert [one for one in read_neighbours(sibling.netns) if " eth1 " in one] == []


def _claim(attacker: Inside, to: str, says: str, asks: str, *, is_reply: bool) -> bytes:
    """An ARP packet by which somebody's address is at the attacker's MAC."""
    mac = attacker.mac
    return frames.arp_frame(to, mac, says=says, at=mac, asks=asks, of=to, is_reply=is_reply)


async def test_frames_with_the_mac_of_a_sibling_take_nothing_from_it(field: Attacked) -> None:
    attacker, sibling, closed = field.tasks
    sent = [
        frames.ethernet(to, sibling.mac, kind, b"x" * 46)
        for to in (gates(attacker), frames.BROADCAST)
        for kind in (0x88B5, frames.IPV4, frames.ARP)
        for _ in range(20)
    ]

    await watched(field, sent)

    assert await field.reached_from_host(sibling, 4) == 8
    for task, peer in (
        (closed, place(LAN[4])),
        (attacker, sibling.at(4)),
        (attacker, sibling.at(6)),
    ):
        assert set((await task.reach([peer])).values()) == {"reached"}


@pytest.mark.parametrize("version", VERSIONS)
async def test_only_packets_with_the_own_source_come_out(field: Attacked, version: int) -> None:
    attacker, sibling, closed = field.tasks
    sources = [
        *(one.addresses[version] for one in (sibling, closed)),
        *(one[version] for one in (GATEWAY, HOST, LAN, OTHER, UNUSED, LINK_LOCAL)),
        *({4: ("127.0.0.1", "0.0.0.0", "255.255.255.255"), 6: ("::1", "::")}[version]),
        {4: "192.0.2.9", 6: "2001:db8:9::9"}[version],
    ]
    targets = [sibling.addresses[version], LAN[version], OTHER[version]]
    sent = [
        frames.udp_frame(gates(attacker), attacker.mac, source, target, PORT, mark)
        for mark, those in ((MARK, sources), (OWN, [attacker.addresses[version]]))
        for source in those
        for target in targets
    ]
    own = attacker.addresses[version]
    sent.append(frames.udp_frame(gates(attacker), attacker.mac, own, OTHER[version], PORT, END))

    with Wire(field.other, "eth0") as others:
        seen, on_lan = await watched(field, sent, version)
        on_other = await others.until()

    assert all(marked(one, OWN) for one in (seen, on_lan, on_other))
    assert [marked(one) for one in (seen, on_lan, on_other)] == [[], [], []]


async def test_floods_of_questions_leave_the_host_as_it_was(field: Attacked) -> None:
    attacker, sibling, _ = field.tasks
    asks = frames.arp_frame(
        frames.BROADCAST,
        attacker.mac,
        says=attacker.addresses[4],
        at=attacker.mac,
        asks=GATEWAY[4],
        is_reply=False,
    )
    many = "fd00:213::ffff:0"  # a number and its inverse in the last words: one checksum for all
    solicits = [
        frames.solicitation(attacker.mac, source, target, gates(attacker))
        for source, target in ((many, GATEWAY[6]), (attacker.addresses[6], many))
    ]
    sent: list[bytes | dict[str, Any]] = [
        {"frame": asks.hex(), "count": FLOOD // 2, "at": [30]},
        {"frame": asks.hex(), "count": FLOOD // 2, "at": [40]},
        {"frame": solicits[0].hex(), "count": FLOOD // 2, "at": [36, 34]},
        {"frame": solicits[1].hex(), "count": FLOOD // 2, "at": [76, 74]},
    ]
    before = read_neighbours()

    with Wire(sibling.netns, "eth1") as its:
        assert await attacker.send(sent, sibling.at(4)) > FLOOD  # what the host has room for
        seen = await its.until()

    assert len(read_neighbours() - before) <= 1
    assert seen == []
    assert await field.reached_from_host(sibling, 4) == 8


async def test_nothing_but_routed_packets_gets_to_a_sibling(field: Attacked) -> None:
    attacker, sibling, _ = field.tasks
    all_hosts = "01:00:5e:00:00:01"
    own = attacker.addresses
    sent = [
        frames.ethernet(to, source, kind, MARK * 6)
        for to in (sibling.mac, frames.BROADCAST, frames.ALL_NODES_MAC, all_hosts, gates(attacker))
        for source in (attacker.mac, sibling.mac)
        for kind in (0x88B5, 0x8100, 0x88CC, 0x0842, frames.ARP, 40)
    ]
    sent += [
        frames.udp_frame(to, attacker.mac, own[version], target, PORT, MARK)
        for version in VERSIONS
        for to, target in (
            (sibling.mac, sibling.addresses[version]),
            (frames.BROADCAST, sibling.addresses[version]),
            (gates(attacker), {4: "255.255.255.255", 6: frames.ALL_NODES}[version]),
            (gates(attacker), {4: "10.213.15.255", 6: "ff05::1"}[version]),
            (gates(attacker), {4: "224.0.0.1", 6: "ff02::fb"}[version]),
        )
    ]

    seen, on_lan = await watched(field, sent)

    assert (seen, marked(on_lan)) == ([], [])


async def test_a_task_sees_no_probe_that_it_could_answer(field: Attacked) -> None:
    attacker, sibling, _ = field.tasks
    with Wire(attacker.netns, "eth1") as wire:
        started = await field.start()
        assert await sibling.run("pings", attacker.at(4)) == {attacker.at(4): True}
        seen = await wire.until(END)

    field.stack.stop(started.arn)
    await field.stack.wait_for(started.arn, "STOPPED")
    assert [one for one in seen if one.kind == frames.ARP or frames.is_solicitation(one.data)] == []


async def test_host_knows_no_neighbour_on_the_wires_of_tasks(field: Attacked) -> None:
    await field.reached_from_host(field.tasks[1], 1)

    assert [one for one in read_neighbours() if one.split()[1].startswith("fg")] == []
