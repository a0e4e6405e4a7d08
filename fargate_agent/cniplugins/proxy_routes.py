"""Routes by which packets get to a proxy in a container's namespace.

All numbers: Linux, include/uapi/linux/rtnetlink.h and fib_rules.h.
"""

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable
from typing import Final

from fargate_agent.network.blocking import (
    NLM_F_CREATE,
    NLM_F_REQUEST,
    Request,
    ask_each,
    open_netlink,
    render_attribute,
    render_message,
    require_each,
)
from fargate_agent.network.rtnetlink import (
    DELETE_ROUTE,
    DELETE_RULE,
    NEW_ROUTE,
    NEW_RULE,
    NLM_F_EXCL,
    ROUTE,
    ROUTE_DESTINATION,
    ROUTE_INTERFACE,
    ROUTE_TABLE,
    TABLE_MAIN,
    UNICAST,
)

TABLE: Final = 100
"""Source: amazon-vpc-cni-plugins, plugins/ecs-serviceconnect, `tproxyRouteTable`."""
_LOOPBACK: Final = 1
_LOCAL, _SCOPE_HOST, _SCOPE_UNIVERSE, _BOOT = 2, 254, 0, 3
_GATEWAY, _MARK, _RULE_TABLE, _LOOK_UP = 5, 10, 15, 1
_NUMBER: Final = struct.Struct("=I")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Range = ipaddress.IPv4Network | ipaddress.IPv6Network
Routes = Iterable[tuple[Range, Address]]


def add_routes(netns: str, mark: int, versions: Iterable[int], routes: Routes) -> None:
    """Have what is marked delivered here, of some versions of IP, and ranges sent to gateways.

    Raises:
        NetlinkError: the kernel refused; some may be there.
    """
    there = frozenset({errno.EEXIST})
    requests = [
        Request(what, message, there)
        for version in versions
        for what, message in (
            (f"add rule of mark {mark}", _render_rule(NEW_RULE, version, mark)),
            (f"add local route of table {TABLE}", _render_local(NEW_ROUTE, version)),
        )
    ]
    requests += [
        Request(f"add route to {to} via {gateway}", _render_via(NEW_ROUTE, to, gateway), there)
        for to, gateway in routes
    ]
    if requests:
        with open_netlink(netns, socket.NETLINK_ROUTE) as link:
            require_each(link, requests)


def remove_routes(netns: str, mark: int, versions: Iterable[int], routes: Routes) -> None:
    """Take them back; those that aren't there are fine.

    Raises:
        NetlinkError: the namespace can't be entered.
    """
    requests = [
        Request("remove", message)
        for version in versions
        for message in (
            _render_rule(DELETE_RULE, version, mark),
            _render_local(DELETE_ROUTE, version),
        )
    ]
    requests += [Request("remove", _render_via(DELETE_ROUTE, to, via)) for to, via in routes]
    if requests:
        with open_netlink(netns, socket.NETLINK_ROUTE) as link:
            ask_each(link, requests)


def _flags(kind: int) -> int:
    return NLM_F_REQUEST | (NLM_F_CREATE | NLM_F_EXCL if kind in {NEW_RULE, NEW_ROUTE} else 0)


def _render_rule(kind: int, version: int, mark: int) -> bytes:
    head = ROUTE.pack(_family(version), 0, 0, 0, 0, 0, 0, _LOOK_UP, 0)
    attributes = render_attribute(_MARK, _NUMBER.pack(mark))
    attributes += render_attribute(_RULE_TABLE, _NUMBER.pack(TABLE))
    return render_message(kind, _flags(kind), head + attributes)


def _render_local(kind: int, version: int) -> bytes:
    head = ROUTE.pack(
        *(_family(version), 0, 0, 0), *(0, _BOOT, _SCOPE_HOST if version == 4 else 0, _LOCAL, 0)
    )
    attributes = render_attribute(ROUTE_INTERFACE, _NUMBER.pack(_LOOPBACK))
    attributes += render_attribute(ROUTE_TABLE, _NUMBER.pack(TABLE))
    return render_message(kind, _flags(kind), head + attributes)


def _render_via(kind: int, to: Range, gateway: Address) -> bytes:
    head = ROUTE.pack(
        *(_family(to.version), to.prefixlen, 0, 0),
        *(TABLE_MAIN, _BOOT, _SCOPE_UNIVERSE, UNICAST, 0),
    )
    attributes = render_attribute(ROUTE_DESTINATION, to.network_address.packed)
    attributes += render_attribute(_GATEWAY, gateway.packed)
    return render_message(kind, _flags(kind), head + attributes)


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6
