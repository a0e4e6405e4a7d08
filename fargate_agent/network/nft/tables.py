"""Tables as a whole: which there are, and taking them away. All functions block."""

import errno
from collections.abc import Iterable

from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.nft.connection import Nft
from fargate_agent.network.nft.objects import Table


def read_tables() -> set[str]:
    """Return the names of the host's tables of all families.

    Raises:
        NetlinkError: the kernel refused, or has no packet filter.
    """
    with Nft() as nft:
        return {name for _, name in nft.tables()}


def delete_tables(names: Iterable[str]) -> None:
    """Remove every table of those names; missing ones are fine.

    Raises:
        NetlinkError: the kernel refused.
    """
    wanted = set(names)
    with Nft() as nft:
        for family, name in nft.tables():
            if name in wanted:
                try:
                    nft.transact(f"remove table {name}", [Table(name, family).remove()])
                except NetlinkError as error:
                    if error.code != errno.ENOENT:
                        raise
