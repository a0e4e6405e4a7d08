"""What an ENI is on the machine of its agent: which NIC, or which VLAN of a trunk.

Nobody else has it as long as the ENI is in use: there is one writer at a time.
"""

import random
from dataclasses import dataclass

from sqlalchemy import select

from fargate_agent.controlplane.names import new_mac
from fargate_agent.controlplane.state.model import Eni
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.vpc.addresses import IN_USE
from fargate_agent.controlplane.vpc.plan import Subnet
from fargate_agent.wire.eni_kinds import EniKind


@dataclass(frozen=True, slots=True)
class Port:
    """By what an agent makes or finds the interface of an ENI."""

    mac: str
    vlan_id: int | None = None


async def take_ports(session: Session, subnet: Subnet, count: int) -> list[Port]:
    """Return so many ports of a subnet, or fewer if it has no more.

    Of NICs all that are free are returned: only some of them may be of an agent with room. The
    caller puts those that it wants into rows of ENIs in the same transaction.
    """
    if subnet.kind is EniKind.NIC:
        used = select(Eni.mac).where(IN_USE, Eni.mac.in_(subnet.nics))
        taken = set(await session.scalars(used))
        return [Port(mac) for mac in subnet.nics if mac not in taken]
    if subnet.kind is EniKind.VLAN:
        of_subnet = select(Eni.vlan_id).where(Eni.subnet_id == subnet.id, IN_USE)
        held = set(await session.scalars(of_subnet))
        free = [vlan_id for vlan_id in subnet.vlan_ids if vlan_id not in held]
        # The one that was given back last may still be on its way off the trunk.
        chosen = random.sample(free, min(count, len(free)))
        return [Port(new_mac(), vlan_id) for vlan_id in chosen]
    return [Port(new_mac()) for _ in range(count)]
