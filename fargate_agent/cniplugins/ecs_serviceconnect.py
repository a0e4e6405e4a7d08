"""ecs-serviceconnect: what goes to or comes from a service mesh passes a proxy in the container.

Names, fields and errors are those of amazon-vpc-cni-plugins, plugins/ecs-serviceconnect, whose ADD
hides what fails. Here it fails, and nothing of it is left.
"""

import ipaddress
from collections.abc import Iterator
from typing import Final, NamedTuple

from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.errors import INVALID_CONFIG, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.program import Plugin
from fargate_agent.cniplugins.proxy_routes import add_routes, remove_routes
from fargate_agent.cniplugins.redirection import (
    MANGLE,
    OUTPUT_NAT,
    PREROUTING_NAT,
    check_filter,
    check_port,
    check_table,
    name_table,
    put_table,
    remove_others,
    remove_table,
)
from fargate_agent.cniplugins.results import Interface, Result
from fargate_agent.network.nft.expressions import (
    LOCAL,
    TCP,
    accept,
    destination_in,
    jump_to,
    port_in,
    protocol_is,
    version_is,
)
from fargate_agent.network.nft.objects import OUTPUT, PREROUTING, Table
from fargate_agent.network.nft.redirects import (
    hand_to,
    has_socket,
    mark_with,
    redirect_to,
    source_type_is,
)

NAME: Final = "ecs-serviceconnect"
INGRESS, DIVERT = "ECS_SERVICE_CONNECT_INGRESS", "ECS_SERVICE_CONNECT_DIVERT"
NAT, TPROXY = "nat", "tproxy"
MARK: Final = 1

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Range = ipaddress.IPv4Network | ipaddress.IPv6Network


class Egress(NamedTuple):
    """Where the container's connections to the mesh go."""

    port: int | None
    """Of the proxy; None: they are sent to `addresses`."""
    mode: str
    """One of `NAT` and `TPROXY`."""
    addresses: dict[int, Address]
    """By version of IP."""
    ranges: dict[int, Range]
    """Addresses of the mesh, by version of IP."""


class Connect(NamedTuple):
    """What a configuration asks for."""

    intercepted: tuple[tuple[int, int], ...]
    """Ports of the container, and of the proxy that takes what comes for them."""
    egress: Egress | None
    versions: tuple[int, ...]


def read_connect(call: Call) -> Connect:
    """Read the configuration, in the order of the original.

    Raises:
        CniError: a field is missing, or has a value that can't be.
    """
    config = call.config
    if not config.has("ingressConfig") and not config.has("egressConfig"):
        raise _wrong("either IngressConfig or EgressConfig must be present")
    flags = {4: config.flag("enableIPv4"), 6: config.flag("enableIPv6")}
    versions = tuple(version for version, is_on in flags.items() if is_on)
    if not versions:
        raise _wrong("both V4 and V6 cannot be disabled")
    intercepted = []
    for one in config.list_of_fields("ingressConfig"):
        listener = check_port(one.number("listenerPort"))
        if intercept := one.number("interceptPort"):
            intercepted.append((check_port(intercept), listener))
    egress = None
    if config.has("egressConfig"):
        egress = _read_egress(config.fields("egressConfig"), versions)
    return Connect(tuple(intercepted), egress, versions)


def _read_egress(config: Fields, versions: tuple[int, ...]) -> Egress:
    port, redirect = config.number("listenerPort"), config.fields("redirectIP")
    given = {4: redirect.text("ipv4"), 6: redirect.text("ipv6")}
    if bool(port) == config.has("redirectIP"):
        raise _wrong("exactly one of ListenerPort and RedirectIP must be specified in Egress")
    mode = config.text("redirectMode")
    if mode not in {NAT, TPROXY}:
        raise _wrong("invalid parameter: Egress RedirectMode")
    if mode == NAT and not port:
        raise _wrong("missing required parameter: Egress ListenerPort")
    if port:
        check_port(port)
    elif not all(given[version] for version in versions):
        raise _wrong("missing required parameter: EgressConfig Redirect IP")
    addresses = {version: _read_address(version, text) for version, text in given.items() if text}
    return Egress(port or None, mode, addresses, _read_ranges(config, versions))


def _read_ranges(config: Fields, versions: tuple[int, ...]) -> dict[int, Range]:
    if not config.has("vip"):
        raise _wrong("missing required parameter: EgressConfig VIP")
    vip = config.fields("vip")
    given = {4: vip.text("ipv4Cidr"), 6: vip.text("ipv6Cidr")}
    if not all(given[version] for version in versions):
        raise _wrong("missing required parameter: EgressConfig VIP CIDR")
    found: dict[int, Range] = {}
    for version, text in given.items():
        if text:
            try:
                if "/" not in text:
                    raise ValueError(text)
                found[version] = ipaddress.ip_network(text, strict=False)
            except ValueError as error:
                raise _wrong_range(version) from error
            if found[version].version != version:
                raise _wrong_range(version)
    return found


