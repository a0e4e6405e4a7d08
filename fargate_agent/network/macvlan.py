"""ENIs as macvlan children of a NIC: the task is a machine of its own on that NIC's network.

The gateway is whatever that network has. The host itself can't be reached through the parent; that
is how macvlan works.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fargate_agent.drivers import EniDriver
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.blocking import delete_link
from fargate_agent.network.interface import configure, wait_until_passing
from fargate_agent.network.namespaces import is_netns
from fargate_agent.network.netlink import Link, Netlink
from fargate_agent.network.prepared import PreparedEnis
from fargate_agent.network.probe import AddressProbes
from fargate_agent.network.reasons import kernel_refusals
from fargate_agent.plan import EniPlan
from fargate_agent.threads import in_thread
from fargate_agent.wire.attributes import MACVLAN_PARENT, Attribute

KIND: Final = "macvlan"
MAX_PARENTS: Final = 100
"""NICs that are named."""

_ETHERNET: Final = "1"
"""Source: Linux, if_arp.h, ARPHRD_ETHER."""
_OURS: Final = re.compile(r"fg[0-9a-f]{4}[a-z].+")
"""Interfaces of agents. Source: `network.names`."""


class MacvlanEni(EniDriver):
    """Attaches ENIs to NICs of the host."""

    def __init__(self, prepared: PreparedEnis) -> None:
        """`prepared` is what comes with network namespaces, which is of no use here."""
        self._prepared = prepared
        self._probes = AddressProbes()

    async def __aexit__(self, *_: object) -> None:
        """Let go of the sockets of ENIs that were attached and not confirmed; the ENIs stay."""
        self._probes.close_all()

    async def attach(self, eni: EniPlan, netns: Path) -> None:
        with kernel_refusals(f"ENI {eni.id}"):
            async with Netlink.open() as host, Netlink.open(netns) as task:
                parent = await _ready_parent(host, eni)
                interface = await _find(task, eni)
                if interface is None:
                    await self._prepared.discard(netns)
                    with netns.open("rb") as namespace:
                        await host.add_macvlan(parent.index, namespace.fileno(), eni.mac, eni.mtu)
                    interface = await _find(task, eni)
                if interface is not None and interface.name != eni.ifname:
                    await task.rename(interface.index, eni.ifname)
                is_new = await configure(task, netns, eni)
                if is_new:
                    self._probes.start(eni, netns)

    async def confirm(self, eni: EniPlan, netns: Path) -> None:
        self._probes.confirm(eni)

    async def update(self, eni: EniPlan, netns: Path) -> None:
        """Nothing depends on them yet."""

    async def detach(self, eni: EniPlan, netns: Path) -> None:
        self._probes.close(eni)
        with kernel_refusals(f"ENI {eni.id}"):
            if not is_netns(netns):
                return
            async with Netlink.open(netns) as task:
                interface = await _find(task, eni)
            if interface is not None:
                await in_thread(delete_link, netns, interface.index)

    def read_attributes(self, root: Path) -> Iterator[Attribute]:
        links = sorted((root / "sys/class/net").glob("*"))
        for link in [link for link in links if _is_parent(link)][:MAX_PARENTS]:
            yield Attribute(MACVLAN_PARENT + link.name)


def _is_parent(link: Path) -> bool:
    """Whether a link, by its directory in sysfs, is a NIC that a macvlan can hang on."""
    try:
        kind = (link / "type").read_text().strip()
    except OSError:
        return False
    return kind == _ETHERNET and not _OURS.fullmatch(link.name)


async def _ready_parent(host: Netlink, eni: EniPlan) -> Link:
    parent = await host.find_link(eni.parent or "")
    if parent is None:
        raise ResourceInitializationError(
            f"ENI {eni.id}: this machine has no interface '{eni.parent}' for it to hang on"
        )
    if not parent.up:
        await host.set_up(parent.index)
        await wait_until_passing(parent.name)
    return parent


async def _find(task: Netlink, eni: EniPlan) -> Link | None:
    """The ENI's interface in the task's namespace, by whatever name."""
    for link in await task.links():
        if (link.kind, link.mac) == (KIND, eni.mac):
            return link
    return None
