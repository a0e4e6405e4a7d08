"""The ranges of VPCs whose other addresses are unreachable for tasks, as long as they have ENIs.

What comes to the host from elsewhere, and goes to an address of a range that has neither an ENI nor
a narrower route, is refused instead of being sent where a wider route leads. What the host itself
sends isn't: it may have a resolver, or others that it talks to, in such a range. So it takes rules
of routing, which know where a packet comes from, and a table of the agent's own:

    first      what this machine sends: go on at the last
    first + 1  what goes to a range (one rule for each): the main table, but for wide routes
    first + 2  the table of the agent: unreachable, if it is in a range
    last       nothing; the rules of the machine come next

What has an ENI is asked of the kernel: other processes may attach some of the same agent. All
methods block.
"""

import errno
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_network
from typing import Final

from fargate_agent.network.blocking import (
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NetlinkError,
    Request,
    ask,
    open_netlink,
    read_attributes,
    render_message,
    require_each,
)
from fargate_agent.network.conntrack import forget_flows_within
from fargate_agent.network.names import first_rule_priority, routing_table
from fargate_agent.network.netlink import NO_IPV6
from fargate_agent.network.routes import KnownRoute, read_eni_routes
from fargate_agent.network.rtnetlink import (
    DELETE_RULE,
    GET_RULE,
    NEW_RULE,
    ROUTE,
    RULE_DESTINATION,
    RULE_PRIORITY,
    UNICAST,
    UNREACHABLE,
    Network,
    render_no_unreachable,
    render_rule_of_narrower,
    render_rule_of_own,
    render_rule_of_table,
    render_rule_to_go_on,
    render_unreachable,
)

_THERE: Final = frozenset({errno.EEXIST})
_GONE: Final = frozenset({errno.ESRCH, errno.ENOENT})
_NUMBER: Final = struct.Struct("=I")


