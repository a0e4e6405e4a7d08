"""Requests about interfaces as bytes, for what the agent does for every task.

pyroute2 takes 0.5 to 3 ms of processor time for what takes the kernel 0.1, and several of these go
in one send. All numbers: Linux, include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h, if.h and
ip.h, fib_rules.h.
"""

import socket
import struct
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Final

from fargate_agent.network.blocking import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    render_attribute,
    render_message,
)

NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
"""Source: Linux, include/uapi/linux/netlink.h."""

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

PROTOCOL_ENI: Final = 0xEC
"""Who made a route or a rule, as the kernel notes it: those of ENIs on the host. No routing daemon
has this number. Source: iproute2, etc/iproute2/rt_protos."""
TABLE_MAIN: Final = 254
UNICAST, UNREACHABLE = 1, 7

NEW_LINK, SET_LINK = 16, 19
NEW_ADDRESS: Final = 20
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
NEW_RULE, DELETE_RULE, GET_RULE = 32, 33, 34
LINK_ADDRESS, LINK_NAME, LINK_MTU, LINK_LINK, LINK_MASTER = 1, 3, 4, 5, 10
_LINK_INFO, LINK_ALIAS, _LINK_AF_SPEC, _LINK_NETNS_FD = 18, 20, 26, 28
_INFO_KIND, _INFO_DATA = 1, 2
_VETH_PEER: Final = 1
_ADDRESS_ADDRESS, ADDRESS_LOCAL, _ADDRESS_BROADCAST, _ADDRESS_FLAGS = 1, 2, 4, 8
ROUTE_DESTINATION, ROUTE_INTERFACE, _ROUTE_GATEWAY, ROUTE_TABLE = 1, 4, 5, 15
RULE_DESTINATION, _RULE_INTERFACE, _RULE_GOTO, RULE_PRIORITY = 1, 3, 4, 6
_RULE_SUPPRESS_LENGTH, RULE_TABLE, _RULE_PROTOCOL = 14, 15, 21
_LOOK_UP, _GO_TO, _GO_ON = 1, 2, 3
_PROTOCOL_BOOT, _PROTOCOL_STATIC = 3, 4
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
UP, NO_ARP = 0x1, 0x80
_NO_DAD, _NO_PREFIX_ROUTE = 0x02, 0x200

_INET_CONF, _INET6_ADDR_GEN_MODE = 1, 8
_FORWARDING, _ACCEPT_REDIRECTS, _SEND_REDIRECTS, _RP_FILTER = 1, 4, 6, 8
_NO_ADDRESS_OF_ITS_OWN: Final = 1

LINK: Final = struct.Struct("=BxHiII")
ADDRESS: Final = struct.Struct("=BBBBi")
ROUTE: Final = struct.Struct("=BBBBBBBBI")


def render_pair(name: str, peer: str, netns: int, *, mac: str, mtu: int) -> bytes:
    """Make a pair of interfaces that are down, `peer` in the namespace open as `netns`.

    Both have the same MAC, and never ask for that of a neighbour. So all that one sends is for the
    other.
    """
    both = render_attribute(LINK_ADDRESS, _read_mac(mac)) + _number(LINK_MTU, mtu)
    end = LINK.pack(socket.AF_UNSPEC, 0, 0, NO_ARP, NO_ARP)
    other = end + both + _text(LINK_NAME, peer) + _number(_LINK_NETNS_FD, netns)
    data = render_attribute(_INFO_DATA, render_attribute(_VETH_PEER, other))
    info = _text(_INFO_KIND, "veth") + data
    return render_message(
        NEW_LINK,
        NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK,
        end + both + _text(LINK_NAME, name) + render_attribute(_LINK_INFO, info),
    )


def render_up(name: str, flags: int = 0) -> bytes:
    """Switch an interface on. `flags` are more of the message's."""
    change = LINK.pack(socket.AF_UNSPEC, 0, 0, UP, UP)
    return render_message(NEW_LINK, NLM_F_REQUEST | flags, change + _text(LINK_NAME, name))


