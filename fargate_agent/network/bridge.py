"""The bridges of an agent: one per subnet, with the subnet's gateway address and its NAT.

A bridge is there as long as it has a port. Making the first port and removing the last bridge must
not cross, so both happen under the lock of that bridge; nothing else is remembered: what is there
is read from the kernel each time, and put right where a crash or somebody else left it half-way.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final

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
from fargate_agent.network.netlink import (
    Interface,
    Netlink,
    NetlinkError,
    find_index,
    get_index,
)
from fargate_agent.network.reasons import SubnetInUseError
from fargate_agent.network.sysctl import ignore_announcements
from fargate_agent.plan import EniPlan
from fargate_agent.threads import in_thread

FORWARDING_PERIOD_S: Final = 10.0
"""For how long a new uplink of the host may drop the answers that running tasks wait for."""


class Bridges:
    """The bridges of one agent. All its veth ENIs share one of these."""

    def __init__(self, instance: str, findings: Findings) -> None:
        """`instance` tells this agent from others on the machine; short, and without a colon."""
        self.instance = instance
        self._findings = findings
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._forwarded: set[int] = set()
        """Versions of IP that tasks have used to reach other networks."""

    @asynccontextmanager
    async def hold(self, eni: EniPlan, netlink: Netlink) -> AsyncIterator[int]:
        """Have the bridge of the ENI's subnet, and keep it, while the body gives it a port.

        Yields its index.

        Raises:
            NetlinkError, OSError: the kernel refused.
            SubnetInUseError: the subnet is one of the host's own.
        """
        gateways = _gateways(eni)
        name = self.name_of(eni)
        async with self._locks[name]:
            index = find_index(name)
            if index is None:
                await _refuse_own_subnets(netlink, gateways)
                await netlink.add_bridge(name, bridge_mac(name))
                index = get_index(name)
            ignore_announcements(name)
            await netlink.set_up(index, instance_alias(self.instance))
            for gateway in gateways:
                await netlink.add_address(index, gateway)
            await self._ensure_way_out(name, gateways)
            yield index

    async def release(self, eni: EniPlan) -> None:
        """Remove the bridge of the ENI's subnet with its NAT, unless it has a port.

        Raises:
            NetlinkError: the kernel refused.
        """
        async with Netlink.open() as netlink:
            await self._remove_if_unused(netlink, self.name_of(eni))

    def name_of(self, eni: EniPlan) -> str:
        """Name the bridge of the ENI's subnet."""
        return bridge_name(self.instance, _gateways(eni)[0])

    async def release_unused(self) -> list[str]:
        """Remove every bridge that has no port, and NAT that has no bridge; return their names.

        Raises:
            NetlinkError: the kernel refused.
        """
        prefix = f"{ours_prefix(self.instance)}b"
        async with Netlink.open() as netlink:
            names = {link.name for link in await netlink.links() if link.name.startswith(prefix)}
            with suppress(NetlinkError):  # no packet filter, no NAT
                for table in await in_thread(nftables.read_tables):
                    if table.startswith(nat_table_name(prefix)):
                        names.add(table.removeprefix(nat_table_name("")))
            return [name for name in names if await self._remove_if_unused(netlink, name)]

    async def _remove_if_unused(self, netlink: Netlink, name: str) -> bool:
        async with self._locks[name]:
            links = await netlink.links()
            bridge = next((link for link in links if link.name == name), None)
            if bridge is not None and any(link.master == bridge.index for link in links):
                return False
            # The NAT goes first, so that a crash in between leaves a bridge, which is found again.
            with suppress(NetlinkError):  # no packet filter, no NAT
                await in_thread(nftables.delete_tables, nat_table_name(name))
            if bridge is not None:
                await in_thread(delete_link, None, bridge.index)
            return True

    async def keep_forwarding(self) -> None:
        """Have packets of tasks passed on by interfaces that get routes later, until cancelled."""
        while True:
            await asyncio.sleep(FORWARDING_PERIOD_S)
            for version in tuple(self._forwarded):
                with suppress(OSError):  # the next ENI notes it
                    await in_thread(ensure_forwarding, version)

    async def _ensure_way_out(self, name: str, gateways: tuple[Interface, ...]) -> None:
        try:
            for gateway in gateways:
                self._forwarded.add(gateway.version)
                ensure_forwarding(gateway.version)
                if not nftables.table_exists(nat_table_name(name), gateway.version):
                    await in_thread(
                        nftables.add_masquerade,
                        nat_table_name(name),
                        gateway.network,
                        f"{ours_prefix(self.instance)}b",
                    )
        except (NetlinkError, OSError) as error:
            self._findings.note(
                f"addresses can't be translated: no nftables on this machine ({error})",
                "tasks reach their own subnet, but no other network",
            )


def _gateways(eni: EniPlan) -> tuple[IPv4Interface, *tuple[IPv6Interface, ...]]:
    """The addresses of the ENI's gateways, with the prefix length of the subnet."""
    ipv4 = IPv4Interface((eni.gateway, eni.address.network.prefixlen))
    if eni.ipv6_address is None or eni.ipv6_gateway is None:
        return (ipv4,)
    return ipv4, IPv6Interface((eni.ipv6_gateway, eni.ipv6_address.network.prefixlen))


async def _refuse_own_subnets(netlink: Netlink, gateways: tuple[Interface, ...]) -> None:
    for _, address in await netlink.addresses():
        for gateway in gateways:
            if address.version == gateway.version and address.ip in gateway.network:
                raise SubnetInUseError(
                    f"this machine has an address of its own, {address.ip}, in the subnet "
                    f"{gateway.network}"
                )
