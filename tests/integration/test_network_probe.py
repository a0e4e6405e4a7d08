"""Whether an address that somebody else has is noticed, on a network that others share."""

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.macvlan import MacvlanEni
from fargate_agent.network.netlink import socket_in_netns
from fargate_agent.network.netns import KernelNetns
from fargate_agent.plan import EniPlan
from fargate_agent.wire.eni_kinds import EniKind
from tests.fixtures.network import (
    MakeEni,
    MakeNetns,
    OpenFirewall,
    ask_caller,
    read_ip,
    remove_link,
    run_ip,
    serve_caller,
)

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

ETH_P_ARP = 0x0806
OPERATION = slice(20, 22)
REPLY = b"\x00\x02"


@pytest.fixture
async def driver(netns_driver: KernelNetns) -> AsyncIterator[MacvlanEni]:
    async with MacvlanEni(netns_driver.prepared, OpenFirewall()) as driver:
        yield driver


@pytest.fixture
async def gateway(make_netns: MakeNetns, parent: str, eni: EniPlan) -> Path:
    """A machine at the other end of the wire, with the gateway's address."""
    netns = await make_netns()
    run_ip("link", "set", f"{parent}p", "netns", str(netns))
    address = f"{eni.gateway}/{eni.address.network.prefixlen}"
    run_ip("address", "add", address, "dev", f"{parent}p", netns=netns)
    run_ip("link", "set", f"{parent}p", "up", netns=netns)
    return netns


@pytest.fixture
async def parent() -> AsyncIterator[str]:
    """A NIC of this host."""
    name = f"fgt{uuid.uuid4().hex[:8]}"
    run_ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    run_ip("link", "set", name, "up")
    yield name
    remove_link(name)


@pytest.fixture
def eni(make_eni: MakeEni, parent: str) -> EniPlan:
    return make_eni(kind=EniKind.MACVLAN, parent=parent)


@pytest.fixture
async def attached(
    eni: EniPlan, netns: Path, driver: MacvlanEni, gateway: Path
) -> AsyncIterator[EniPlan]:
    await driver.attach(eni, netns)
    yield eni
    await driver.detach(eni, netns)


@pytest.fixture
async def rival(
    attached: EniPlan, parent: str, make_eni: MakeEni, make_netns: MakeNetns, driver: MacvlanEni
) -> AsyncIterator[tuple[EniPlan, Path]]:
    """A second ENI that has been given the address of the first; not attached yet."""
    eni = make_eni(kind=EniKind.MACVLAN, parent=parent, address=attached.address)
    netns = await make_netns()
    yield eni, netns
    await driver.detach(eni, netns)


async def wait_for_reply(netns: Path) -> None:
    """Return when an ARP reply has come into the namespace."""
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
    with socket_in_netns(netns, socket.AF_PACKET, kind, socket.htons(ETH_P_ARP)) as listener:
        async with asyncio.timeout(3):
            while True:
                packet = await asyncio.get_running_loop().sock_recv(listener, 100)
                if packet[OPERATION] == REPLY:
                    return


async def test_an_address_in_use_is_refused_with_the_mac_of_its_holder(
    attached: EniPlan, rival: tuple[EniPlan, Path], driver: MacvlanEni
) -> None:
    eni, netns = rival
    await driver.attach(eni, netns)
    await wait_for_reply(netns)

    with pytest.raises(ResourceInitializationError) as refusal:
        await driver.confirm(eni, netns)

    assert refusal.value.detail == (
        f"ENI {eni.id}: address {eni.address.ip} is already in use on its subnet by {attached.mac}"
    )
    await driver.detach(eni, netns)


async def test_a_task_that_is_adopted_asks_no_more(
    attached: EniPlan, rival: tuple[EniPlan, Path], driver: MacvlanEni, netns_driver: KernelNetns
) -> None:
    eni, netns = rival
    await driver.attach(eni, netns)
    await wait_for_reply(netns)

    successor = MacvlanEni(netns_driver.prepared, OpenFirewall())
    await successor.attach(eni, netns)
    await successor.confirm(eni, netns)

    await driver.detach(eni, netns)


async def test_an_address_that_changes_hands_is_reachable_at_once(
    attached: EniPlan,
    netns: Path,
    rival: tuple[EniPlan, Path],
    driver: MacvlanEni,
    gateway: Path,
) -> None:
    async with serve_caller(netns, attached.address.ip) as port:
        await ask_caller(gateway, attached.address.ip, port)
    await driver.detach(attached, netns)
    eni, other = rival

    await driver.attach(eni, other)
    await driver.confirm(eni, other)

    async with serve_caller(other, eni.address.ip) as port:
        async with asyncio.timeout(3):  # with the MAC of before it takes the kernel longer
            await ask_caller(gateway, eni.address.ip, port)
    (neighbour,) = read_ip("neighbour", "show", str(eni.address.ip), netns=gateway)
    assert neighbour["lladdr"] == eni.mac
