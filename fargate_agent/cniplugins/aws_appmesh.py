"""aws-appmesh: has TCP of a container go through its proxy, in and out.

Names, messages and what is redirected: amazon-vpc-cni-plugins, plugins/aws-appmesh. Other than
there, there may be any number of ports, a failed ADD leaves nothing, and DEL finds nothing missing.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.errors import INVALID_CONFIG, CniError
from fargate_agent.cniplugins.fields import Fields
from fargate_agent.cniplugins.marks import network_prefix, render_mark
from fargate_agent.cniplugins.program import Plugin
from fargate_agent.cniplugins.results import Range, Result
from fargate_agent.cniplugins.rule_tables import (
    NAT,
    NAT_PRIORITY,
    Chain,
    Hook,
    check_table,
    make_table,
    remove_table,
    remove_tables_but,
    require_packet_filter,
)
from fargate_agent.cniplugins.sandboxes import Place, open_container
from fargate_agent.cniplugins.vpc_values import (
    MAX_ID,
    MAX_PORT,
    parse_address,
    parse_cidr,
    parse_number,
)
from fargate_agent.network.nft import expressions as ex
from fargate_agent.network.nft.objects import OUTPUT, PREROUTING

NAME: Final = "aws-appmesh"
INGRESS, EGRESS = "APPMESH_INGRESS", "APPMESH_EGRESS"
LOG_FILE, LOG_LEVEL = "VPC_CNI_LOG_FILE", "VPC_CNI_LOG_LEVEL"


class MeshConfig(NamedTuple):
    """What aws-appmesh is told."""

    uid: int | None
    """Whose packets aren't redirected: those of the proxy itself. The same with the next one."""
    gid: int | None
    ingress_port: int
    """Where the proxy listens for what comes in; 0: nothing is redirected."""
    egress_port: int
    app_ports: tuple[int, ...]
    """What comes in to one of these is redirected."""
    ignored_ports: tuple[int, ...]
    ignored_ranges: tuple[Range, ...]
    """What goes out to one of these isn't redirected."""
    versions: tuple[int, ...]
    """Of IP."""


def read_mesh(config: Fields) -> MeshConfig:
    """Read a configuration.

    Raises:
        CniError: it isn't right.
    """
    uid, gid = config.text("ignoredUID"), config.text("ignoredGID")
    ingress, egress = config.text("proxyIngressPort"), config.text("proxyEgressPort")
    app_ports = config.texts("appPorts")
    if not uid and not gid:
        raise _wrong("missing required parameter ignoredGID or ignoredUID")
    if not egress:
        raise _wrong("missing required parameter proxyEgressPort")
    if app_ports and not ingress:
        raise _wrong("missing parameter proxyIngressPort (required if appPorts are provided)")
    if ingress and not app_ports:
        raise _wrong("missing parameter appPorts (required if proxyIngressPort is provided)")
    return MeshConfig(
        uid=_read_id("ignoredUID", uid),
        gid=_read_id("ignoredGID", gid),
        egress_port=_read_port(egress),
        ingress_port=_read_port(ingress) if ingress else 0,
        app_ports=tuple(map(_read_port, _list(app_ports))),
        ignored_ports=tuple(map(_read_port, _list(config.texts("egressIgnoredPorts")))),
        ignored_ranges=tuple(map(_read_range, _list(config.texts("egressIgnoredIPs")))),
        versions=(4, 6) if config.flag("enableIPv6") else (4,),
    )


def render_chains(mesh: MeshConfig) -> tuple[Chain, ...]:
    """Return the rules of a container."""
    nat = NAT_PRIORITY, NAT
    tcp = ex.protocol_is(ex.TCP)
    egress = (*_render_exceptions(mesh), tcp + ex.redirect_to(mesh.egress_port))
    outgoing = tuple(
        ex.version_is(one)
        + tcp
        + ex.destination_type_is(ex.LOCAL, equal=False)
        + ex.jump_to(EGRESS)
        for one in mesh.versions
    )
    chains = (Chain(EGRESS, None, egress), Chain("OUTPUT", Hook(OUTPUT, *nat), outgoing))
    if not mesh.app_ports:
        return chains
    ingress = tuple(
        tcp + ex.port_in(*ports) + ex.redirect_to(mesh.ingress_port)
        for ports in join_ports(mesh.app_ports)
    )
    incoming = tuple(
        ex.version_is(one) + tcp + ex.source_type_is(ex.LOCAL, equal=False) + ex.jump_to(INGRESS)
        for one in mesh.versions
    )
    hook = Hook(PREROUTING, *nat)
    return (*chains, Chain(INGRESS, None, ingress), Chain("PREROUTING", hook, incoming))


