"""ENIs that are NICs of the host: each is moved into the task, and back when the task ends.

A NIC that the agent takes is marked with who has it and what it was like, in its alias, which stays
with it wherever it goes. So it can be given back as it was also when the agent, or the namespace of
the task, is gone: a namespace that ends gives hardware to the first one of the machine, under
the name that it has.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from fargate_agent.drivers import Sweeper
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.findings import Findings
from fargate_agent.network.blocking import NetlinkError, open_netlink
from fargate_agent.network.host_nics import (
    LinkNews,
    find_by_mac,
    list_nics,
)
from fargate_agent.network.interface import CARRIER_TIMEOUT_S
from fargate_agent.network.lan import Guard, LanEni
from fargate_agent.network.link_requests import ON_ANOTHER, OVER_OTHERS
from fargate_agent.network.names import NETNS_PREFIX, eni_alias, instance_alias
from fargate_agent.network.namespaces import is_netns
from fargate_agent.network.netlink import Link, Netlink
from fargate_agent.network.prepared import PreparedEnis
from fargate_agent.network.routes import read_addresses
from fargate_agent.plan import EniPlan
from fargate_agent.threads import in_thread
from fargate_agent.wire.attributes import NIC, Attribute, name_mac

WAIT_S: Final = 60.0
"""How long a NIC may take to be there after the task was wanted: it may be plugged in then."""

CARRIER_POLL_S: Final = 0.01
"""A NIC takes one to three seconds to agree with its peer, a virtual one none."""

FREE_NAME: Final = "fgnic%d"
"""What a NIC is called whose name somebody else has taken meanwhile."""

MAX_ALIAS_CHARS: Final = 255
"""Source: Linux, include/uapi/linux/if.h, IFALIASZ."""

_MARK: Final = ":nic:"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mark:
    """What is noted on a NIC as long as the agent has it."""

    holder: str
    """Agent, namespace and ENI. Source: `network.names.eni_alias`."""
    name: str
    mtu: int
    alias: str
    """All three as they were."""

    def render(self) -> str:
        """Return it as an alias; of an alias that is too long a part is lost."""
        text = f"{self.holder}{_MARK}{self.name}:{self.mtu}:{self.alias}"
        return text.encode()[:MAX_ALIAS_CHARS].decode(errors="ignore")


def read_mark(alias: str | None) -> Mark | None:
    """Return what an alias notes; None if it isn't one of an agent on a NIC."""
    holder, found, rest = (alias or "").partition(_MARK)
    parts = rest.split(":", 2)
    if not found or len(parts) != 3 or not parts[1].isdecimal():
        return None
    return Mark(holder, parts[0], int(parts[1]), parts[2])


