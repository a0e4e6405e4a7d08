"""ecs-serviceconnect: has TCP between a container and services go through a proxy.

Names, messages and what is redirected: amazon-vpc-cni-plugins, plugins/ecs-serviceconnect. Other
than there, a failed ADD says so and leaves nothing, DEL finds nothing missing, and the result of
the plugin before is passed on.
"""

from collections.abc import Iterator
from typing import Final

from fargate_agent.cniplugins.call import Call
from fargate_agent.cniplugins.errors import CniError
from fargate_agent.cniplugins.marks import network_prefix, render_mark
from fargate_agent.cniplugins.program import Plugin
from fargate_agent.cniplugins.proxy_routing import (
    MARK,
    check_proxy_routing,
    make_proxy_routing,
    remove_proxy_routing,
)
from fargate_agent.cniplugins.results import Interface, Result
from fargate_agent.cniplugins.rule_tables import (
    FILTER,
    MANGLE_PRIORITY,
    NAT,
    NAT_PRIORITY,
    Chain,
    Hook,
    check_table,
    find_owner,
    make_table,
    remove_table,
    remove_tables_but,
    require_packet_filter,
)
from fargate_agent.cniplugins.sandboxes import Place, open_container
from fargate_agent.cniplugins.service_connect_config import (
    REDIRECT_NAT,
    REDIRECT_TPROXY,
    Egress,
    ServiceConnectConfig,
    read_service_connect,
)
from fargate_agent.network.blocking import NetlinkError
from fargate_agent.network.nft import expressions as ex
from fargate_agent.network.nft.objects import OUTPUT, PREROUTING

NAME: Final = "ecs-serviceconnect"
INGRESS, DIVERT = "ECS_SERVICE_CONNECT_INGRESS", "ECS_SERVICE_CONNECT_DIVERT"
LOG_FILE, LOG_LEVEL = "VPC_CNI_LOG_FILE", "VPC_CNI_LOG_LEVEL"
_IS_TCP: Final = ex.protocol_is(ex.TCP)


def render_chains(told: ServiceConnectConfig) -> tuple[Chain, ...]:
    """Return the rules of a container."""
    chains: tuple[Chain, ...] = ()
    if told.listeners:
        ingress = tuple(
            _IS_TCP + ex.port_in(one.intercept_port, one.intercept_port) + ex.redirect_to(one.port)
            for one in told.listeners
        )
        incoming = tuple(
            ex.version_is(one)
            + _IS_TCP
            + ex.source_type_is(ex.LOCAL, equal=False)
            + ex.jump_to(INGRESS)
            for one in told.versions
        )
        hook = Hook(PREROUTING, NAT_PRIORITY, NAT)
        chains += Chain(INGRESS, None, ingress), Chain("PREROUTING", hook, incoming)
    egress = told.egress
    if egress is not None and egress.mode == REDIRECT_NAT:
        outgoing = tuple(
            _IS_TCP + ex.destination_in(one) + ex.redirect_to(egress.port) for one in egress.ranges
        )
        chains += (Chain("OUTPUT", Hook(OUTPUT, NAT_PRIORITY, NAT), outgoing),)
    if egress is not None and _is_proxied(egress):
        divert = ex.set_mark(MARK) + ex.accept()
        hook = Hook(PREROUTING, MANGLE_PRIORITY, FILTER)
        proxied = tuple(_render_proxied(egress, told.versions))
        chains += Chain(DIVERT, None, (divert,)), Chain("PREROUTING_MANGLE", hook, proxied)
    return chains


def add(call: Call) -> Result:
    """Make rules and routes; the result is that of the plugin before."""
    told = read_service_connect(call.config)
    result = Result((Interface(call.ifname, sandbox=call.netns),))
    if call.config.has("prevResult"):
        result = call.previous()
    with open_container(call) as container:
        assert container is not None  # noqa: S101 - of ADD it is there
        make_table(container, NAME, _mark(call), render_chains(told))
        try:
            if told.egress is not None and told.egress.mode == REDIRECT_TPROXY:
                make_proxy_routing(container, told.egress, told.versions)
        except BaseException:
            _undo(call, container)
            raise
    return result


def delete(call: Call) -> None:
    """Remove rules and routes."""
    read_service_connect(call.config)
    with open_container(call) as container:
        if container is not None and find_owner(container, NAME) in {_mark(call), None}:
            _take_back(container, _mark(call))


def check(call: Call) -> None:
    """See that rules and routes are there."""
    told = read_service_connect(call.config)
    call.previous()
    with open_container(call) as container:
        assert container is not None  # noqa: S101 - of CHECK it is there
        check_table(container, NAME, _mark(call), render_chains(told))
        if told.egress is not None and told.egress.mode == REDIRECT_TPROXY:
            check_proxy_routing(container, told.egress, told.versions)


def collect(call: Call) -> None:
    """Remove rules and routes of attachments that aren't there any more."""
    kept = {render_mark(NAME, call.network, *one) for one in call.attachments()}
    faults = remove_tables_but(NAME, network_prefix(NAME, call.network), kept, _take_back)
    if faults:
        raise CniError("; ".join(faults))


def tell_status(call: Call) -> None:
    """See that there can be rules."""
    read_service_connect(call.config)
    require_packet_filter()


def _is_proxied(egress: Egress) -> bool:
    return egress.mode == REDIRECT_TPROXY and bool(egress.port)


def _render_proxied(egress: Egress, versions: tuple[int, ...]) -> Iterator[bytes]:
    """Packets that no proxy takes are dropped. Source: Linux, net/netfilter/xt_TPROXY.c."""
    for version in versions:
        known = ex.has_transparent_socket()
        yield ex.version_is(version) + _IS_TCP + known + ex.jump_to(DIVERT)
    for one in egress.ranges:
        proxied = ex.destination_in(one) + _IS_TCP
        give = ex.give_to_proxy(one.version, egress.port)
        yield proxied + give + ex.set_mark(MARK) + ex.accept()
        yield proxied + ex.drop()


def _take_back(container: Place, mark: str) -> None:
    """The table goes last: as long as it is there, it is known whose the routes are."""
    remove_proxy_routing(container)
    remove_table(container, NAME, mark)


def _undo(call: Call, container: Place) -> None:
    """Take back what a failed ADD did; whatever can't be taken back, DEL takes back."""
    try:
        _take_back(container, _mark(call))
    except (NetlinkError, OSError) as error:
        call.journal.warn(f"could not take back: {error}")


def _mark(call: Call) -> str:
    return render_mark(NAME, call.network, call.container_id, call.ifname)


PLUGIN = Plugin(
    NAME,
    {"ADD": add, "DEL": delete, "CHECK": check, "GC": collect, "STATUS": tell_status},
    log_file_variable=LOG_FILE,
    log_level_variable=LOG_LEVEL,
)
