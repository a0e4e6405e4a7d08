"""ENIs that are machines of their own on a network outside: what their kinds have in common.

The host isn't on their way, so what the security groups allow is enforced in the task's network
namespace, from before the interface is up until it has gone.
"""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

from fargate_agent.drivers import EniDriver
from fargate_agent.network.blocking import delete_link
from fargate_agent.network.interface import configure, wait_until_passing
from fargate_agent.network.namespaces import is_netns
from fargate_agent.network.netlink import Link, Netlink
from fargate_agent.network.prepared import PreparedEnis
from fargate_agent.network.probe import AddressProbes
from fargate_agent.network.reasons import kernel_refusals
from fargate_agent.plan import EniPlan
from fargate_agent.threads import in_thread


class Guard(Protocol):
    """What lets through an ENI's interface, inside the task's namespace, what its groups allow."""

    async def guard_netns(self, eni: EniPlan, netns: Path) -> None:
        """Return when nothing else passes; repeated, what passes is changed."""
        ...

    async def unguard_netns(self, eni: EniPlan, netns: Path) -> None:
        """Let everything pass; the interface has gone."""
        ...


class LanEni(EniDriver):
    """Attaches ENIs of one such kind."""

    def __init__(self, prepared: PreparedEnis, guard: Guard) -> None:
        """`prepared` is what comes with network namespaces, which is of no use here."""
        self._prepared = prepared
        self._guard = guard
        self._probes = AddressProbes()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Held while an ENI that is attached is changed, by its id."""

    async def __aexit__(self, *_: object) -> None:
        """Let go of the sockets of ENIs that were attached and not confirmed; the ENIs stay."""
        self._probes.close_all()

    async def attach(self, eni: EniPlan, netns: Path) -> None:
        with kernel_refusals(f"ENI {eni.id}"):
            async with Netlink.open() as host, Netlink.open(netns) as task:
                await self.prepare(host, eni)
                interface = await self.find(task, eni)
                if interface is None:
                    await self._prepared.discard(netns)
                    await self.bring(host, eni, netns)
                    interface = await self.find(task, eni)
                if interface is not None and interface.name != eni.ifname:
                    await task.rename(interface.index, eni.ifname)
                if interface is not None:
                    await self.settle(task, interface, eni)
                await self._guard.guard_netns(eni, netns)
                is_new = await configure(task, netns, eni)
                await self.wait(task, eni)
                if is_new:
                    self._probes.start(eni, netns)

    async def confirm(self, eni: EniPlan, netns: Path) -> None:
        self._probes.confirm(eni)

    async def update(self, eni: EniPlan, netns: Path) -> None:
        """Change what is attached; else `attach` begins with the groups that it is given."""
        async with self._refusals_in_turn(eni):
            if not is_netns(netns):
                return
            async with Netlink.open(netns) as task:
                interface = await self.find(task, eni)
            if interface is not None and interface.name == eni.ifname:
                await self._guard.guard_netns(eni, netns)

    async def detach(self, eni: EniPlan, netns: Path) -> None:
        self._probes.close(eni)
        async with self._refusals_in_turn(eni):
            if is_netns(netns):
                async with Netlink.open(netns) as task:
                    interface = await self.find(task, eni)
                if interface is not None:
                    await self.take_out(interface, eni, netns)
            await self._guard.unguard_netns(eni, netns)

    @asynccontextmanager
    async def _refusals_in_turn(self, eni: EniPlan) -> AsyncIterator[None]:
        """Let nothing else change the ENI; name it when the kernel refuses."""
        with kernel_refusals(f"ENI {eni.id}"):
            async with self._turns.setdefault(eni.id, asyncio.Lock()):
                yield

    async def prepare(self, host: Netlink, eni: EniPlan) -> None:
        """Return when what the ENI hangs on is there and up.

        Raises:
            ResourceInitializationError: it isn't there.
        """

    @abstractmethod
    async def find(self, task: Netlink, eni: EniPlan) -> Link | None:
        """Return the ENI's interface in the task's namespace, by whatever name."""

    @abstractmethod
    async def bring(self, host: Netlink, eni: EniPlan, netns: Path) -> None:
        """Put the ENI's interface into the namespace, down.

        Raises:
            ResourceInitializationError: it isn't there, or is somebody else's.
        """

    async def settle(self, task: Netlink, interface: Link, eni: EniPlan) -> None:
        """Give the interface what it can only have before it is up."""

    async def wait(self, task: Netlink, eni: EniPlan) -> None:
        """Return when packets go through the interface, which is up."""

    async def take_out(self, interface: Link, eni: EniPlan, netns: Path) -> None:
        """Take the interface out of the namespace."""
        await in_thread(delete_link, netns, interface.index)


async def find_of_kind(task: Netlink, kind: str, eni: EniPlan) -> Link | None:
    """Return the ENI's interface of a kind in the task's namespace, by whatever name."""
    links = await task.links()
    return next((link for link in links if (link.kind, link.mac) == (kind, eni.mac)), None)


async def bring_up(host: Netlink, link: Link) -> None:
    """Return when an interface of the host is up, and packets go through it."""
    if not link.up:
        await host.set_up(link.index)
        await wait_until_passing(link.name)