def join_ports(ports: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and the last of each row of ports, in order."""
    rows: list[tuple[int, int]] = []
    for port in sorted(set(ports)):
        if rows and rows[-1][1] == port - 1:
            rows[-1] = rows[-1][0], port
        else:
            rows.append((port, port))
    return rows


def add(call: Call) -> Result:
    """Make the rules; the result is that of the plugin before."""
    mesh = read_mesh(call.config)
    result = call.previous() if call.config.has("prevResult") else Result()
    with open_container(call) as container:
        assert container is not None  # noqa: S101 - of ADD it is there
        make_table(container, NAME, _mark(call), render_chains(mesh))
    return result


def delete(call: Call) -> None:
    """Remove the rules."""
    read_mesh(call.config)
    with open_container(call) as container:
        if container is not None:
            _take_back(container, _mark(call))


def check(call: Call) -> None:
    """See that the rules are there."""
    mesh = read_mesh(call.config)
    call.previous()
    with open_container(call) as container:
        assert container is not None  # noqa: S101 - of CHECK it is there
        check_table(container, NAME, _mark(call), render_chains(mesh))


def collect(call: Call) -> None:
    """Remove the rules of attachments that aren't there any more."""
    kept = {render_mark(NAME, call.network, *one) for one in call.attachments()}
    faults = remove_tables_but(NAME, network_prefix(NAME, call.network), kept, _take_back)
    if faults:
        raise CniError("; ".join(faults))


def tell_status(call: Call) -> None:
    """See that there can be rules."""
    read_mesh(call.config)
    require_packet_filter()


def _render_exceptions(mesh: MeshConfig) -> Iterator[bytes]:
    if mesh.uid is not None:
        yield ex.sent_by_user(mesh.uid) + ex.return_()
    if mesh.gid is not None:
        yield ex.sent_by_group(mesh.gid) + ex.return_()
    for ports in join_ports(mesh.ignored_ports):
        yield ex.protocol_is(ex.TCP) + ex.port_in(*ports) + ex.return_()
    for one in mesh.ignored_ranges:
        yield ex.destination_in(one) + ex.return_()


def _take_back(container: Place, mark: str) -> None:
    remove_table(container, NAME, mark)


def _mark(call: Call) -> str:
    return render_mark(NAME, call.network, call.container_id, call.ifname)


def _list(texts: list[str]) -> list[str]:
    """Source: the original, for which a list of one empty text is an empty list."""
    return [] if texts == [""] else texts


def _read_id(name: str, text: str) -> int | None:
    if not text:
        return None
    number = parse_number(text, MAX_ID)
    if number is None:
        raise _wrong(f"invalid {name} [{text}] specified")
    return number


def _read_port(text: str) -> int:
    port = parse_number(text, MAX_PORT)
    if not port:
        raise _wrong(f"invalid port [{text}] specified")
    return port


def _read_range(text: str) -> Range:
    trimmed = text.strip()
    address = parse_address(trimmed)
    cidr = parse_cidr(trimmed if address is None else f"{address}/{address.max_prefixlen}")
    if cidr is None:
        raise _wrong(f"invalid IP or CIDR block [{trimmed}] specified in egressIgnoredIPs")
    return cidr.network


def _wrong(message: str) -> CniError:
    return CniError(message, INVALID_CONFIG)


PLUGIN = Plugin(
    NAME,
    {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": tell_status},
    log_file_variable=LOG_FILE,
    log_level_variable=LOG_LEVEL,
)
