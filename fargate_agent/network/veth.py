"""ENIs as veth pairs: one end in the task's network namespace, the other on its subnet's bridge."""

import logging
from collections.abc import Collection
from pathlib import Path

from fargate_agent.drivers import EniDriver, Service, Sweeper
from fargate_agent.network.blocking import delete_link
from fargate_agent.network.bridge import Bridges
from fargate_agent.network.interface import configure, wait_until_passing
from fargate_agent.network.names import (
    NETNS_PREFIX,
    eni_alias,
    netns_alias,
    ours_prefix,
    veth_name,
)
from fargate_agent.network.netlink import Netlink, NetlinkError, find_index, get_index
from fargate_agent.network.probe import AddressProbes
from fargate_agent.network.reasons import kernel_refusals
from fargate_agent.network.sysctl import ignore_announcements
from fargate_agent.plan import EniPlan
from fargate_agent.threads import in_thread

log = logging.getLogger(__name__)


class VethEni(EniDriver, Service, Sweeper):
    """Attaches ENIs to bridges that the agent itself keeps."""

    def __init__(self, bridges: Bridges) -> None:
        self._bridges = bridges
        self._probes = AddressProbes()

    async def __aexit__(self, *_: object) -> None:
        """Let go of the sockets of ENIs that were attached and not confirmed; the ENIs stay."""
        self._probes.close_all()

    async def serve(self) -> None:
        await self._bridges.keep_forwarding()

    async def sweep(self, kept: Collection[str]) -> list[str]:
        swept: list[str] = []
        try:
            swept += await self._sweep_interfaces(kept)
            swept += await self._bridges.release_unused()
        except NetlinkError as error:
            log.warning("could not clean up interfaces: %s", error)
        for name in swept:
            log.info("swept %s", name)
        return swept

    async def attach(self, eni: EniPlan, netns: Path) -> None:
        with kernel_refusals(f"ENI {eni.id}"):
            async with Netlink.open() as host, Netlink.open(netns) as task:
                async with self._bridges.hold(eni, host) as bridge:
                    await self._ensure_pair(eni, netns, host, task, bridge)
                is_new = await configure(task, netns, eni)
                await wait_until_passing(veth_name(self._bridges.instance, eni.id))
                await wait_until_passing(self._bridges.name_of(eni))
                if is_new:
                    self._probes.start(eni, netns)

    async def confirm(self, eni: EniPlan, netns: Path) -> None:
        self._probes.confirm(eni)

    async def update(self, eni: EniPlan, netns: Path) -> None:
        """Nothing depends on them yet."""

    async def detach(self, eni: EniPlan, netns: Path) -> None:
        self._probes.close(eni)
        with kernel_refusals(f"ENI {eni.id}"):
            end = find_index(veth_name(self._bridges.instance, eni.id))
            if end is not None:
                await in_thread(delete_link, None, end)
            await self._bridges.release(eni)

    async def _sweep_interfaces(self, kept: Collection[str]) -> list[str]:
        """Remove the host's ends whose alias names the namespace of no task that is kept."""
        instance = self._bridges.instance
        names = (f"{NETNS_PREFIX}{task_id}" for task_id in kept)
        aliases = tuple(f"{netns_alias(instance, name)}:" for name in names)
        async with Netlink.open() as netlink:
            left = [
                link
                for link in await netlink.links()
                if link.name.startswith(f"{ours_prefix(instance)}v")
                and not (link.alias or "").startswith(aliases)
            ]
        for link in left:
            await in_thread(delete_link, None, link.index)
        return [link.name for link in left]

    async def _ensure_pair(
        self, eni: EniPlan, netns: Path, host: Netlink, task: Netlink, bridge: int
    ) -> None:
        name = veth_name(self._bridges.instance, eni.id)
        alias = eni_alias(self._bridges.instance, netns, eni.id)
        end = find_index(name)
        if end is not None:
            interface = await task.find_link(eni.ifname)
            if interface is not None and interface.peer == end:
                ignore_announcements(name)
                await host.set_up(end, alias, master=bridge)
                return
            # Its other end is in a namespace that has lost its name.
            await in_thread(delete_link, None, end)
        with netns.open("rb") as namespace:
            inside = {"ifname": eni.ifname, "address": eni.mac}
            await host.add_veth(name, bridge, namespace.fileno(), inside, eni.mtu)
        ignore_announcements(name)
        await host.set_up(get_index(name), alias)
