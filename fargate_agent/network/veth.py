"""ENIs as veth pairs: one end in the task's network namespace, the other on its subnet's bridge."""

from pathlib import Path

from fargate_agent.drivers import EniDriver
from fargate_agent.network.blocking import delete_link
from fargate_agent.network.bridge import Bridges
from fargate_agent.network.interface import configure
from fargate_agent.network.names import eni_alias, veth_name
from fargate_agent.network.namespaces import in_thread
from fargate_agent.network.netlink import Link, Netlink
from fargate_agent.network.probe import AddressProbes
from fargate_agent.network.reasons import kernel_refusals
from fargate_agent.plan import EniPlan


class VethEni(EniDriver):
    """Attaches ENIs to bridges that the agent itself keeps."""

    def __init__(self, bridges: Bridges) -> None:
        self._bridges = bridges
        self._probes = AddressProbes()

    def close(self) -> None:
        """Let go of the sockets of ENIs that were attached and not confirmed; the ENIs stay."""
        self._probes.close_all()

    async def attach(self, eni: EniPlan, netns: Path) -> None:
        with kernel_refusals(f"ENI {eni.id}"):
            async with Netlink.open() as host, Netlink.open(netns) as task:
                async with self._bridges.hold(eni, host) as bridge:
                    await self._ensure_pair(eni, netns, host, task, bridge)
                interface = await task.get_link(eni.ifname)
                if await configure(task, interface, eni):
                    self._probes.start(eni, netns)

    async def confirm(self, eni: EniPlan, netns: Path) -> None:
        self._probes.confirm(eni)

    async def detach(self, eni: EniPlan, netns: Path) -> None:
        self._probes.close(eni)
        with kernel_refusals(f"ENI {eni.id}"):
            async with Netlink.open() as host:
                end = await host.find_link(veth_name(self._bridges.instance, eni.id))
            if end is not None:
                await in_thread(delete_link, None, end.index)
            await self._bridges.release(eni)

    async def _ensure_pair(
        self, eni: EniPlan, netns: Path, host: Netlink, task: Netlink, bridge: Link
    ) -> None:
        name = veth_name(self._bridges.instance, eni.id)
        end = await host.find_link(name)
        if end is not None:
            interface = await task.find_link(eni.ifname)
            if interface is None or interface.peer != end.index:
                # Its other end is in a namespace that has lost its name.
                await in_thread(delete_link, None, end.index)
                end = None
        if end is None:
            with netns.open("rb") as namespace:
                await host.add_veth(
                    name,
                    bridge.index,
                    namespace.fileno(),
                    {"ifname": eni.ifname, "address": eni.mac},
                    eni.mtu,
                )
        elif end.master != bridge.index:
            await host.set_master(name, bridge.index)
        if end is None or end.alias is None:
            await host.set_alias(name, eni_alias(self._bridges.instance, netns, eni.id))