class Unreachable:
    """The ranges that one agent has made unreachable, and their rules."""

    def __init__(self, instance: str, is_ours: Callable[[str], bool], turn: threading.Lock) -> None:
        """Ask nothing yet.

        Args:
            instance: tells this agent from others; its table and its rules go by it.
            is_ours: says of the name of an interface whether it is the host's end of an ENI.
            turn: held by what attaches an ENI.
        """
        self._is_ours = is_ours
        self._turn = turn
        self._table = routing_table(instance)
        self._first = first_rule_priority(instance)
        self._made: set[Network] = set()

    def add(self, host: socket.socket, ranges: Iterable[Network], *, anew: bool = False) -> None:
        """Make ranges unreachable; those that are cost nothing. The caller has the turn.

        `anew`: the kernel may have lost those that are.

        Raises:
            NetlinkError: the kernel refused.
        """
        missing = set(ranges) - (set() if anew else self._made)
        if missing:
            require_each(host, list(self._render(missing)))
            self._made |= missing

    def restore(self) -> None:
        """Make again what somebody else has removed, such as a manager of the host's network.

        Raises:
            NetlinkError: the kernel refused.
        """
        with self._turn, open_netlink(None, socket.NETLINK_ROUTE) as host:
            if self._made:
                require_each(host, list(self._render(self._made)))

    def remove_unused(self) -> list[str]:
        """Take back the ranges that have no ENI, and name them.

        So long as they are there, the next agent looks for flows of addresses that nobody has.

        Raises:
            NetlinkError: the kernel refused.
        """
        with self._turn, open_netlink(None, socket.NETLINK_ROUTE) as host:
            routes = read_eni_routes(host)
            used = [one.network for one in routes if _leads_to_eni(one, self._is_ours)]
            rules = list(self._read_rules(host))
            ranges = {one.network for one in routes if self._is_range(one)}
            ranges |= {destination for _, destination in rules if destination is not None}
            unused = {
                one for one in ranges if not any(_is_within(address, one) for address in used)
            }
            needed = {one.version for one in ranges - unused}
            idle = {version for version, _ in rules} - needed
            if unused or idle:
                require_each(host, list(self._render_removal(unused, idle)))
            self._made -= unused
        return [f"route to {one}" for one in sorted(unused, key=str)]

    def has_enis(self) -> bool:
        """Whether an ENI of the agent is attached, whoever did it.

        Raises:
            NetlinkError: the kernel refused.
        """
        return has_enis(self._is_ours)

    def forget_unowned_flows(self) -> None:
        """Forget the flows of addresses that an agent detached which then died.

        Raises:
            NetlinkError: the kernel refused.
        """
        with open_netlink(None, socket.NETLINK_ROUTE) as host:
            routes = read_eni_routes(host)
        ranges = [one.network for one in routes if self._is_range(one)]
        if ranges:
            owned = [one.network.network_address for one in routes if one.kind == UNICAST]
            forget_flows_within(ranges, owned)

    def _is_range(self, route: KnownRoute) -> bool:
        return (route.kind, route.table) == (UNREACHABLE, self._table)

    def _render(self, ranges: Iterable[Network]) -> Iterator[Request]:
        """The rule that refuses comes when those that make exceptions are there."""
        ranges = sorted(ranges, key=str)
        for one in ranges:
            yield Request(f"make {one} unreachable", render_unreachable(one, self._table), _THERE)
        for version in {one.version for one in ranges}:
            for message in self._render_exceptions(NEW_RULE, version):
                yield Request("make rule of routing", message, _THERE)
        for one in ranges:
            message = render_rule_of_narrower(NEW_RULE, one, self._first + 1)
            yield Request(f"make rule of routing for {one}", message, _THERE)
        for version in {one.version for one in ranges}:
            message = render_rule_of_table(NEW_RULE, version, self._first + 2, self._table)
            yield Request("make rule of routing", message, _THERE)

    def _read_rules(self, host: socket.socket) -> Iterator[tuple[int, Network | None]]:
        """Yield the version of IP and, of a rule for a range, the range."""
        for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
            request = render_message(
                GET_RULE, NLM_F_REQUEST | NLM_F_DUMP, ROUTE.pack(family, *(0,) * 8)
            )
            try:
                answers = ask(host, "list rules of routing", request)
            except NetlinkError as error:
                if error.code not in NO_IPV6:
                    raise
                continue
            for answer in answers:
                length = ROUTE.unpack_from(answer.payload)[1]
                found = read_attributes(answer.payload[ROUTE.size :])
                (priority,) = _NUMBER.unpack(found.get(RULE_PRIORITY, bytes(4)))
                if self._first <= priority <= self._first + 3:
                    packed = found.get(RULE_DESTINATION)
                    yield version, ip_network((packed, length)) if packed else None

    def _render_removal(self, unused: set[Network], idle: set[int]) -> Iterator[Request]:
        """In the order that never refuses what was allowed; `idle` versions of IP have no range."""
        for one in sorted(unused, key=str):
            message = render_no_unreachable(one, self._table)
            yield Request(f"remove route to {one}", message, _GONE)
            message = render_rule_of_narrower(DELETE_RULE, one, self._first + 1)
            yield Request(f"remove rule of routing for {one}", message, _GONE)
        for version in idle:
            message = render_rule_of_table(DELETE_RULE, version, self._first + 2, self._table)
            yield Request("remove rule of routing", message, _GONE)
            for message in self._render_exceptions(DELETE_RULE, version):
                yield Request("remove rule of routing", message, _GONE)

    def _render_exceptions(self, kind: int, version: int) -> Iterator[bytes]:
        last = self._first + 3
        yield render_rule_to_go_on(kind, version, last)
        yield render_rule_of_own(kind, version, self._first, last)


def has_enis(is_ours: Callable[[str], bool]) -> bool:
    """Whether the host has a route to an ENI, by an interface whose name is an agent's.

    Raises:
        NetlinkError: the kernel refused.
    """
    with open_netlink(None, socket.NETLINK_ROUTE) as host:
        return any(_leads_to_eni(one, is_ours) for one in read_eni_routes(host))


def _leads_to_eni(route: KnownRoute, is_ours: Callable[[str], bool]) -> bool:
    try:
        name = socket.if_indextoname(route.interface)
    except OSError:  # it leads nowhere, or the interface has gone
        return False
    return route.kind == UNICAST and is_ours(name)


def _is_within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.network_address in outer