def render_link(
    index: int,
    *,
    mac: str | None = None,
    alias: str | None = None,
    mtu: int | None = None,
    master: int | None = None,
    flags: int = 0,
) -> bytes:
    """Change what is given of an interface, and switch on what `flags` name.

    `master` 0 takes it off its bridge.
    """
    attributes = b""
    if mac is not None:
        attributes += render_attribute(LINK_ADDRESS, _read_mac(mac))
    if alias is not None:
        attributes += _text(LINK_ALIAS, alias)
    if mtu is not None:
        attributes += _number(LINK_MTU, mtu)
    if master is not None:
        attributes += _number(LINK_MASTER, master)
    head = LINK.pack(socket.AF_UNSPEC, 0, index, flags, flags)
    return render_message(SET_LINK, NLM_F_REQUEST, head + attributes)


def render_router_settings(index: int) -> bytes:
    """Make an interface one that passes packets on, believes no redirect and sends none.

    Packets whose source has no route through it are dropped.
    """
    settings = {_FORWARDING: 1, _ACCEPT_REDIRECTS: 0, _SEND_REDIRECTS: 0, _RP_FILTER: 1}
    conf = b"".join(_number(key, value) for key, value in settings.items())
    inet = render_attribute(socket.AF_INET, render_attribute(_INET_CONF, conf))
    return _render_af_spec(index, inet)


def render_no_own_address(index: int) -> bytes:
    """Have an interface make no IPv6 address of its own when it is switched on."""
    mode = render_attribute(_INET6_ADDR_GEN_MODE, bytes([_NO_ADDRESS_OF_ITS_OWN]))
    return _render_af_spec(index, render_attribute(socket.AF_INET6, mode))


def render_address(index: int, address: Interface, *, with_route: bool = True) -> bytes:
    """Give an interface an address; one of IPv6 is used at once.

    `with_route` says whether its network is reached through the interface.
    """
    scope = _SCOPE_LINK if address.is_link_local else _SCOPE_UNIVERSE
    length = address.network.prefixlen
    head = ADDRESS.pack(_family(address.version), length, 0, scope, index)
    attributes = render_attribute(ADDRESS_LOCAL, address.ip.packed)
    attributes += render_attribute(_ADDRESS_ADDRESS, address.ip.packed)
    if address.version == 6:
        attributes += _number(_ADDRESS_FLAGS, _NO_DAD | (0 if with_route else _NO_PREFIX_ROUTE))
    elif length < 31:
        attributes += render_attribute(_ADDRESS_BROADCAST, address.network.broadcast_address.packed)
    flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE
    return render_message(NEW_ADDRESS, flags, head + attributes)


def render_link_address(index: int, address: IPv4Interface) -> bytes:
    """Give an interface an address that is the source only of what stays on its wire."""
    head = ADDRESS.pack(socket.AF_INET, address.network.prefixlen, 0, _SCOPE_LINK, index)
    return render_message(
        NEW_ADDRESS,
        NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE,
        head + render_attribute(ADDRESS_LOCAL, address.ip.packed),
    )


def render_link_route(index: int, network: IPv4Network, flags: int = 0) -> bytes:
    """Send what goes to a network straight out of an interface that is up."""
    head = ROUTE.pack(
        *(socket.AF_INET, network.prefixlen, 0, 0),
        *(TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_LINK, UNICAST, 0),
    )
    return render_message(
        NEW_ROUTE,
        NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE | flags,
        head
        + render_attribute(ROUTE_DESTINATION, network.network_address.packed)
        + _number(ROUTE_INTERFACE, index),
    )


def render_default_route(index: int, gateway: Address, table: int = TABLE_MAIN) -> bytes:
    """Send what has no better route in a table through the gateway."""
    head = ROUTE.pack(
        *(_family(gateway.version), 0, 0, 0),
        *(0, _PROTOCOL_BOOT, _SCOPE_UNIVERSE, UNICAST, 0),
    )
    attributes = _number(ROUTE_INTERFACE, index) + _number(ROUTE_TABLE, table)
    return render_message(
        NEW_ROUTE,
        NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE,
        head + render_attribute(_ROUTE_GATEWAY, gateway.packed) + attributes,
    )


def render_network_route(index: int, network: Network, table: int) -> bytes:
    """Send what goes to a network, and looks in that table, straight out of an interface."""
    scope = _SCOPE_LINK if network.version == 4 else _SCOPE_UNIVERSE
    head = ROUTE.pack(
        *(_family(network.version), network.prefixlen, 0, 0),
        *(0, _PROTOCOL_BOOT, scope, UNICAST, 0),
    )
    attributes = _number(ROUTE_INTERFACE, index) + _number(ROUTE_TABLE, table)
    return render_message(
        NEW_ROUTE,
        NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE,
        head + render_attribute(ROUTE_DESTINATION, network.network_address.packed) + attributes,
    )


