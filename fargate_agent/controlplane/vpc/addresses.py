"""Which address an ENI gets.

Addresses are handed out in a circle, so that one which was just given back rests as long as it can.
A cursor per subnet says how far the circle has come. None is handed out twice: there is one writer
at a time, and the index on addresses in use would refuse one that is taken all the same.

The next few addresses are looked up in that index, which costs the same however many are in use.
Only when too few of these are free, every address of the subnet is looked at.
"""

from ipaddress import IPv4Address
from itertools import islice
from typing import Final

from sqlalchemy import Select, func, select, text

from fargate_agent.controlplane.state.model import Eni, SubnetCursor
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.vpc.plan import Subnet

PROBED: Final = 48
"""Addresses that are looked up at once. Where half of a subnet is in use, all over it, one launch
of ten tasks in a hundred thousand finds too few."""

IN_USE: Final = text("enis.in_use")
"""As the partial index has it: SQLite uses that only for the very same condition."""


async def take_addresses(session: Session, subnet: Subnet, count: int) -> list[IPv4Address]:
    """Return so many addresses of a subnet, or fewer if it has no more.

    The caller puts them into rows of the ENIs in the same transaction, which is one that writes.
    """
    cursor = await session.get(SubnetCursor, subnet.id)
    found = await _find_free(session, subnet, cursor.last_address if cursor else None, count)
    if found:
        if cursor is None:
            cursor = SubnetCursor(subnet_id=subnet.id)
            session.add(cursor)
        cursor.last_address = int(found[-1])
    return found


def count_in_use() -> Select[str, int]:
    """Ask how many addresses of each subnet are taken."""
    return select(Eni.subnet_id, func.count()).where(IN_USE).group_by(Eni.subnet_id)


async def _find_free(
    session: Session, subnet: Subnet, after: int | None, count: int
) -> list[IPv4Address]:
    of_subnet = (Eni.subnet_id == subnet.id, IN_USE)
    near = list(islice(subnet.addresses(after), PROBED))
    among = select(Eni.address).where(*of_subnet, Eni.address.in_(near))
    taken = set(await session.scalars(among))
    free = [address for address in near if address not in taken]
    if len(free) < count and len(near) == PROBED:
        # As one text: a row for each would take ten times as long.
        everything = select(func.aggregate_strings(Eni.address, ",")).where(*of_subnet)
        taken = set((await session.scalar(everything) or "").split(","))
        free = list(islice((a for a in subnet.addresses(after) if a not in taken), count))
    return [IPv4Address(address) for address in free[:count]]
