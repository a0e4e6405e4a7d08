"""Security groups of ENIs that the host doesn't route, enforced where their tasks are.

Each such ENI has two tables in the network namespace of its task, which are replaced as a whole.
What is tracked of a connection isn't the table's, so open ones go on. The tables go with the
namespace, and need no agent to stay.
"""

import errno
import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from fargate_agent.findings import Findings
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.firewall.guard_tables import render_egress_guard, render_guard
from fargate_agent.network.firewall.rules import find_named
from fargate_agent.network.firewall.table import FirewallSettings
from fargate_agent.network.nft.connection import Nft
from fargate_agent.network.nft.objects import INET, NETDEV, Table
from fargate_agent.plan import EniPlan
from fargate_agent.plan.security_groups import GroupPlan

log = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address

NO_EGRESS: Final = "a kernel older than 5.16 can't filter what interfaces of tasks send"
NO_EGRESS_EFFECT: Final = (
    "with a raw socket, a task whose interface isn't routed by this machine can send from any"
    " address, to any"
)
NO_ROUTES: Final = "the kernel has no CONFIG_IP_ROUTE_CLASSID"
NO_ROUTES_EFFECT: Final = (
    "with a raw socket, a task whose interface isn't routed by this machine can send to where its"
    " security groups let nothing out"
)

_UNKNOWN: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT})
"""What kernels answer that lack a hook or an expression. Source: Linux,
net/netfilter/nf_tables_api.c."""


@dataclass(frozen=True, slots=True)
class _Held:
    eni: EniPlan
    netns: Path | None
    """None: the agent before has put its tables there, and this one hasn't attached it yet."""


class Guards:
    """The guarded ENIs of one agent. Its methods that reach the kernel block, for a millisecond."""

    def __init__(
        self,
        find: Callable[[str], GroupPlan],
        members: Callable[[str], Iterable[Address]],
        settings: FirewallSettings,
        findings: Findings,
    ) -> None:
        """`find` returns a group by its id, `members` the addresses in it."""
        self._find = find
        self._members = members
        self._max_tracked_flows = settings.max_tracked_flows
        self._findings = findings
        self._held: dict[str, _Held] = {}
        """By the id of the ENI."""

    def __bool__(self) -> bool:
        return bool(self._held)

    def __iter__(self) -> Iterator[EniPlan]:
        return iter([one.eni for one in self._held.values()])

    def find(self, eni_id: str) -> EniPlan | None:
        """Return an ENI as it is guarded; None if it isn't."""
        held = self._held.get(eni_id)
        return None if held is None else held.eni

    def expect(self, eni: EniPlan) -> None:
        """Count an ENI as a member of its groups, which an agent before has guarded."""
        self._held[eni.id] = _Held(eni, None)

    def put(self, eni: EniPlan, netns: Path) -> None:
        """Enforce the groups of an ENI, in the place of what was enforced; its interface is there.

        Raises:
            NetlinkError: the kernel refused; what was enforced still is.
        """
        before = self._held.get(eni.id)
        self._held[eni.id] = _Held(eni, netns)  # a member of its own groups, while it is put
        try:
            self._replace(eni, netns)
        except BaseException:
            if before is None:
                del self._held[eni.id]
            else:
                self._held[eni.id] = before
            raise

    def remove(self, eni: EniPlan, netns: Path) -> None:
        """Remove what guards an ENI; a namespace that has gone has taken it along.

        Raises:
            NetlinkError: the kernel refused.
        """
        self._held.pop(eni.id, None)
        try:
            with Nft(netns) as nft:
                there = nft.tables()
                name = table_name(eni)
                tables = [Table(name, one) for one in (INET, NETDEV) if (one, name) in there]
                if tables:
                    nft.transact(f"remove filter of {eni.id}", [one.remove() for one in tables])
        except NetlinkError as error:
            if error.code not in {errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP}:
                raise

    def refresh(self, group_ids: Collection[str], put: str = "") -> None:
        """Enforce groups as they are now wherever they are in use; what fails is logged.

        The ENI with the id `put` was just put, and has them as they are.
        """
        changed = set(group_ids)
        for held in tuple(self._held.values()):
            if held.netns is None or held.eni.id == put or not changed & self._used(held.eni):
                continue
            try:
                self._replace(held.eni, held.netns)
            except NetlinkError as error:
                if error.code != errno.ENOENT:  # its namespace has gone: it is being detached
                    log.error("security groups of %s not changed: %s", held.eni.id, error)

    def _used(self, eni: EniPlan) -> set[str]:
        own = eni.security_groups or ()
        return {*own, *(name for one in own for name in find_named(self._find(one)))}

    def _replace(self, eni: EniPlan, netns: Path) -> None:
        groups = [self._find(one) for one in sorted(set(eni.security_groups or ()))]
        table = Table(table_name(eni))
        what = f"filter what {eni.id} sends and receives"
        with Nft(netns) as nft:
            rendered = render_guard(table, eni, groups, self._members, self._max_tracked_flows)
            there = nft.tables()
            nft.transact(what, [*_begin(table, INET, there), *rendered])
            self._replace_egress(nft, what, eni, there)

    def _replace_egress(
        self, nft: Nft, what: str, eni: EniPlan, there: Collection[tuple[int, str]]
    ) -> None:
        """It depends on the ENI alone. What the kernel can't do is noted, and left out."""
        table = Table(table_name(eni), NETDEV)
        for knows_routes in (True, False):
            rendered = render_egress_guard(table, eni, knows_routes=knows_routes)
            try:
                nft.transact(what, [*_begin(table, NETDEV, there), *rendered])
            except NetlinkError as error:
                if error.code not in _UNKNOWN:
                    raise
                continue
            if not knows_routes:
                self._findings.note(NO_ROUTES, NO_ROUTES_EFFECT)
            return
        self._findings.note(NO_EGRESS, NO_EGRESS_EFFECT)


def table_name(eni: EniPlan) -> str:
    """Name the tables of an ENI, in the namespace of its task."""
    return f"fargate-{eni.id}"


def _begin(table: Table, family: int, there: Collection[tuple[int, str]]) -> list[bytes]:
    """Make a table that is empty.

    One that is there is removed, which the kernel takes 20 ms over: the end of the socket waits
    until nobody reads the rules any more (measured).
    """
    is_there = (family, table.name) in there
    return [table.make(), table.remove(), table.make()] if is_there else [table.make()]
