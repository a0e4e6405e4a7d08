"""The ranges of VPCs whose other addresses the host makes unreachable, as long as they have ENIs.

What has an ENI is asked of the kernel: other processes may attach some of the same agent. All
methods block.
"""

import socket
import threading
from collections.abc import Callable

from fargate_agent.network.blocking import open_netlink
from fargate_agent.network.conntrack import forget_flows_within
from fargate_agent.network.routes import KnownRoute, read_eni_routes, remove_unreachable
from fargate_agent.network.rtnetlink import UNICAST, UNREACHABLE, Network


class Unreachable:
    """The routes of one agent that lead nowhere."""

    def __init__(self, is_ours: Callable[[str], bool], metric: int, turn: threading.Lock) -> None:
        """Ask nothing yet.

        Args:
            is_ours: says of the name of an interface whether it is the host's end of an ENI.
            metric: of the routes; no other agent has it.
            turn: held by what attaches an ENI.
        """
        self._is_ours = is_ours
        self._metric = metric
        self._turn = turn

    def remove_unused(self) -> list[str]:
        """Take back the routes of ranges that have no ENI, and name them.

        So long as they are there, the next agent looks for flows of addresses that nobody has.

        Raises:
            NetlinkError: the kernel refused.
        """
        with self._turn, open_netlink(None, socket.NETLINK_ROUTE) as host:
            routes = read_eni_routes(host)
            used = [one.network for one in routes if _leads_to_eni(one, self._is_ours)]
            unused = [
                one
                for one in self._find(routes)
                if not any(_is_within(address, one.network) for address in used)
            ]
            remove_unreachable(host, unused)
        return [f"route to {one.network}" for one in unused]

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
        ranges = [one.network for one in self._find(routes)]
        if ranges:
            owned = [one.network.network_address for one in routes if one.kind == UNICAST]
            forget_flows_within(ranges, owned)

    def _find(self, routes: list[KnownRoute]) -> list[KnownRoute]:
        ours = (UNREACHABLE, self._metric)
        return [one for one in routes if (one.kind, one.metric) == ours]


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
