"""Requests about interfaces and routes of any kind, as bytes, and what the kernel says of them.

Beside `fargate_agent.network.rtnetlink`, whose requests are those of ENIs. Nothing here is slow to
load: programs use it that live for milliseconds. All numbers: Linux, include/uapi/linux/if_link.h,
rtnetlink.h, veth.h and if.h.
"""

import errno
import socket
import struct
from ipaddress import ip_address, ip_interface, ip_network
from typing import Final, NamedTuple

from fargate_agent.network.blocking import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NetlinkError,
    ask,
    read_attributes,
    render_attribute,
    render_message,
)
from fargate_agent.network.rtnetlink import (
    ADDRESS,
    ADDRESS_LOCAL,
    DELETE_ROUTE,
    GET_ROUTE,
    LINK,
    LINK_ADDRESS,
    LINK_ALIAS,
    LINK_LINK,
    LINK_MASTER,
    LINK_MTU,
    LINK_NAME,
    NEW_ADDRESS,
    NEW_LINK,
    NEW_ROUTE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    ROUTE,
    ROUTE_DESTINATION,
    ROUTE_INTERFACE,
    ROUTE_TABLE,
    SET_LINK,
    TABLE_MAIN,
    UNICAST,
    UP,
    Address,
    Interface,
    Network,
)

GET_LINK: Final = 18
_GET_ADDRESS, _ADDRESS_ITSELF, _ADDRESS_BROADCAST, _ADDRESS_FLAGS = 22, 1, 4, 8
_NO_DAD, _NO_PREFIX_ROUTE = 0x02, 0x200
BLACKHOLE: Final = 6
ON_ANOTHER: Final = frozenset({"vlan", "macvlan", "macvtap", "ipvlan"})
"""Kinds of interfaces that may have the MAC of the NIC that they hang on."""
OVER_OTHERS: Final = frozenset({"bridge", "bond", "team"})
"""Kinds of interfaces that may have the MAC of a NIC that is a part of them."""
_ONLINK: Final = 0x04
_LINK_INFO, _LINK_NETNS_FD, _LINK_EXT_MASK, _LINK_PERMANENT_ADDRESS = 18, 28, 29, 54
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_SKIP_STATS: Final = 8
_ROUTE_GATEWAY, _ROUTE_PRIORITY, _ROUTE_METRICS = 5, 6, 8
_METRIC_MTU, _METRIC_ADVMSS = 2, 8
_PROTOCOL_BOOT: Final = 3
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_NUMBER: Final = struct.Struct("=I")


class LinkState(NamedTuple):
    """What the kernel says of an interface."""

    ifindex: int
    name: str
    kind: str
    """As the kernel names it, e.g. `veth`; empty for hardware and `lo`."""
    mac: str
    permanent_mac: str
    """What the hardware has, if it is hardware."""
    is_up: bool
    mtu: int
    master: int
    """Index of the bridge that it is a port of; 0 if it is of none."""
    peer: int
    """Index of the other end, or of the parent, in whatever namespace that is; 0 if none."""
    alias: str


class RouteState(NamedTuple):
    """What the kernel says of a route."""

    to: Network
    gateway: Address | None
    interface: int
    """Index; 0 of one that leads nowhere."""
    table: int
    kind: int
    protocol: int
    """Who made it, as the kernel notes it."""
    payload: bytes
    """As the kernel told it, which is also how it is removed."""


class WantedRoute(NamedTuple):
    """A route that is to be made. What is None is the kernel's choice."""

    to: Network
    interface: int = 0
    """Index; 0 of one that leads nowhere."""
    gateway: Address | None = None
    kind: int = UNICAST
    is_onlink: bool = False
    """Whether the gateway is on the interface's wire, whatever other routes say."""
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None
    protocol: int = _PROTOCOL_BOOT
    """Who makes it, as the kernel notes it."""


