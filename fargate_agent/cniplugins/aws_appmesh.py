"""aws-appmesh: connections of a container go through a proxy in it, those of the proxy don't.

Names, fields and errors are those of amazon-vpc-cni-plugins, plugins/aws-appmesh. All ports are
taken: the original drops those after the fifteenth.
"""

import ipaddress
from collections.abc import Iterator
from typing import Final, NamedTuple

from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.errors import INVALID_CONFIG, CniError
from fargate_agent.cniplugins.program import Plugin
from fargate_agent.cniplugins.redirection import (
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
from fargate_agent.cniplugins.results import Result
from fargate_agent.network.nft.expressions import (
    LOCAL,
    TCP,
    destination_in,
    destination_type_is,
    jump_to,
    port_in,
    protocol_is,
    return_,
    version_is,
)
from fargate_agent.network.nft.objects import OUTPUT, PREROUTING, Table
from fargate_agent.network.nft.redirects import (
    redirect_to,
    sender_group_is,
    sender_is,
    source_type_is,
)

NAME: Final = "aws-appmesh"
INGRESS, EGRESS = "APPMESH_INGRESS", "APPMESH_EGRESS"
_MAX_ID: Final = 2**32 - 2

Range = ipaddress.IPv4Network | ipaddress.IPv6Network


class Mesh(NamedTuple):
    """What a configuration asks for."""

    ignored_uid: int | None
    ignored_gid: int | None
    egress_port: int
    """Where the proxy takes what the container sends."""
    ingress_port: int | None
    """Where it takes what comes for `app_ports`."""
    app_ports: tuple[int, ...]
    ignored_ports: tuple[int, ...]
    ignored_ranges: tuple[Range, ...]
    versions: tuple[int, ...]
    """Of IP."""


def read_mesh(call: Call) -> Mesh:
    """Read the configuration.

    Raises:
        CniError: a field is missing, or has a value that can't be.
    """
    config = call.config
    uid, gid = config.text("ignoredUID"), config.text("ignoredGID")
    if not uid and not gid:
        raise _missing("missing required parameter ignoredGID or ignoredUID")
    if not config.text("proxyEgressPort"):
        raise _missing("missing required parameter proxyEgressPort")
    app_ports = _texts(call, "appPorts")
    ingress = config.text("proxyIngressPort")
    if app_ports and not ingress:
        raise _missing("missing parameter proxyIngressPort (required if appPorts are provided)")
    if ingress and not app_ports:
        raise _missing("missing parameter appPorts (required if proxyIngressPort is provided)")
    return Mesh(
        ignored_uid=_read_id("ignoredUID", uid),
        ignored_gid=_read_id("ignoredGID", gid),
        egress_port=check_port(config.text("proxyEgressPort")),
        ingress_port=check_port(ingress) if ingress else None,
        app_ports=tuple(check_port(port) for port in app_ports),
        ignored_ports=tuple(check_port(port) for port in _texts(call, "egressIgnoredPorts")),
        ignored_ranges=tuple(_read_range(one) for one in _texts(call, "egressIgnoredIPs")),
        versions=(4, 6) if config.flag("enableIPv6") else (4,),
    )


def add(call: Call) -> Result:
    """Put the rules into the container; return what the plugin before has made."""
    mesh, table = read_mesh(call), _table(call)
    put_table(call.netns, table, render_mesh(table, mesh))
    return call.previous() if call.config.has("prevResult") else Result()


def delete(call: Call) -> None:
    """Take them away."""
    read_mesh(call)
    if call.netns:
        remove_table(call.netns, _table(call))


def check(call: Call) -> None:
    """Return if they are there."""
    call.previous()
    mesh = read_mesh(call)
    ingress = len(mesh.app_ports) * len(mesh.versions)
    ids = (mesh.ignored_uid is not None) + (mesh.ignored_gid is not None)
    ranges = sum(one.version in mesh.versions for one in mesh.ignored_ranges)
    egress = (ids + len(mesh.ignored_ports) + 1) * len(mesh.versions) + ranges
    check_table(call.netns, _table(call), ((INGRESS, ingress), (EGRESS, egress)))


def collect(call: Call) -> None:
    """Take away the rules of attachments that aren't there any more."""
    remove_others(call, NAME)


def _table(call: Call) -> Table:
    return Table(name_table(NAME, call.network, call.container_id, call.ifname))


def render_mesh(table: Table, mesh: Mesh) -> Iterator[bytes]:
    """Yield what fills the table; pure."""
    yield table.chain(EGRESS)
    yield table.base_chain("output", OUTPUT, OUTPUT_NAT, kind="nat")
    if mesh.ingress_port is not None:
        yield table.chain(INGRESS)
        yield table.base_chain("prerouting", PREROUTING, PREROUTING_NAT, kind="nat")
    for version in mesh.versions:
        tcp = version_is(version) + protocol_is(TCP)
        if mesh.ingress_port is not None:
            yield table.rule(
                "prerouting", tcp, source_type_is(LOCAL, equal=False), jump_to(INGRESS)
            )
            for port in mesh.app_ports:
                yield table.rule(INGRESS, tcp, port_in(port, port), redirect_to(mesh.ingress_port))
        yield table.rule("output", tcp, destination_type_is(LOCAL, equal=False), jump_to(EGRESS))
        yield from _render_egress(table, mesh, version, tcp)


def _render_egress(table: Table, mesh: Mesh, version: int, tcp: bytes) -> Iterator[bytes]:
    if mesh.ignored_uid is not None:
        yield table.rule(EGRESS, version_is(version), sender_is(mesh.ignored_uid), return_())
    if mesh.ignored_gid is not None:
        yield table.rule(EGRESS, version_is(version), sender_group_is(mesh.ignored_gid), return_())
    for port in mesh.ignored_ports:
        yield table.rule(EGRESS, tcp, port_in(port, port), return_())
    for network in mesh.ignored_ranges:
        if network.version == version:
            yield table.rule(EGRESS, destination_in(network), return_())
    yield table.rule(EGRESS, tcp, redirect_to(mesh.egress_port))


def _texts(call: Call, name: str) -> list[str]:
    """Return a list of strings, or one with commas in it; an empty string is an empty list."""
    given = call.config.value(name)
    found = given.split(",") if isinstance(given, str) else call.config.texts(name)
    return [] if found == [""] else found


def _read_id(name: str, text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and int(text) <= _MAX_ID):
        raise CniError(f"invalid {name} [{text}] specified", INVALID_CONFIG)
    return int(text)


def _read_range(text: str) -> Range:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise CniError(f"invalid IP or CIDR block [{text}] specified", INVALID_CONFIG) from error


def _missing(text: str) -> CniError:
    return CniError(text, INVALID_CONFIG)


PLUGIN: Final = Plugin(
    NAME,
    {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": check_filter},
    log_file_variable="VPC_CNI_LOG_FILE",
    log_level_variable="VPC_CNI_LOG_LEVEL",
)