class NicEni(LanEni, Sweeper):
    """Gives tasks NICs of the host."""

    def __init__(
        self,
        prepared: PreparedEnis,
        guard: Guard,
        netns_dir: Path,
        findings: Findings,
        wait_s: float = WAIT_S,
    ) -> None:
        """`netns_dir` is where the namespaces of tasks are."""
        super().__init__(prepared, guard)
        self._instance = prepared.instance
        self._netns_dir = netns_dir
        self._findings = findings
        self._wait_s = wait_s
        self._taken: dict[str, str] = {}
        """Ids of ENIs by their MACs."""
        self._turn = asyncio.Lock()
        """Of whoever marks NICs and moves them."""

    async def find(self, task: Netlink, eni: EniPlan) -> Link | None:
        links = await task.links()
        marked = [link for link in links if _is_of(link, eni)]
        return marked[0] if marked else None

    async def bring(self, host: Netlink, eni: EniPlan, netns: Path) -> None:
        """Look for the NIC whenever something of the host's interfaces has changed."""
        deadline = asyncio.get_running_loop().time() + self._wait_s
        with LinkNews() as news:
            while not await self._bring_in_turn(host, eni, netns):
                try:
                    async with asyncio.timeout_at(deadline):
                        await news.wait()
                except TimeoutError as error:
                    holder = self._taken.get(eni.mac)
                    state = f": {holder} of this machine has it" if holder else ""
                    raise ResourceInitializationError(
                        f"ENI {eni.id}: unable to find the ENI: this machine has had no interface"
                        f" with MAC address {eni.mac} for {self._wait_s:g} s{state}"
                    ) from error

    async def settle(self, task: Netlink, interface: Link, eni: EniPlan) -> None:
        self._taken[eni.mac] = eni.id  # an agent before may have brought it
        if not interface.up:
            if interface.mac != eni.mac:
                await task.set_mac(interface.index, eni.mac)
            if eni.mtu not in (None, interface.mtu):
                await task.set_mtu(interface.index, eni.mtu or interface.mtu)

    async def wait(self, task: Netlink, eni: EniPlan) -> None:
        """A NIC whose wire is cut is a NIC all the same."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CARRIER_TIMEOUT_S):
                while not (await task.get_link(eni.ifname)).passing:  # noqa: ASYNC110 - no Event
                    await asyncio.sleep(CARRIER_POLL_S)

    async def take_out(self, interface: Link, eni: EniPlan, netns: Path) -> None:
        async with self._turn:
            await self._give_back(interface, netns)
            if self._taken.get(eni.mac) == eni.id:
                del self._taken[eni.mac]

    async def sweep(self, kept: Collection[str]) -> list[str]:
        """Give back the NICs of tasks that aren't kept: from their namespaces, or what is left."""
        names = {f"{NETNS_PREFIX}{task_id}" for task_id in kept}
        swept = []
        for netns in sorted(self._netns_dir.glob(f"{NETNS_PREFIX}*")):
            if netns.name not in names and is_netns(netns):
                swept += await self._sweep_netns(netns)
        swept += await self._sweep_netns(None)
        for name in swept:
            log.info("swept %s", name)
        return swept

    def read_attributes(self, root: Path) -> Iterator[Attribute]:
        """Those that tasks have are this machine's too."""
        macs = dict.fromkeys(self._taken)
        for nic in list_nics(root):
            with suppress(OSError):
                macs[(nic / "address").read_text().strip()] = None
        for mac in macs:
            yield Attribute(NIC + name_mac(mac))

    async def _bring_in_turn(self, host: Netlink, eni: EniPlan, netns: Path) -> bool:
        async with self._turn:
            is_there = await self._try_to_bring(host, eni, netns)
            if is_there:
                self._taken[eni.mac] = eni.id
            return is_there

    async def _try_to_bring(self, host: Netlink, eni: EniPlan, netns: Path) -> bool:
        """Move the NIC into the namespace; False: it isn't there, or is just being taken."""
        nic = find_by_mac(await host.links(), eni.mac, but=ON_ANOTHER | OVER_OTHERS)
        if nic is None:
            return False
        if nic.master is not None or nic.index in await host.default_interfaces():
            use = "a part of another interface" if nic.master else "what its default route leads to"
            raise ResourceInitializationError(
                f"ENI {eni.id}: interface '{nic.name}' of this machine, with MAC address {eni.mac},"
                f" is {use}: configure nothing on it, or take another NIC for tasks"
            )
        before = read_mark(nic.alias)
        await self._refuse_used(nic, before, eni)
        mark = Mark(
            eni_alias(self._instance, netns, eni.id),
            before.name if before else nic.name,
            before.mtu if before else nic.mtu,
            before.alias if before else nic.alias or "",
        )
        try:
            await host.mark(nic.index, mark.render())
            with netns.open("rb") as namespace:
                await host.move(nic.index, namespace.fileno(), eni.ifname)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return False
            await self._restore(host, nic.index, mark)
            raise
        return True

    async def _refuse_used(self, nic: Link, mark: Mark | None, eni: EniPlan) -> None:
        """Leave a NIC alone that the host or another agent uses."""
        what = f"ENI {eni.id}: interface '{nic.name}' of this machine, with MAC address {eni.mac},"
        if mark and not mark.holder.startswith(f"{instance_alias(self._instance)}:"):
            raise ResourceInitializationError(
                f"{what} is marked by another agent: {mark.holder}; if that one is gone, clear the"
                " alias of the interface"
            )
        found = await in_thread(_find_global_address, nic.index)
        if found is not None:
            raise ResourceInitializationError(
                f"{what} has address {found} of this machine: configure nothing on it, or take"
                " another NIC for tasks"
            )

    async def _sweep_netns(self, netns: Path | None) -> list[str]:
        prefix = f"{instance_alias(self._instance)}:"
        swept = []
        try:
            async with Netlink.open(netns) as netlink:
                links = await netlink.links()
                for link in links:
                    mark = read_mark(link.alias)
                    if mark is None or not mark.holder.startswith(prefix):
                        continue
                    if netns is not None:
                        await self._give_back(link, netns)
                    else:
                        await self._restore(netlink, link.index, mark)
                    swept.append(mark.name)
        except (NetlinkError, OSError) as error:
            where = netns.name if netns else "the host"
            log.warning("could not give back a NIC of %s: %s", where, error)
        return swept

    async def _give_back(self, nic: Link, netns: Path) -> None:
        """Move a NIC to the host, where it is as it was, and down."""
        mark = read_mark(nic.alias)
        if mark is None:
            return
        async with Netlink.open(netns) as task, Netlink.open() as host:
            with _open_host() as namespace:
                try:
                    await task.move(nic.index, namespace.fileno(), mark.name)
                except NetlinkError as error:
                    if error.code != errno.EEXIST:
                        raise
                    if any(link.alias == nic.alias for link in await task.links()):
                        await task.move(nic.index, namespace.fileno(), FREE_NAME)
            for link in await host.links():  # it may have another index now
                if link.alias == nic.alias:
                    await self._restore(host, link.index, mark)

    async def _restore(self, host: Netlink, index: int, mark: Mark) -> None:
        """Have a NIC of the host be as it was, and then say nothing of the agent."""
        found = [one for one in await host.links() if one.index == index and read_mark(one.alias)]
        if not found:
            return
        link = found[0]
        if link.name != mark.name and not link.up:
            try:
                await host.rename(index, mark.name)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
                await host.rename(index, FREE_NAME)
                self._findings.note(
                    f"the NIC with MAC address {link.mac} can't have its name {mark.name} again,"
                    " which another interface has taken",
                    "it has a name that was free, and is not set up by its own",
                )
        if link.mtu != mark.mtu:
            await host.set_mtu(index, mark.mtu)
        if link.permanent_mac not in (None, link.mac) and not link.up:
            await host.set_mac(index, link.permanent_mac or link.mac)
        await host.mark(index, mark.alias)


def _find_global_address(index: int) -> str | None:
    with open_netlink(None, socket.NETLINK_ROUTE) as host:
        found = [
            str(at) for one, at in read_addresses(host) if one == index and not at.is_link_local
        ]
    return found[0] if found else None


def _open_host() -> BinaryIO:
    return Path("/proc/self/ns/net").open("rb")


def _is_of(link: Link, eni: EniPlan) -> bool:
    mark = read_mark(link.alias)
    return mark is not None and mark.holder.endswith(f":{eni.id}")
