"""Branch ENIs: each is a VLAN on a trunk, which is a NIC of the host.

Source: ECS Developer Guide, "ENI trunking".
"""

import errno
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.host_nics import MAC, find_by_mac, list_nics
from fargate_agent.network.lan import LanEni, bring_up, find_of_kind
from fargate_agent.network.link_requests import ON_ANOTHER
from fargate_agent.network.netlink import Link, Netlink
from fargate_agent.plan import EniPlan
from fargate_agent.wire.attributes import VLAN_TRUNK, Attribute, name_mac

KIND: Final = "vlan"


class VlanEni(LanEni):
    """Attaches ENIs to trunks."""

    async def prepare(self, host: Netlink, eni: EniPlan) -> None:
        await _ready_trunk(host, eni)

    async def find(self, task: Netlink, eni: EniPlan) -> Link | None:
        return await find_of_kind(task, KIND, eni)

    async def bring(self, host: Netlink, eni: EniPlan, netns: Path) -> None:
        trunk = await _ready_trunk(host, eni)
        assert eni.vlan_id is not None  # noqa: S101 - the plan has it with this kind
        try:
            with netns.open("rb") as namespace:
                await host.add_vlan(trunk.index, eni.vlan_id, namespace.fileno(), eni.mac, eni.mtu)
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                raise ResourceInitializationError(
                    f"ENI {eni.id}: VLAN {eni.vlan_id} of trunk '{eni.parent}' is in use on this"
                    " machine"
                ) from error
            if error.code == errno.EOPNOTSUPP:
                raise ResourceInitializationError(
                    f"ENI {eni.id}: the kernel has no module 8021q for VLANs"
                ) from error
            raise

    def read_attributes(self, root: Path) -> Iterator[Attribute]:
        for nic in list_nics(root):
            yield Attribute(VLAN_TRUNK + nic.name)
            with suppress(OSError):
                yield Attribute(VLAN_TRUNK + name_mac((nic / "address").read_text().strip()))


async def _ready_trunk(host: Netlink, eni: EniPlan) -> Link:
    wanted = eni.parent or ""
    if MAC.fullmatch(wanted):
        trunk = find_by_mac(await host.links(), wanted, but=ON_ANOTHER)
    else:
        trunk = await host.find_link(wanted)
    if trunk is None:
        what = "with MAC address" if MAC.fullmatch(wanted) else "named"
        raise ResourceInitializationError(
            f"ENI {eni.id}: unable to find the trunk: this machine has no interface {what}"
            f" '{wanted}'"
        )
    await bring_up(host, trunk)
    return trunk
