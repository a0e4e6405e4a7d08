"""The agent's table in the kernel: made whole, changed, removed, and owned where the kernel can.

A table with an owner is passed by when somebody flushes the ruleset, and can't be changed by
others; it stays when its owner has gone, and the next agent takes it over. Without that (before
Linux 6.9) `watch` hears of what others do to it. It is made again some milliseconds later; until
then what the host's routes don't prevent passes. Nothing can: whatever else would drop it stands in
the ruleset that was flushed.
"""

import errno
from collections.abc import Callable, Iterable
from typing import Final

from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.nft.connection import Nft
from fargate_agent.network.nft.objects import INET, OWNER, PERSIST, Table

WHAT: Final = "change the packet filter"
MAKE: Final = "make the packet filter (nftables)"
"""The first that a kernel without it refuses."""

LOST: Final = frozenset({errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.ENOBUFS})
"""Refusals of a change of a table that isn't as it was left; the last, if there are too many."""


class OwnedTable:
    """One table, by a socket that is kept: a small change takes some 50 µs. All methods block."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._nft: Nft | None = None
        self._flags = OWNER | PERSIST

    @property
    def port(self) -> int | None:
        """What the kernel knows the socket by that changes the table, if there is one."""
        return None if self._nft is None else self._nft.port

    def close(self) -> None:
        """Let go of the table, which stays."""
        if self._nft is not None:
            self._nft.close()
            self._nft = None

    def change(self, messages: Iterable[bytes]) -> None:
        """Do all of it, or nothing.

        Raises:
            NetlinkError: the kernel refused.
        """
        self._connect().transact(WHAT, messages)

    def replace(self, render: Callable[[], Iterable[bytes]]) -> None:
        """Put what is rendered in the place of the whole table, or make it.

        Raises:
            NetlinkError: the kernel refused; what was there still is.
        """
        nft = self._connect()
        while True:
            make = self._table.make(self._flags)
            try:
                nft.transact(MAKE, [make, self._table.remove(), make, *render()])
            except NetlinkError as error:
                # Source: Linux, net/netfilter/nf_tables_api.c: flags that it doesn't know, 6.9.
                if error.code not in {errno.EINVAL, errno.EOPNOTSUPP} or not self._flags:
                    raise
                self._flags = 0
                continue
            return

    def remove(self) -> bool:
        """Remove the table; whether it was there.

        Raises:
            NetlinkError: the kernel refused, or another agent owns it.
        """
        with Nft() as nft:
            if (INET, self._table.name) not in nft.tables():
                return False
            # An owner that has gone is followed by who makes the table again.
            removal = [self._table.make(self._flags), self._table.remove()]
            try:
                (self._nft or nft).transact("remove the packet filter", removal)
            except NetlinkError as error:
                if error.code not in {errno.EINVAL, errno.EOPNOTSUPP} or not self._flags:
                    raise
                self._flags = 0  # the kernel knows no owners
                (self._nft or nft).transact("remove the packet filter", [self._table.remove()])
        return True

    def _connect(self) -> Nft:
        if self._nft is None:
            self._nft = Nft()
        return self._nft
