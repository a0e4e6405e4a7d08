"""ENIs as a VPC has them: each alone on its wire, whose other end is the host, which routes.

Nothing is shared: what a task sends is for the host, which delivers by address and drops what has
a source that isn't the task's. What is there is read from the kernel, but for what this agent has
attached itself.
"""

import asyncio
import logging
import socket
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Protocol
from weakref import WeakValueDictionary

from fargate_agent.drivers import EniDriver, Service, Sweeper
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.findings import Findings
from fargate_agent.network.blocking import NetlinkError, delete_link, open_netlink
from fargate_agent.network.bridges import remove_unused_bridges
from fargate_agent.network.forwarding import Forwarding
from fargate_agent.network.forwarding_watch import ForwardingWatch
from fargate_agent.network.names import (
    NETNS_PREFIX,
    eni_alias,
    netns_alias,
    ours_prefix,
)
from fargate_agent.network.netlink import Link, Netlink
from fargate_agent.network.pair import (
    Pair,
    find_inside,
    read_end,
    settle,
    wait_until_passing,
)
from fargate_agent.network.prepared import PreparedEnis
from fargate_agent.network.reasons import SubnetInUseError, kernel_refusals
from fargate_agent.network.removals import Removals
from fargate_agent.network.routes import (
    AddressInUseError,
    addresses_of,
    claim,
    find_interface,
    furnish_task,
    ranges_of,
    read_addresses,
    read_eni_routes,
    release,
)
from fargate_agent.network.rtnetlink import UNICAST, Network
from fargate_agent.network.unreachable import Unreachable
from fargate_agent.plan import EniPlan
from fargate_agent.threads import in_thread

FORWARDING_PERIOD_S: Final = 10.0
"""For how long a new uplink of the host may drop the answers that running tasks wait for."""

NO_WAY_OUT: Final = "tasks reach each other, but no other network"

log = logging.getLogger(__name__)


class Firewall(Protocol):
    """What lets through what is for an ENI and comes from it; nothing passes that it isn't told."""

    async def ensure(self) -> None:
        """Return when nothing passes but what is let through."""
        ...

    async def open_eni(self, eni: EniPlan) -> None:
        """Let through what the ENI's groups allow."""
        ...

    async def close_eni(self, eni: EniPlan) -> None:
        """Let through nothing of the ENI."""
        ...

    async def note_uplinks(self, uplinks: Mapping[int, Collection[str]]) -> None:
        """Of what comes from these, of their version of IP, pass on only what is for an ENI."""
        ...


