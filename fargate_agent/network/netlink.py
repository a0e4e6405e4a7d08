"""Links, addresses and routes of one network namespace, by netlink.

Of pyroute2 only requests on a socket of ours are used: its own
functions for network namespaces fork, which a process with gRPC's threads doesn't survive.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import Path
from typing import Any, Final

from fargate_agent.network.blocking import NetlinkError, entering, open_netlink
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.network.pyroute import AsyncIPRoute, PyrouteError

__all__ = ["Link", "LinkStats", "Netlink", "NetlinkError", "read_link_stats", "socket_in_netns"]

ANSWER_TIMEOUT_S: Final = 10.0
"""The kernel answers within a millisecond, unless it waits for its lock of all interfaces, which it
holds for some 50 ms while it takes one away. Source: measured."""

IFA_F_NODAD: Final = 0x02
"""Source: Linux, include/uapi/linux/if_addr.h."""
IFF_UP: Final = 0x1
IFF_LOOPBACK: Final = 0x8
"""Source: Linux, include/uapi/linux/if.h."""
MAIN_TABLE: Final = 254
"""Source: Linux, include/uapi/linux/rtnetlink.h."""
LOOPBACK_INDEX: Final = 1
"""Source: Linux, include/net/net_namespace.h."""

NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
"""How a kernel without IPv6 refuses what concerns it."""

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One interface."""

    index: int
    name: str
    kind: str | None
    """As the kernel names it, e.g. `veth`; None for hardware and `lo`."""
    mac: str
    permanent_mac: str | None
    """What the hardware has, if it is hardware."""
    up: bool
    passing: bool
    """Whether it has a carrier and packets go through it."""
    mtu: int
    master: int | None
    """Index of the bridge that it is a port of."""
    peer: int | None
    """Index of the other end, or of the parent, in whatever namespace that is."""
    alias: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStats:
    """What went through an interface since it was made."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


class Netlink:
    """Requests to the kernel about one network namespace.

    Raises:
        NetlinkError: from every method: the kernel refused, or didn't answer in time.
    """

    def __init__(self, route: Any) -> None:  # noqa: ANN401 - pyroute2 is untyped
        self._route = route

    @classmethod
    @asynccontextmanager
    async def open(cls, netns: Path | None = None) -> AsyncIterator["Netlink"]:
        """Speak about the namespace mounted on `netns`; None is that of the host."""
        descriptor = open_netlink(netns, socket.NETLINK_ROUTE, socket.SOCK_DGRAM).detach()
        async with AsyncIPRoute(fileno=descriptor) as route:
            await route.setup_endpoint()  # before that it wouldn't close the socket
            yield cls(route)

    async def find_link(self, name: str) -> Link | None:
        """Return the interface of that name, if there is one."""
        try:
            answer = await self._ask(f"find {name}", self._route.link("get", ifname=name))
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise
        return _parse_link(answer[0])

    async def get_link(self, name: str) -> Link:
        """Return the interface of that name."""
        link = await self.find_link(name)
        if link is None:
            raise NetlinkError(f"find {name}", errno.ENODEV)
        return link

    async def links(self) -> list[Link]:
        """Return every interface."""
        answer = await self._ask("list interfaces", self._route.link("dump"))
        return [_parse_link(message) for message in answer]

    async def link_stats(self) -> dict[str, LinkStats]:
        """Return what went through every interface but the loopback, by name."""
        answer = await self._ask("read counters", self._route.link("dump"))
        return {
            message.get_attr("IFLA_IFNAME"): _parse_stats(message.get_attr("IFLA_STATS64"))
            for message in answer
            if not message["flags"] & IFF_LOOPBACK
        }

    async def addresses(self) -> list[tuple[int, Interface]]:
        """Return every address with the index of its interface."""
        answer = await self._ask("list addresses", self._route.addr("dump"))
        return [(message["index"], _parse_address(message)) for message in answer]

    async def add_macvlan(self, parent: int, netns: int, mac: str, mtu: int | None) -> None:
        """Make a child of the parent, straight in the namespace open as `netns`.

        The kernel names it: a name that is asked for here must be free in both namespaces.
        """
        size = {} if mtu is None else {"mtu": mtu}
        await self._ask(
            "make interface",
            self._route.link(
                "add",
                kind="macvlan",
                macvlan_mode="bridge",
                link=parent,
                net_ns_fd=netns,
                address=mac,
                **size,
            ),
        )

    async def add_vlan(
        self, trunk: int, vlan_id: int, netns: int, mac: str, mtu: int | None
    ) -> None:
        """Make a VLAN of the trunk, straight in the namespace open as `netns`.

        The kernel names it, as that of a macvlan.
        """
        size = {} if mtu is None else {"mtu": mtu}
        await self._ask(
            "make interface",
            self._route.link(
                "add",
                kind="vlan",
                vlan_id=vlan_id,
                link=trunk,
                net_ns_fd=netns,
                address=mac,
                **size,
            ),
        )

    async def move(self, index: int, netns: int, name: str) -> None:
        """Move an interface into the namespace open as `netns`, where it has that name and is down.

        A name with `%d` gets the first free number. If the name is taken there, it is in either
        namespace under the name of before.
        """
        await self._ask(
            f"move interface {name}",
            self._route.link("set", index=index, net_ns_fd=netns, ifname=name),
        )

    async def mark(self, index: int, alias: str) -> None:
        """Note on an interface what is said; nothing takes away what was noted."""
        await self._ask("mark interface", self._route.link("set", index=index, ifalias=alias))

    async def set_mtu(self, index: int, mtu: int) -> None:
        """Say how large packets may be, in bytes."""
        await self._ask(f"set MTU {mtu}", self._route.link("set", index=index, mtu=mtu))

    async def set_mac(self, index: int, mac: str) -> None:
        """Give an interface that is down another MAC."""
        await self._ask(f"set MAC {mac}", self._route.link("set", index=index, address=mac))

    async def default_interfaces(self, versions: Iterable[int] = (4, 6)) -> set[int]:
        """Return the interfaces that default routes lead to."""
        found = set()
        for family in map(_family, versions):
            routes = await self._ask(
                "list routes", self._route.route("dump", family=family, table=MAIN_TABLE)
            )
            found |= {
                route.get_attr("RTA_OIF")
                for route in routes
                if route["dst_len"] == 0 and route.get_attr("RTA_OIF") is not None
            }
        return found

    async def rename(self, index: int, name: str) -> None:
        """Give an interface that is down another name."""
        await self._ask(f"name interface {name}", self._route.link("set", index=index, ifname=name))

    async def set_up(self, index: int, alias: str | None = None) -> None:
        """Switch an interface on; note on it whose it is."""
        changes: dict[str, object] = {"state": "up"}
        if alias is not None:
            changes["ifalias"] = alias
        await self._ask("bring interface up", self._route.link("set", index=index, **changes))

    async def add_address(self, index: int, address: Interface) -> bool:
        """Give an interface an address; whether it is new there.

        An IPv6 address is used at once, without asking around for it first.
        """
        request = self._route.addr(
            "add",
            index=index,
            address=str(address.ip),
            prefixlen=address.network.prefixlen,
            family=_family(address.version),
            flags=IFA_F_NODAD if address.version == 6 else 0,
        )
        try:
            await self._ask(f"add address {address}", request)
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                return False
            raise
        return True

    async def remove_address(self, index: int, address: Interface) -> None:
        """Take an address away from an interface; one that isn't there is fine."""
        request = self._route.addr(
            "del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen
        )
        try:
            await self._ask(f"remove address {address}", request)
        except NetlinkError as error:
            if error.code != errno.EADDRNOTAVAIL:
                raise

    async def set_default_route(self, index: int, gateway: IPv4Address | IPv6Address) -> None:
        """Send what has no better route through the gateway."""
        await self._ask(
            f"route through {gateway}",
            self._route.route(
                "replace",
                dst="default",
                gateway=str(gateway),
                oif=index,
                family=_family(gateway.version),
            ),
        )

    async def blackhole(self, network: IPv4Network | IPv6Network) -> None:
        """Refuse what goes to the network, at once and silently."""
        await self._ask(
            f"black-hole {network}",
            self._route.route(
                "replace", type="blackhole", dst=str(network), family=_family(network.version)
            ),
        )

    async def _ask(self, what: str, request: Awaitable[Any]) -> list[Any]:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                answer = await request
                if hasattr(answer, "__aiter__"):
                    return [message async for message in answer]
                return list(answer)
        except PyrouteError as error:
            raise NetlinkError(what, error.code) from error
        except OSError as error:  # TimeoutError is one
            raise NetlinkError(what, error.errno or errno.ETIMEDOUT) from error