def render_veth(name: str, peer: str, netns: int, mtu: int, mac: str = "") -> bytes:
    """Make a pair of interfaces that are down, `peer` in the namespace open as `netns`.

    `mac` is that of the peer; empty: any.
    """
    size = render_attribute(LINK_MTU, _NUMBER.pack(mtu))
    head = LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    place = render_attribute(_LINK_NETNS_FD, _NUMBER.pack(netns))
    if mac:
        place += render_attribute(LINK_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    other = render_attribute(_VETH_PEER, head + _text(LINK_NAME, peer) + size + place)
    info = _text(_INFO_KIND, "veth") + render_attribute(_INFO_DATA, other)
    return _render_new_link(_text(LINK_NAME, name) + size, info)


def render_bridge(name: str, mac: str, mtu: int) -> bytes:
    """Make a bridge whose MAC stays, whatever becomes a port of it; it is down."""
    attributes = _text(LINK_NAME, name) + render_attribute(LINK_MTU, _NUMBER.pack(mtu))
    attributes += render_attribute(LINK_ADDRESS, bytes.fromhex(mac.replace(":", "")))
    return _render_new_link(attributes, _text(_INFO_KIND, "bridge"))


def render_move(index: int, netns: int, name: str) -> bytes:
    """Move an interface into the namespace open as `netns`, where it has that name and is down."""
    head = LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    place = render_attribute(_LINK_NETNS_FD, _NUMBER.pack(netns))
    message = head + place + _text(LINK_NAME, name)
    return render_message(SET_LINK, NLM_F_REQUEST | NLM_F_ACK, message)


def render_name(index: int, name: str) -> bytes:
    """Give an interface that is down another name."""
    head = LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    return render_message(SET_LINK, NLM_F_REQUEST | NLM_F_ACK, head + _text(LINK_NAME, name))


def render_down(index: int) -> bytes:
    """Switch an interface off."""
    head = LINK.pack(socket.AF_UNSPEC, 0, index, 0, UP)
    return render_message(SET_LINK, NLM_F_REQUEST | NLM_F_ACK, head)


def render_global_address(index: int, address: Interface, *, with_route: bool = True) -> bytes:
    """Give an interface an address; one of IPv6 is used at once.

    It is the source of what goes anywhere, also if it is one of those of a link, 169.254.0.0/16.
    `with_route` says whether its network is reached through the interface.
    """
    length = address.network.prefixlen
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    flags = (0 if with_route else _NO_PREFIX_ROUTE) | (_NO_DAD if address.version == 6 else 0)
    attributes = render_attribute(ADDRESS_LOCAL, address.ip.packed)
    attributes += render_attribute(_ADDRESS_ITSELF, address.ip.packed)
    attributes += render_attribute(_ADDRESS_FLAGS, _NUMBER.pack(flags))
    if address.version == 4 and length < 31:
        attributes += render_attribute(_ADDRESS_BROADCAST, address.network.broadcast_address.packed)
    return render_message(
        NEW_ADDRESS,
        NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE,
        ADDRESS.pack(family, length, 0, _SCOPE_UNIVERSE, index) + attributes,
    )


def render_route(route: WantedRoute, flags: int = NLM_F_EXCL) -> bytes:
    """Make a route. `flags` NLM_F_REPLACE has it take the place of another one."""
    to, scope = route.to, route.scope
    if scope is None:
        is_direct = to.version == 4 and route.gateway is None and route.kind == UNICAST
        scope = _SCOPE_LINK if is_direct else _SCOPE_UNIVERSE
    family = socket.AF_INET if to.version == 4 else socket.AF_INET6
    head = ROUTE.pack(
        *(family, to.prefixlen, 0, 0),
        *(0, route.protocol, scope, route.kind, _ONLINK if route.is_onlink else 0),
    )
    attributes = render_attribute(ROUTE_DESTINATION, to.network_address.packed)
    if route.gateway is not None:
        attributes += render_attribute(_ROUTE_GATEWAY, route.gateway.packed)
    numbers = {
        ROUTE_INTERFACE: route.interface or None,
        ROUTE_TABLE: TABLE_MAIN if route.table is None else route.table,
        _ROUTE_PRIORITY: route.priority,
    }
    attributes += _render_numbers(numbers)
    metrics = _render_numbers({_METRIC_MTU: route.mtu, _METRIC_ADVMSS: route.advmss})
    if metrics:
        attributes += render_attribute(_ROUTE_METRICS, metrics)
    return render_message(NEW_ROUTE, NLM_F_REQUEST | NLM_F_CREATE | flags, head + attributes)


def render_no_route(route: RouteState) -> bytes:
    """Remove a route."""
    return render_message(DELETE_ROUTE, NLM_F_REQUEST, route.payload)


def find_link(link: socket.socket, name: str) -> LinkState | None:
    """Return the interface of that name, if there is one, in the namespace of a socket.

    Raises:
        NetlinkError: the kernel refused.
    """
    return _find(link, 0, _text(LINK_NAME, name))


def get_link(link: socket.socket, name: str) -> LinkState:
    """Return the interface of that name, in the namespace of a socket.

    Raises:
        NetlinkError: there is none, or the kernel refused.
    """
    found = find_link(link, name)
    if found is None:
        raise NetlinkError(f"find {name}", errno.ENODEV)
    return found


def find_link_by_index(link: socket.socket, index: int) -> LinkState | None:
    """Return the interface of that index, if there is one, in the namespace of a socket.

    Raises:
        NetlinkError: the kernel refused.
    """
    return _find(link, index, b"")


def list_links(link: socket.socket) -> list[LinkState]:
    """Return every interface in the namespace of a socket.

    Raises:
        NetlinkError: the kernel refused.
    """
    head = LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    request = render_message(GET_LINK, NLM_F_REQUEST | NLM_F_DUMP, head + _WITHOUT_STATS)
    return [_parse_link(one.payload) for one in ask(link, "list interfaces", request)]


def list_routes(link: socket.socket, version: int) -> list[RouteState]:
    """Return every route for a version of IP, of all tables, in the namespace of a socket.

    Raises:
        NetlinkError: the kernel refused.
    """
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    head = ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    request = render_message(GET_ROUTE, NLM_F_REQUEST | NLM_F_DUMP, head)
    return [_parse_route(one.payload) for one in ask(link, "list routes", request)]


def list_addresses(link: socket.socket) -> list[tuple[int, Interface]]:
    """Return every address with the index of its interface, in the namespace of a socket.

    Raises:
        NetlinkError: the kernel refused.
    """
    head = ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    request = render_message(_GET_ADDRESS, NLM_F_REQUEST | NLM_F_DUMP, head)
    listed = []
    for answer in ask(link, "list addresses", request):
        family, length, _, _, index = ADDRESS.unpack_from(answer.payload)
        found = read_attributes(answer.payload[ADDRESS.size :])
        packed = found.get(ADDRESS_LOCAL) or found.get(_ADDRESS_ITSELF, b"")
        if family in {socket.AF_INET, socket.AF_INET6}:
            listed.append((index, ip_interface((packed, length))))
    return listed


def _find(link: socket.socket, index: int, name: bytes) -> LinkState | None:
    head = LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    message = head + name + _WITHOUT_STATS
    request = render_message(GET_LINK, NLM_F_REQUEST | NLM_F_ACK, message)
    try:
        (answer,) = ask(link, "find interface", request)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise
    return _parse_link(answer.payload)


def _parse_link(payload: bytes) -> LinkState:
    _, _, index, flags, _ = LINK.unpack_from(payload)
    found = read_attributes(payload[LINK.size :])
    info = read_attributes(found.get(_LINK_INFO, b""))
    return LinkState(
        ifindex=index,
        name=_read_text(found.get(LINK_NAME)),
        kind=_read_text(info.get(_INFO_KIND)),
        mac=found.get(LINK_ADDRESS, b"").hex(":"),
        permanent_mac=found.get(_LINK_PERMANENT_ADDRESS, b"").hex(":"),
        is_up=bool(flags & UP),
        mtu=_read_number(found.get(LINK_MTU)),
        master=_read_number(found.get(LINK_MASTER)),
        peer=_read_number(found.get(LINK_LINK)),
        alias=_read_text(found.get(LINK_ALIAS)),
    )


def _parse_route(payload: bytes) -> RouteState:
    family, length, _, _, table, protocol, _, kind, _ = ROUTE.unpack_from(payload)
    found = read_attributes(payload[ROUTE.size :])
    size = 4 if family == socket.AF_INET else 16
    gateway = found.get(_ROUTE_GATEWAY)
    return RouteState(
        to=ip_network((found.get(ROUTE_DESTINATION, bytes(size)), length)),
        gateway=None if gateway is None else ip_address(gateway),
        interface=_read_number(found.get(ROUTE_INTERFACE)),
        table=_read_number(found.get(ROUTE_TABLE)) or table,
        kind=kind,
        protocol=protocol,
        payload=payload,
    )


def _render_new_link(attributes: bytes, info: bytes) -> bytes:
    head = LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK
    return render_message(NEW_LINK, flags, head + attributes + render_attribute(_LINK_INFO, info))


def _render_numbers(numbers: dict[int, int | None]) -> bytes:
    return b"".join(
        render_attribute(kind, _NUMBER.pack(value))
        for kind, value in numbers.items()
        if value is not None
    )


def _text(kind: int, value: str) -> bytes:
    return render_attribute(kind, value.encode() + b"\0")


def _read_text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")


def _read_number(value: bytes | None) -> int:
    return 0 if value is None else int(_NUMBER.unpack(value)[0])


_WITHOUT_STATS: Final = render_attribute(_LINK_EXT_MASK, _NUMBER.pack(_SKIP_STATS))
