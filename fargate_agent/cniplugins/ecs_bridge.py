"""ecs-bridge: hangs a container on a bridge of the host, out of reach of whatever has no route.

Names and messages: amazon-ecs-cni-plugins, plugins/ecs-bridge. A container reaches its gateway, and
what has a route by it: its own network isn't on the wire. Other than there, a failed ADD leaves
nothing, and DEL finds nothing missing.
"""

import errno
from contextlib import suppress
from ipaddress import IPv6Interface, ip_network
from typing import Final, NamedTuple

from fargate_agent.cniplugins.bridge_ends import (
    WantedEnds,
    address_bridge,
    ensure_bridge,
    find_bridge,
    find_end,
    has_interface,
    make_ends,
    name_mac,
    remove_ends,
    remove_ends_but,
)
from fargate_agent.cniplugins.call import Call, check_ifname
from fargate_agent.cniplugins.checks import check_interface
from fargate_agent.cniplugins.delegation import delegate
from fargate_agent.cniplugins.errors import (
    INVALID_CONFIG,
    NOT_AVAILABLE,
    UNSUPPORTED_FIELD,
    CniError,
)
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.marks import network_prefix, render_mark
from fargate_agent.cniplugins.program import Plugin
from fargate_agent.cniplugins.results import Dns, Interface, Result, Route, parse_result
from fargate_agent.cniplugins.sandboxes import (
    Place,
    open_container,
    open_host,
    render_blackholes,
)
from fargate_agent.network.blocking import NetlinkError, Request, require_each
from fargate_agent.network.link_requests import (
    WantedRoute,
    get_link,
    render_global_address,
    render_route,
)
from fargate_agent.network.rtnetlink import UP, render_link, render_no_own_address

NAME: Final = "ecs-bridge"
DEFAULT_MTU: Final = 1500
_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
_THERE: Final = frozenset({errno.EEXIST})
_LINK_LOCAL: Final = bytes.fromhex("fe80000000000000")


class BridgeConfig(NamedTuple):
    """What ecs-bridge is told."""

    bridge: str
    mtu: int
    """In bytes."""
    ipam: str
    """The plugin that gives addresses; empty if there is none."""
    blocks_imds: bool


def read_bridge(config: Fields) -> BridgeConfig:
    """Read a configuration.

    Raises:
        CniError: it isn't right.
    """
    name = config.text("bridge")
    if not name:
        raise CniError(
            "bridge parsing config: missing required parameter in config named: 'bridge'",
            INVALID_CONFIG,
        )
    wrong = check_ifname(name)
    if wrong is not None:
        raise CniError(f"bridge parsing config: bridge {name}: {wrong}", INVALID_CONFIG)
    mtu = config.number("mtu")
    if mtu < 0:
        raise CniError(f"bridge parsing config: invalid mtu: {mtu}", INVALID_CONFIG)
    ipam = config.fields("ipam")
    for field in ("connectedSubnetMaskSizeIPv4", "connectedSubnetMaskSizeIPv6"):
        if size := ipam.number(field):
            raise CniError(f"unsupported field: ipam.{field}: {size}", UNSUPPORTED_FIELD)
    return BridgeConfig(
        name, mtu or DEFAULT_MTU, ipam.text("type"), config.flag("blockInstanceMetadata")
    )


def add(call: Call) -> Result:
    """Hang the container on the bridge."""
    told = read_bridge(call.config)
    if not told.ipam:
        raise CniError(
            "bridge parsing config: missing required parameter in config named: 'ipam.type'",
            INVALID_CONFIG,
        )
    with open_host() as host, open_container(call) as container:
        assert container is not None  # noqa: S101 - of ADD it is there
        find_bridge(host, told.bridge)
        if has_interface(container, call.ifname):
            text = f"container veth name provided ({call.ifname}) already exists"
            raise CniError(text)
        given = delegate(call, told.ipam, "ADD")
        try:
            assert given is not None  # noqa: S101 - ADD gives a result
            _check_given(given)
            return _attach(call, host, container, told, given)
        except BaseException:
            _undo(call, host, container, told)
            raise


def delete(call: Call) -> None:
    """Take the container off the bridge, which stays."""
    told = read_bridge(call.config)
    fault: CniError | OSError | None = None
    if told.ipam:
        try:
            delegate(call, told.ipam, "DEL")
        except (CniError, OSError) as error:
            fault = error
    with open_host() as host, open_container(call) as container:
        remove_ends(host, container, call.ifname, _mark(call))
    if fault is not None:
        raise fault


def check(call: Call) -> None:
    """See that the container has all that ADD gave it."""
    told = read_bridge(call.config)
    previous = call.previous()
    if told.ipam:
        delegate(call, told.ipam, "CHECK")
    with open_host() as host, open_container(call) as container:
        assert container is not None  # noqa: S101 - of CHECK it is there
        check_interface(container, call.ifname, previous)
        bridge, end = find_bridge(host, told.bridge), find_end(host, _mark(call))
        if bridge is None:
            raise CniError(f"bridge {told.bridge} is missing")
        if end is None or end.master != bridge.ifindex or not end.is_up:
            raise CniError(f"interface {call.ifname} of the container hangs on no {told.bridge}")