class VethEni(EniDriver, Service, Sweeper):
    """Attaches ENIs to the host itself."""

    def __init__(
        self,
        prepared: PreparedEnis,
        firewall: Firewall,
        forwarding: Forwarding,
        findings: Findings,
    ) -> None:
        """Make nothing yet; `prepared` has what is made with network namespaces."""
        self._instance = prepared.instance
        self._prepared = prepared
        self._firewall = firewall
        self._forwarding = forwarding
        self._findings = findings
        self._attached: dict[str, Pair] = {}
        """By the id of the ENI."""
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Held while an ENI is changed, by its id."""
        self._subnets: defaultdict[Network, set[str]] = defaultdict(set)
        """Ids of the ENIs that are attached, by their subnet."""
        self._forwarded: set[int] = set()
        """Versions of IP that ENIs have had."""
        self._turn = threading.Lock()
        self._unreachable = Unreachable(prepared.instance, prepared.pairs.is_ours, self._turn)
        self._removals = Removals(self._unreachable.remove_unused)

    async def __aexit__(self, *_: object) -> None:
        """Remove what is still there of ENIs that were detached; the others stay."""
        await self._removals.finish()

    async def serve(self) -> None:
        """Have packets passed on, whoever switches that off, until cancelled.

        Also by interfaces that get routes later.

        In the end the host's settings are put back, unless there are ENIs.
        """
        try:
            with ForwardingWatch() as watch:
                while True:
                    await watch.wait(FORWARDING_PERIOD_S)
                    for version in tuple(self._forwarded):
                        await self._forward(version)
                    for pair in tuple(self._attached.values()):
                        with suppress(OSError):
                            await in_thread(self._forwarding.ensure_end, pair.name)
                    await in_thread(self._restore_unreachable)
        finally:
            with suppress(NetlinkError, OSError):  # the next agent does it
                if not self._unreachable.has_enis():
                    self._forwarding.restore()

    def _restore_unreachable(self) -> None:
        try:
            self._unreachable.restore()
        except NetlinkError as error:
            log.warning("what of the VPC has no ENI may leave by other routes: %s", error)

    async def sweep(self, kept: Collection[str]) -> list[str]:
        swept: list[str] = []
        try:
            swept += await self._sweep_ends(kept)
            swept += await remove_unused_bridges(self._instance)
            await in_thread(self._unreachable.forget_unowned_flows)
            swept += await in_thread(self._unreachable.remove_unused)
            if kept:  # what the agent before switched on stays what only ENIs are reached by
                await self._firewall.note_uplinks(await in_thread(self._forwarding.find, ()))
            else:
                await in_thread(self._forwarding.restore)
        except (NetlinkError, OSError) as error:
            log.warning("could not clean up interfaces: %s", error)
        for name in swept:
            log.info("swept %s", name)
        return swept

    async def attach(self, eni: EniPlan, netns: Path) -> None:
        """Return when the ENI is up; what fails leaves it without a way to or from it.

        First comes what keeps packets from passing, then the route, then what lets them pass.
        """
        gateways = {eni.gateway, eni.ipv6_gateway}
        if taken_address := next((one for one in addresses_of(eni) if one in gateways), None):
            raise ResourceInitializationError(
                f"ENI {eni.id}: address {taken_address} is already in use by the gateway"
            )
        async with self._refusals_in_turn(eni):
            await self._firewall.ensure()
            await self._removals.wait_for_flows(addresses_of(eni))
            taken = self._prepared.take(netns, eni.ifname)
            if taken is not None and await in_thread(self._attach_prepared, eni, netns, *taken):
                await self._open(eni)
                return
            await self._removals.wait_for_links(netns)
            was_bridged = await in_thread(self._attach, eni, netns)
            await self._open(eni)
            await self._wait_until_passing(self._attached[eni.id], netns)
            if was_bridged:
                await remove_unused_bridges(self._instance)

    async def _wait_until_passing(self, pair: Pair, netns: Path) -> None:
        with (
            open_netlink(netns, socket.NETLINK_ROUTE) as task,
            open_netlink(None, socket.NETLINK_ROUTE) as host,
        ):
            await wait_until_passing(pair, task, host)

    async def confirm(self, eni: EniPlan, netns: Path) -> None:
        """Nobody else can have the address: the host has one route to it."""

    async def update(self, eni: EniPlan, netns: Path) -> None:
        """Change what is attached; else `attach` begins with the groups that it is given."""
        async with self._refusals_in_turn(eni):
            if eni.id in self._attached:
                await self._firewall.open_eni(eni)

    async def detach(self, eni: EniPlan, netns: Path) -> None:
        """Return when the address is free.

        Interface and flows go later; an attach of the address waits for the flows.
        """
        async with self._refusals_in_turn(eni):
            pair = self._attached.pop(eni.id, None)
            if pair is None:
                await self._detach_unknown(eni)
                return
            try:
                await self._firewall.close_eni(eni)
                await in_thread(self._let_go, eni, pair.index)
            except BaseException:
                self._attached[eni.id] = pair
                raise
            self._removals.add_link(pair.index, netns)
            self._removals.add_flows(addresses_of(eni))

    @asynccontextmanager
    async def _refusals_in_turn(self, eni: EniPlan) -> AsyncIterator[None]:
        """Let nothing else change the ENI; name it when the kernel refuses."""
        with kernel_refusals(f"ENI {eni.id}"):
            async with self._turns.setdefault(eni.id, asyncio.Lock()):
                yield

    async def _open(self, eni: EniPlan) -> None:
        try:
            await self._firewall.open_eni(eni)
        except BaseException:
            await in_thread(self._let_go, eni, self._attached[eni.id].index)
            raise
        versions = {address.version for address in addresses_of(eni)}
        for version in versions - self._forwarded:
            self._forwarded.add(version)
            await self._forward(version)

    async def _forward(self, version: int) -> None:
        """Have the host pass packets on; what may not pass is told to the firewall first."""
        try:
            uplinks = await in_thread(self._forwarding.find, tuple(self._forwarded))
            await self._firewall.note_uplinks(uplinks)
            await in_thread(self._forwarding.ensure, version)
        except (NetlinkError, OSError) as error:
            self._findings.note(f"forwarding can't be switched on ({error})", NO_WAY_OUT)

    def _attach_prepared(self, eni: EniPlan, netns: Path, pair: Pair, task: socket.socket) -> bool:
        """Make the prepared pair the ENI's; False: somebody has taken it away."""
        with task, open_netlink(None, socket.NETLINK_ROUTE) as host:
            if find_inside(host, pair.name) != pair.index:
                return False
            if not self._subnets[eni.address.network]:
                self._refuse_own_subnets(host, eni)
            self._furnish(eni, netns, pair, task, host, is_known=False)
        return True

    def _attach(self, eni: EniPlan, netns: Path) -> bool:
        """Make the ENI's pair, or find it and complete it; whether it was on a bridge."""
        with (
            open_netlink(netns, socket.NETLINK_ROUTE) as task,
            open_netlink(None, socket.NETLINK_ROUTE) as host,
        ):
            found = self._prepared.pairs.find(eni.ifname, task, host)
            if found is None or not found[1].alias:
                self._refuse_own_subnets(host, eni)
            if found is None:
                pair = self._prepared.pairs.make(netns, eni.ifname, task, host)
            else:
                pair = found[0]
                settle(pair, task, host)
            self._furnish(eni, netns, pair, task, host, is_known=found is not None)
        return found is not None and bool(found[1].master)

    def _furnish(
        self,
        eni: EniPlan,
        netns: Path,
        pair: Pair,
        task: socket.socket,
        host: socket.socket,
        *,
        is_known: bool,
    ) -> None:
        """Complete a pair; `is_known` one was attached before, and may have lost anything."""
        furnish_task(task, pair, eni)
        alias = eni_alias(self._instance, netns, eni.id)
        try:
            with self._turn:
                self._unreachable.add(host, ranges_of(eni), anew=is_known)
                self._claim(host, pair, eni, alias)
                self._subnets[eni.address.network].add(eni.id)
        except AddressInUseError as error:
            holder = read_end(host, error.interface) if error.interface else None
            raise ResourceInitializationError(
                f"ENI {eni.id}: address {error.address} is already in use by "
                f"{_describe_holder(holder.name, holder.alias) if holder else 'this machine'}"
            ) from error
        self._attached[eni.id] = pair

    def _claim(self, host: socket.socket, pair: Pair, eni: EniPlan, alias: str) -> None:
        try:
            claim(host, pair, eni, alias)
        except AddressInUseError as error:
            holder = read_end(host, error.interface) if error.interface else None
            is_ours = holder is not None and self._prepared.pairs.is_ours(holder.name)
            if holder is None or not is_ours or not holder.alias.endswith(f":{eni.id}"):
                raise
            # The ENI's own, whose other end is in a namespace that has lost its name.
            delete_link(None, holder.index)
            claim(host, pair, eni, alias)

    def _refuse_own_subnets(self, host: socket.socket, eni: EniPlan) -> None:
        subnets = [eni.address.network, *([eni.ipv6_address.network] if eni.ipv6_address else ())]
        prefix = ours_prefix(self._instance)
        for index, address in read_addresses(host):
            for subnet in subnets:
                if address.version == subnet.version and address.ip in subnet:
                    end = read_end(host, index)
                    if end is not None and not end.name.startswith(prefix):
                        raise SubnetInUseError(
                            f"this machine has an address of its own, {address.ip}, in the subnet "
                            f"{subnet}"
                        )

    async def _detach_unknown(self, eni: EniPlan) -> None:
        """Detach what another agent has attached, or nobody."""
        async with Netlink.open() as netlink:
            ends = {link.index for link in await netlink.links() if self._is_end_of(link, eni)}
        ends |= await in_thread(self._find_unmarked, eni)
        if await in_thread(self._is_held_by, eni, ends | {0}):
            await self._firewall.close_eni(eni)
            self._removals.add_flows(addresses_of(eni))  # before the next may have the address
            for index in ends:
                await in_thread(self._let_go, eni, index)
            self._removals.add_flows(addresses_of(eni))  # with its route, once that is gone
        for index in ends:
            await in_thread(delete_link, None, index)

    def _is_end_of(self, link: Link, eni: EniPlan) -> bool:
        is_its = (link.alias or "").endswith(f":{eni.id}")
        return is_its and self._prepared.pairs.is_ours(link.name)

    def _find_unmarked(self, eni: EniPlan) -> set[int]:
        """The host's end that the ENI's address leads to, if it has lost its alias."""
        with open_netlink(None, socket.NETLINK_ROUTE) as host:
            index = find_interface(host, eni.address.ip)
            end = read_end(host, index) if index else None
        is_its = end is not None and self._prepared.pairs.is_ours(end.name) and not end.alias
        return {index} if is_its else set()

    def _is_held_by(self, eni: EniPlan, interfaces: set[int]) -> bool:
        """Whether the ENI's addresses lead to these interfaces."""
        with open_netlink(None, socket.NETLINK_ROUTE) as host:
            return all(find_interface(host, one) in interfaces for one in addresses_of(eni))

    def _let_go(self, eni: EniPlan, index: int) -> None:
        """Free the ENI's addresses; `index` is the host's end."""
        with self._turn, open_netlink(None, socket.NETLINK_ROUTE) as host:
            release(host, index, eni)
            self._subnets[eni.address.network].discard(eni.id)

    async def _sweep_ends(self, kept: Collection[str]) -> list[str]:
        """Remove the host's ends whose alias names the namespace of no task that is kept.

        Those without have no ENI, and go with the namespace that they were made with.
        """
        names = (f"{NETNS_PREFIX}{task_id}" for task_id in kept)
        aliases = tuple(f"{netns_alias(self._instance, name)}:" for name in names)
        routed = await in_thread(self._find_routed)
        async with Netlink.open() as netlink:
            left = [
                link
                for link in await netlink.links()
                if self._prepared.pairs.is_ours(link.name)
                and (link.alias or link.index in routed)
                and not (link.alias or "").startswith(aliases)
            ]
        for link in left:
            await in_thread(delete_link, None, link.index)
        return [link.name for link in left]

    def _find_routed(self) -> set[int]:
        """The interfaces that addresses of ENIs lead to."""
        with open_netlink(None, socket.NETLINK_ROUTE) as host:
            return {one.interface for one in read_eni_routes(host) if one.kind == UNICAST}


def _describe_holder(name: str, alias: str) -> str:
    eni_id = alias.rpartition(":")[2]
    return f"{eni_id} of this machine" if eni_id.startswith("eni-") else f"interface {name}"
