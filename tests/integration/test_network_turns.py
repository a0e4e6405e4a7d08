"""ENIs that two want to change at once, and what could not be changed."""

import asyncio
import errno
from collections.abc import Collection
from pathlib import Path

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network import removals
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.conntrack import Address
from fargate_agent.network.veth import VethEni
from fargate_agent.plan import EniPlan
from tests.fixtures.network import OpenFirewall, read_ip

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("test_network")]


async def test_a_change_of_groups_while_an_eni_is_detached_lets_nothing_through(
    eni: EniPlan,
    netns: Path,
    veth: VethEni,
    firewall: OpenFirewall,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await veth.attach(eni, netns)
    is_closing, may_close = asyncio.Event(), asyncio.Event()
    close = firewall.close_eni

    async def close_late(closed: EniPlan) -> None:
        await close(closed)
        is_closing.set()
        await may_close.wait()

    monkeypatch.setattr(firewall, "close_eni", close_late)
    detaching = asyncio.create_task(veth.detach(eni, netns))
    await is_closing.wait()
    updating = asyncio.create_task(veth.update(eni, netns))
    await asyncio.sleep(0)  # it waits for its turn
    may_close.set()
    await detaching
    await updating

    assert [one for one in firewall.told if eni.id in one][-1] == f"close {eni.id}"


async def test_an_eni_that_could_not_be_closed_can_be_detached_again(
    eni: EniPlan,
    netns: Path,
    veth: VethEni,
    firewall: OpenFirewall,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(_: EniPlan) -> None:
        raise NetlinkError("close", errno.EBUSY)

    await veth.attach(eni, netns)
    with monkeypatch.context() as refusing:
        refusing.setattr(firewall, "close_eni", refuse)
        with pytest.raises(ResourceInitializationError):
            await veth.detach(eni, netns)

    await veth.update(eni, netns)
    await veth.detach(eni, netns)

    assert firewall.told[-1] == f"close {eni.id}"
    assert [r for r in read_ip("route") if r["dst"] == str(eni.address.ip)] == []


async def test_an_address_waits_until_its_flows_are_forgotten(
    eni: EniPlan, netns: Path, veth: VethEni, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0

    def forget(_: Collection[Address]) -> None:
        nonlocal tried
        tried += 1
        if tried < 3:
            raise NetlinkError("forget flows", errno.ENOBUFS)

    monkeypatch.setattr(removals, "RETRY_S", 0.001)
    monkeypatch.setattr(removals, "forget_flows", forget)
    await veth.attach(eni, netns)
    await veth.detach(eni, netns)

    await veth.attach(eni, netns)

    assert tried == 3
    await veth.detach(eni, netns)


async def test_an_address_whose_flows_stay_is_given_to_nobody(
    eni: EniPlan, netns: Path, veth: VethEni, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Collection[Address]) -> None:
        raise NetlinkError("forget flows", errno.ENOBUFS)

    await veth.attach(eni, netns)
    with monkeypatch.context() as refusing:
        refusing.setattr(removals, "FORGET_TIMEOUT_S", 0.05)
        refusing.setattr(removals, "forget_flows", refuse)
        await veth.detach(eni, netns)

        with pytest.raises(ResourceInitializationError, match=f"{eni.address.ip} before could not"):
            await veth.attach(eni, netns)