def find_index(name: str, netns: Path | None = None) -> int | None:
    """Return the index of the interface of that name; far quicker than all of `find_link`.

    Raises:
        NetlinkError: there is no such namespace.
    """
    with entering(netns):
        try:
            return socket.if_nametoindex(name)
        except OSError:  # without a number: there is no interface of that name
            return None


def get_index(name: str, netns: Path | None = None) -> int:
    """Return the index of the interface of that name.

    Raises:
        NetlinkError: there is none, or no such namespace.
    """
    index = find_index(name, netns)
    if index is None:
        raise NetlinkError(f"find {name}", errno.ENODEV)
    return index


async def read_link_stats(netns: Path) -> dict[str, LinkStats]:
    """Return what went through each interface of a namespace but its loopback, by name.

    Raises:
        NetlinkError: there is no such namespace, or the kernel didn't answer.
    """
    async with Netlink.open(netns) as netlink:
        return await netlink.link_stats()


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _parse_link(message: Any) -> Link:  # noqa: ANN401 - pyroute2 is untyped
    info = message.get_attr("IFLA_LINKINFO")
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=info.get_attr("IFLA_INFO_KIND") if info else None,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        permanent_mac=message.get_attr("IFLA_PERM_ADDRESS"),
        up=bool(message["flags"] & IFF_UP),
        passing=message.get_attr("IFLA_OPERSTATE") == "UP",
        mtu=message.get_attr("IFLA_MTU") or 0,
        master=message.get_attr("IFLA_MASTER"),
        peer=message.get_attr("IFLA_LINK"),
        alias=message.get_attr("IFLA_IFALIAS"),
    )


def _parse_address(message: Any) -> Interface:  # noqa: ANN401 - pyroute2 is untyped
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    if message["family"] == socket.AF_INET:
        return IPv4Interface((text, message["prefixlen"]))
    return IPv6Interface((text, message["prefixlen"]))


def _parse_stats(stats: Mapping[str, int]) -> LinkStats:
    return LinkStats(**{name: stats[name] for name in LinkStats.__dataclass_fields__})