def collect(call: Call) -> None:
    """Take off the bridge whatever attachment isn't there any more; go on after errors."""
    told = read_bridge(call.config)
    kept = {render_mark(NAME, call.network, *one) for one in call.attachments()}
    with open_host() as host:
        faults = remove_ends_but(host, network_prefix(NAME, call.network), kept)
    if told.ipam:
        try:
            delegate(call, told.ipam, "GC")
        except (CniError, OSError) as error:
            faults.append(str(error))
    if faults:
        raise CniError("; ".join(faults))


def tell_status(call: Call) -> None:
    """See that a container can be attached."""
    told = read_bridge(call.config)
    with open_host() as host:
        try:
            find_bridge(host, told.bridge)
        except CniError as error:
            raise CniError(str(error), NOT_AVAILABLE) from error
    if told.ipam:
        delegate(call, told.ipam, "STATUS")


def _mark(call: Call) -> str:
    return render_mark(NAME, call.network, call.container_id, call.ifname)


def _check_given(given: Result) -> None:
    count = len(given.ips)
    if count not in {1, 2}:
        raise CniError(f"bridge IPAM ADD: expected 1 or 2 IP configs, got {count}")
    for at, ip in enumerate(given.ips):
        if ip.address.network.prefixlen == 0:
            raise CniError(f"bridge IPAM ADD: IP address mask not set for IP[{at}]")
        if ip.gateway is None:
            raise CniError(f"bridge IPAM ADD: Gateway not set for IP[{at}]")


def _attach(call: Call, host: Place, container: Place, told: BridgeConfig, given: Result) -> Result:
    """Do what is to be done after the addresses are known."""
    mac = next((name_mac(one.address.ip) for one in given.ips if one.address.version == 4), "")
    bridge = ensure_bridge(host, told.bridge, told.mtu)
    address_bridge(host, bridge, given.ips)
    end = make_ends(host, container, bridge, WantedEnds(call.ifname, _mark(call), told.mtu, mac))
    routes = _resolve_routes(given)
    _furnish(call, container, given, routes, told)
    inside = get_link(container.link, call.ifname)
    return Result(
        (
            Interface(bridge.name, bridge.mac, mtu=bridge.mtu),
            Interface(end.name, end.mac, mtu=end.mtu),
            Interface(inside.name, inside.mac, call.netns, inside.mtu),
        ),
        tuple(one._replace(interface=2) for one in given.ips),
        routes,
        given.dns if given.dns != Dns() else parse_result(call.config.raw, "config").dns,
    )


def _resolve_routes(given: Result) -> tuple[Route, ...]:
    """Return the routes of the container: to its gateways, and those that came with addresses.

    A route without a gateway goes by that of its version of IP. Source:
    containernetworking/plugins, pkg/ipam/ipam_linux.go.
    """
    gateways = {one.address.version: one.gateway for one in reversed(given.ips)}
    routes = [
        Route(ip_network(one.gateway), one.gateway) for one in given.ips if one.gateway is not None
    ]
    for route in given.routes:
        gateway = route.gateway or gateways.get(route.to.version)
        if gateway is None:
            raise CniError(f"bridge IPAM ADD: no gateway for the route to {route.to}")
        resolved = route._replace(gateway=gateway)
        if resolved not in routes:
            routes.append(resolved)
    return tuple(routes)


def _furnish(
    call: Call,
    container: Place,
    given: Result,
    routes: tuple[Route, ...],
    told: BridgeConfig,
) -> None:
    """Give the container's end its addresses and routes; there is no way but these routes."""
    link = get_link(container.link, call.ifname)
    index, what = link.ifindex, f"set up interface {call.ifname}"
    addresses = [one.address for one in given.ips]
    if any(one.version == 6 for one in addresses):
        addresses.append(_link_local(link.mac))  # neighbours are asked from it
    wanted = [
        Request(what, render_no_own_address(index), _NO_IPV6),
        *(
            Request(f"add address {one}", render_global_address(index, one, with_route=False))
            for one in addresses
        ),
        Request(what, render_link(index, flags=UP)),
    ]
    for one in routes:
        route = WantedRoute(
            one.to,
            index,
            one.gateway,
            is_onlink=any(one.gateway in ip.address.network for ip in given.ips),
            mtu=one.mtu,
            advmss=one.advmss,
            priority=one.priority,
            table=one.table,
            scope=one.scope,
        )
        wanted.append(Request(f"route to {one.to} by {one.gateway}", render_route(route), _THERE))
    if told.blocks_imds:
        wanted += render_blackholes()
    require_each(container.link, wanted)


def _link_local(mac: str) -> IPv6Interface:
    """Source: RFC 4291, appendix A."""
    octets = bytes.fromhex(mac.replace(":", ""))
    last = bytes([octets[0] ^ 0x02]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return IPv6Interface((_LINK_LOCAL + last, 64))


def _undo(call: Call, host: Place, container: Place, told: BridgeConfig) -> None:
    """Take back what a failed ADD did; whatever can't be taken back, DEL takes back."""
    with suppress(NetlinkError):
        remove_ends(host, container, call.ifname, _mark(call))
    try:
        delegate(call, told.ipam, "DEL")
    except (CniError, OSError) as error:
        call.journal.warn(f"could not free the addresses: {error}")


PLUGIN = Plugin(
    NAME,
    {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": tell_status},
    capabilities=("awsvpc-network-mode",),
)
