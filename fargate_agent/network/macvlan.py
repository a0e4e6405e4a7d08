"""ENIs as macvlan children of a NIC: the task is a machine of its own on that NIC's network.

The gateway is whatever that network has. The host itself can't be reached through the parent; that
is how macvlan works.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.host_nics import list_nics
from fargate_agent.network.lan import LanEni, bring_up, find_of_kind
from fargate_agent.network.netlink import Link, Netlink
from fargate_agent.plan import EniPlan
from fargate_agent.wire.attributes import MACVLAN_PARENT, Attribute

KIND: Final = "macvlan"


class MacvlanEni(LanEni):
    """Attaches ENIs to NICs of the host."""

    async def prepare(self, host: Netlink, eni: EniPlan) -> None:
        await _ready_parent(host, eni)

    async def find(self, task: Netlink, eni: EniPlan) -> Link | None:
        return await find_of_kind(task, KIND, eni)

    async def bring(self, host: Netlink, eni: EniPlan, netns: Path) -> None:
        parent = await _ready_parent(host, eni)
        with netns.open("rb") as namespace:
            await host.add_macvlan(parent.index, namespace.fileno(), eni.mac, eni.mtu)

    def read_attributes(self, root: Path) -> Iterator[Attribute]:
        for nic in list_nics(root):
            yield Attribute(MACVLAN_PARENT + nic.name)


async def _ready_parent(host: Netlink, eni: EniPlan) -> Link:
    parent = await host.find_link(eni.parent or "")
    if parent is None:
        raise ResourceInitializationError(
            f"ENI {eni.id}: this machine has no interface '{eni.parent}' for it to hang on"
        )
    await bring_up(host, parent)
    return parent