def render_eni_route(index: int, address: Address) -> bytes:
    """Send what goes to one address out of the host's end of an ENI, unless it has a route."""
    return _render_route(
        NEW_ROUTE, NLM_F_CREATE | NLM_F_EXCL, address, UNICAST, _number(ROUTE_INTERFACE, index)
    )


def render_no_eni_route(index: int, address: Address) -> bytes:
    """Take back what `render_eni_route` gives; a route of another interface stays."""
    return _render_route(DELETE_ROUTE, 0, address, UNICAST, _number(ROUTE_INTERFACE, index))


def render_unreachable(network: Network, table: int) -> bytes:
    """Refuse what goes to a network, and looks in that table, and has no better route there."""
    flags = NLM_F_CREATE | NLM_F_EXCL
    return _render_route(NEW_ROUTE, flags, network, UNREACHABLE, _number(ROUTE_TABLE, table))


def render_no_unreachable(network: Network, table: int) -> bytes:
    """Take back what `render_unreachable` gives."""
    return _render_route(DELETE_ROUTE, 0, network, UNREACHABLE, _number(ROUTE_TABLE, table))


def render_rule_of_own(kind: int, version: int, priority: int, target: int) -> bytes:
    """Have what this machine itself sends go on at the rule of priority `target`."""
    attributes = _text(_RULE_INTERFACE, "lo") + _number(_RULE_GOTO, target)
    return _render_rule(kind, version, priority, _GO_TO, attributes)


def render_rule_of_narrower(kind: int, network: Network, priority: int) -> bytes:
    """Have what goes to a network take a route of the main table to a part of it, if there is."""
    length = network.prefixlen
    attributes = render_attribute(RULE_DESTINATION, network.network_address.packed)
    attributes += _number(_RULE_SUPPRESS_LENGTH, length) + _number(RULE_TABLE, TABLE_MAIN)
    return _render_rule(kind, network.version, priority, _LOOK_UP, attributes, length)


def render_rule_of_table(kind: int, version: int, priority: int, table: int) -> bytes:
    """Have what no rule before decided look in a table."""
    return _render_rule(kind, version, priority, _LOOK_UP, _number(RULE_TABLE, table))


def render_rule_to_go_on(kind: int, version: int, priority: int) -> bytes:
    """Make a rule that decides nothing: where others go on."""
    return _render_rule(kind, version, priority, _GO_ON, b"")


def _render_rule(
    kind: int, version: int, priority: int, action: int, attributes: bytes, length: int = 0
) -> bytes:
    """Make a rule of routing, or remove it: `kind` is `NEW_RULE` or `DELETE_RULE`."""
    head = ROUTE.pack(_family(version), length, 0, 0, 0, 0, 0, action, 0)
    flags = NLM_F_CREATE | NLM_F_EXCL if kind == NEW_RULE else 0
    protocol = render_attribute(_RULE_PROTOCOL, bytes([PROTOCOL_ENI]))
    attributes += _number(RULE_PRIORITY, priority) + protocol
    return render_message(kind, NLM_F_REQUEST | flags, head + attributes)


def _render_route(
    kind: int, flags: int, destination: Address | Network, route: int, attributes: bytes
) -> bytes:
    if isinstance(destination, IPv4Network | IPv6Network):
        packed, length = destination.network_address.packed, destination.prefixlen
    else:
        packed, length = destination.packed, destination.max_prefixlen
    scope = _SCOPE_LINK if route == UNICAST and destination.version == 4 else _SCOPE_UNIVERSE
    head = ROUTE.pack(
        *(_family(destination.version), length, 0, 0),
        *(TABLE_MAIN if route == UNICAST else 0, PROTOCOL_ENI, scope, route, 0),
    )
    return render_message(
        kind,
        NLM_F_REQUEST | flags,
        head + render_attribute(ROUTE_DESTINATION, packed) + attributes,
    )


def _render_af_spec(index: int, families: bytes) -> bytes:
    head = LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    return render_message(SET_LINK, NLM_F_REQUEST, head + render_attribute(_LINK_AF_SPEC, families))


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def _read_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _number(kind: int, value: int) -> bytes:
    return render_attribute(kind, struct.pack("=I", value))


def _text(kind: int, value: str) -> bytes:
    return render_attribute(kind, value.encode() + b"\0")
