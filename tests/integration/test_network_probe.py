"""Whether an address that somebody else has is noticed."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.bridge import Bridges
from fargate_agent.network.netlink import socket_in_netns
from fargate_agent.network.veth import VethEni
from fargate_agent.plan import EniPlan
from tests.fixtures.network import MakeEni, MakeNetns, ask_caller, read_ip, serve_caller

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]

ETH_P_ARP = 0x0806
OPERATION = slice(20, 22)
REPLY = b"\x00\x02"


@pytest.fixture
async def rival(
    attached: EniPlan, make_eni: MakeEni, make_netns: MakeNetns, veth: VethEni
) -> AsyncIterator[tuple[EniPlan, Path]]:
    """A second ENI that has been given the address of the first; not attached yet."""
    eni, netns = make_eni(address=attached.address), await make_netns()
    yield eni, netns
    await veth.detach(eni, netns)


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
    attached: EniPlan, rival: tuple[EniPlan, Path], veth: VethEni
) -> None:
    eni, netns = rival
    await veth.attach(eni, netns)
    await wait_for_reply(netns)

    with pytest.raises(ResourceInitializationError) as refusal:
        await veth.confirm(eni, netns)

    assert refusal.value.detail == (
        f"ENI {eni.id}: address {eni.address.ip} is already in use on its subnet by {attached.mac}"
    )
    await veth.detach(eni, netns)


async def test_the_gateways_address_is_refused_to_a_task(
    make_eni: MakeEni, netns: Path, veth: VethEni
) -> None:
    plan = make_eni()
    eni = replace(plan, address=IPv4Interface((plan.gateway, plan.address.network.prefixlen)))
    await veth.attach(eni, netns)
    await wait_for_reply(netns)

    with pytest.raises(ResourceInitializationError, match="already in use"):
        await veth.confirm(eni, netns)

    await veth.detach(eni, netns)


async def test_a_task_that_is_adopted_asks_no_more(
    attached: EniPlan, rival: tuple[EniPlan, Path], veth: VethEni, bridges: Bridges
) -> None:
    eni, netns = rival
    await veth.attach(eni, netns)
    await wait_for_reply(netns)

    successor = VethEni(bridges)
    await successor.attach(eni, netns)
    await successor.confirm(eni, netns)

    await veth.detach(eni, netns)


async def test_an_address_that_changes_hands_is_reachable_at_once(
    attached: EniPlan, netns: Path, rival: tuple[EniPlan, Path], veth: VethEni
) -> None:
    async with serve_caller(netns, attached.address.ip) as port:
        await ask_caller(None, attached.address.ip, port)
    await veth.detach(attached, netns)
    eni, other = rival

    await veth.attach(eni, other)
    await veth.confirm(eni, other)

    async with serve_caller(other, eni.address.ip) as port:
        async with asyncio.timeout(3):  # with the MAC of before it takes the kernel longer
            await ask_caller(None, eni.address.ip, port)
    (neighbour,) = read_ip("neighbour", "show", str(eni.address.ip))
    assert neighbour["lladdr"] == eni.mac
