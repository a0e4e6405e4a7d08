"""The bridges of an agent: one per subnet, with the subnet's gateway address and its NAT.

A bridge is there as long as it has a port. Making the first port and removing the last bridge must
not cross, so both happen under the lock of that bridge; nothing else is remembered: what is there
is read from the kernel each time, and put right where a crash or somebody else left it half-way.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface, IPv6Interface

from fargate_agent.findings import Findings
from fargate_agent.network import nftables
from fargate_agent.network.blocking import delete_link
from fargate_agent.network.forwarding import ensure_forwarding
from fargate_agent.network.names import (
    bridge_mac,
    bridge_name,
    instance_alias,
    nat_table_name,
    ours_prefix,
)
from fargate_agent.network.namespaces import in_thread
from fargate_agent.network.netlink import Interface, Link, Netlink, NetlinkError
from fargate_agent.plan import EniPlan


class SubnetInUseError(Exception):
    """The host itself has an address in the subnet; a bridge would cut it off from there."""


class Bridges:
    """The bridges of one agent. All its veth ENIs share one of these."""

    def __init__(self, instance: str, findings: Findings) -> None:
        """`instance` tells this agent from others on the machine; short, and without a colon."""
        self.instance = instance
        self._findings = findings
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def hold(self, eni: EniPlan, netlink: Netlink) -> AsyncIterator[Link]:
        """Have the bridge of the ENI's subnet, and keep it, while the body gives it a port.

        Raises:
            NetlinkError: the kernel refused.
            SubnetInUseError: the subnet is one of the host's own.
        """
        gateways = _gateways(eni)
        name = bridge_name(self.instance, gateways[0])
        async with self._locks[name]:
            bridge = await netlink.find_link(name)
            if bridge is None:
                await _refuse_own_subnets(netlink, gateways)
                await netlink.add_bridge(name, bridge_mac(name))
                bridge = await netlink.get_link(name)
            await self._furnish(netlink, bridge, gateways)
            yield bridge

    async def remove_unused(self, name: str | None = None) -> list[str]:
        """Remove bridges that have no port, with their NAT; return their names.

        Of all bridges, or of the one with that name. The NAT goes first, so that none is left
        without its bridge.

        Raises:
            NetlinkError: the kernel refused.
        """
        prefix = name or f"{ours_prefix(self.instance)}b"
        async with Netlink.open() as netlink:
            names = [link.name for link in await netlink.links() if link.name.startswith(prefix)]
            return [name for name in names if await self._remove_if_unused(netlink, name)]

    async def _remove_if_unused(self, netlink: Netlink, name: str) -> bool:
        async with self._locks[name]:
            links = await netlink.links()
            bridge = next((link for link in links if link.name == name), None)
            if bridge is None or any(link.master == bridge.index for link in links):
                return False
            await self._remove_nat(name)
            await in_thread(delete_link, None, bridge.index)
            return True

    async def _furnish(
        self, netlink: Netlink, bridge: Link, gateways: tuple[Interface, ...]
    ) -> None:
        if bridge.alias is None:
            await netlink.set_alias(bridge.name, instance_alias(self.instance))
        if not bridge.up:
            await netlink.set_up(bridge.index)
        for gateway in gateways:
            await netlink.add_address(bridge.index, gateway)
        try:
            await in_thread(self._ensure_way_out, bridge.name, gateways)
        except (NetlinkError, OSError) as error:
            self._findings.note(
                f"addresses can't be translated on this machine ({error})",
                "tasks reach their own subnet, but no other network",
            )

    def _ensure_way_out(self, bridge: str, gateways: tuple[Interface, ...]) -> None:
        for gateway in gateways:
            ensure_forwarding(gateway.version)
            nftables.ensure_masquerade(
                nat_table_name(bridge), gateway.network, f"{ours_prefix(self.instance)}b"
            )