def _read_address(version: int, text: str) -> Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise _wrong("invalid parameter: EgressConfig RedirectIP") from error
    if address.version != version:
        raise _wrong("invalid parameter: EgressConfig RedirectIP")
    return address


def add(call: Call) -> Result:
    """Lead connections through the proxy; return what the plugin before has made."""
    connect, table = read_connect(call), _table(call)
    put_table(call.netns, table, render_connect(table, connect))
    try:
        add_routes(call.netns, *_routes(connect))
    except BaseException:
        _undo(call, connect)
        raise
    if call.config.has("prevResult"):
        return call.previous()
    return Result(interfaces=(Interface(call.ifname, sandbox=call.netns),))


def delete(call: Call) -> None:
    """Take all back."""
    connect = read_connect(call)
    if call.netns:
        _undo(call, connect)


def check(call: Call) -> None:
    """Return if the rules are there."""
    call.previous()
    connect = read_connect(call)
    egress = connect.egress
    count = len(connect.versions)
    is_nat = egress is not None and egress.mode == NAT
    diverts = egress is not None and egress.mode == TPROXY and egress.port is not None
    rules = (
        (INGRESS, len(connect.intercepted) * count),
        ("output", count if is_nat else 0),
        (DIVERT, 1 if diverts else 0),
        ("divert", 2 * count if diverts else 0),
    )
    check_table(call.netns, _table(call), rules)


def collect(call: Call) -> None:
    """Take away the rules of attachments that aren't there any more."""
    for netns in remove_others(call, NAME):
        remove_routes(netns, MARK, (4, 6), [])


def _table(call: Call) -> Table:
    return Table(name_table(NAME, call.network, call.container_id, call.ifname))


def _undo(call: Call, connect: Connect) -> None:
    try:
        remove_table(call.netns, _table(call))
    finally:
        remove_routes(call.netns, *_routes(connect))


def _routes(connect: Connect) -> tuple[int, tuple[int, ...], list[tuple[Range, Address]]]:
    """Return the mark of what is for the proxy, for which versions, and routes to addresses."""
    egress = connect.egress
    if egress is None or egress.mode != TPROXY:
        return MARK, (), []
    if egress.port is not None:
        return MARK, connect.versions, []
    wanted = [(egress.ranges[one], egress.addresses[one]) for one in connect.versions]
    return MARK, (), wanted


def render_connect(table: Table, connect: Connect) -> Iterator[bytes]:
    """Yield what fills the table; pure."""
    egress = connect.egress
    if connect.intercepted:
        yield table.chain(INGRESS)
        yield table.base_chain("prerouting", PREROUTING, PREROUTING_NAT, kind="nat")
    if egress is not None and egress.mode == NAT:
        yield table.base_chain("output", OUTPUT, OUTPUT_NAT, kind="nat")
    if egress is not None and egress.mode == TPROXY and egress.port is not None:
        yield table.chain(DIVERT)
        yield table.base_chain("divert", PREROUTING, MANGLE)
        yield table.rule(DIVERT, mark_with(MARK), accept())
    for version in connect.versions:
        tcp = version_is(version) + protocol_is(TCP)
        if connect.intercepted:
            remote = source_type_is(LOCAL, equal=False)
            yield table.rule("prerouting", tcp, remote, jump_to(INGRESS))
        for port, listener in connect.intercepted:
            yield table.rule(INGRESS, tcp, port_in(port, port), redirect_to(listener))
        if egress is not None and egress.port is not None:
            yield from _render_egress(table, egress, egress.port, version)


def _render_egress(table: Table, egress: Egress, port: int, version: int) -> Iterator[bytes]:
    mesh = destination_in(egress.ranges[version]) + protocol_is(TCP)
    if egress.mode == NAT:
        yield table.rule("output", mesh, redirect_to(port))
        return
    tcp = version_is(version) + protocol_is(TCP)
    yield table.rule("divert", tcp, has_socket(), jump_to(DIVERT))
    yield table.rule("divert", mesh, hand_to(version, port), mark_with(MARK), accept())


def _wrong_range(version: int) -> CniError:
    return _wrong(f"invalid parameter: EgressConfig IPv{version} CIDR Address")


def _wrong(text: str) -> CniError:
    return CniError(text, INVALID_CONFIG)


PLUGIN: Final = Plugin(
    NAME,
    {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": check_filter},
    log_file_variable="VPC_CNI_LOG_FILE",
    log_level_variable="VPC_CNI_LOG_LEVEL",
)
