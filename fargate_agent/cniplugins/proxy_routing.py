"""Routes and rules of routing that lead what goes to services to a proxy.

The kernel notes by whom they were made, so they are found whatever the configuration says by now.
"""

import errno
import socket
import struct
from collections.abc import Collection
from ipaddress import ip_network
from typing import Final

from fargate_agent.cniplugins.errors import CniError
from fargate_agent.cniplugins.sandboxes import Place
from fargate_agent.cniplugins.service_connect_config import Egress
from fargate_agent.network.blocking import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    Answer,
    NetlinkError,
    Request,
    ask,
    read_attributes,
    render_attribute,
    render_message,
    require_each,
)
from fargate_agent.network.link_requests import (
    WantedRoute,
    get_link,
    list_routes,
    render_no_route,
    render_route,
)
from fargate_agent.network.rtnetlink import (
    DELETE_RULE,
    GET_RULE,
    NEW_RULE,
    NLM_F_EXCL,
    ROUTE,
    RULE_PRIORITY,
    RULE_TABLE,
    TABLE_MAIN,
)

PROTOCOL: Final = 0xED
"""By whom they were made. No routing daemon has this number. Source: iproute2,
etc/iproute2/rt_protos."""
MARK: Final = 1
"""Of packets that are the proxy's."""
TABLE: Final = 100
"""Where they look for a route. Source of both: amazon-vpc-cni-plugins, ecs-serviceconnect."""
PRIORITY: Final = 32_765
"""Before the main table. Source: Linux, net/ipv4/fib_rules.c, which has that at 32766."""
_LOCAL: Final = 2
_SCOPE_HOST, _SCOPE_UNIVERSE = 254, 0
_LOOK_UP: Final = 1
_RULE_MARK, _RULE_MASK, _RULE_PROTOCOL = 10, 16, 21
"""Source of the numbers above: Linux, include/uapi/linux/rtnetlink.h, fib_rules.h."""
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_EVERYWHERE: Final = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_GONE: Final = frozenset({errno.ESRCH, errno.ENOENT})
_NO_SUCH_IP: Final = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
_NUMBER: Final = struct.Struct("=I")


def make_proxy_routing(container: Place, egress: Egress, versions: Collection[int]) -> None:
    """Lead what has the mark to this machine itself, or what goes to services to the gateways.

    Raises:
        NetlinkError: the kernel refused; some may be there then.
    """
    if egress.gateways:
        routes = [_gateway_route(egress, version) for version in versions]
        requests = [
            Request(f"route to {one.to} by {one.gateway}", render_route(one)) for one in routes
        ]
    else:
        loopback = get_link(container.link, "lo").ifindex
        requests = [
            Request(
                "route by lo, which has to be up", render_route(_local_route(loopback, version))
            )
            for version in versions
        ]
        requests += [Request("make rule of routing", _render_rule(version)) for version in versions]
    require_each(container.link, requests)


def remove_proxy_routing(container: Place) -> None:
    """Remove what `make_proxy_routing` makes, whatever there is of it.

    Raises:
        NetlinkError: the kernel refused.
    """
    requests: list[Request] = []
    for version in _FAMILIES:
        try:
            rules, routes = _list_rules(container, version), list_routes(container.link, version)
        except NetlinkError as error:
            if error.code not in _NO_SUCH_IP:
                raise
            continue
        removals = [render_message(DELETE_RULE, NLM_F_REQUEST, rule.payload) for rule in rules]
        requests += [Request("remove rule of routing", one, _GONE) for one in removals]
        ours = [route for route in routes if route.protocol == PROTOCOL]
        requests += [
            Request(f"remove route to {one.to}", render_no_route(one), _GONE) for one in ours
        ]
    if requests:
        require_each(container.link, requests)


def check_proxy_routing(container: Place, egress: Egress, versions: Collection[int]) -> None:
    """See that what `make_proxy_routing` makes is there.

    Raises:
        CniError: something is missing.
        NetlinkError: the kernel refused.
    """
    for version in versions:
        wanted = _gateway_route(egress, version) if egress.gateways else _local_route(0, version)
        table = TABLE_MAIN if wanted.table is None else wanted.table
        if not any(
            (one.to, one.gateway, one.table, one.kind)
            == (wanted.to, wanted.gateway, table, wanted.kind)
            for one in list_routes(container.link, version)
        ):
            raise CniError(f"the container has no route to {wanted.to} in table {table}")
        if not egress.gateways and not any(map(_is_rule, _list_rules(container, version))):
            raise CniError(f"the container has no rule of routing for mark {MARK} of IPv{version}")


def _gateway_route(egress: Egress, version: int) -> WantedRoute:
    (to,) = (one for one in egress.ranges if one.version == version)
    (gateway,) = (one for one in egress.gateways if one.version == version)
    return WantedRoute(to, gateway=gateway, protocol=PROTOCOL)


def _local_route(loopback: int, version: int) -> WantedRoute:
    return WantedRoute(
        _EVERYWHERE[version],
        loopback,
        kind=_LOCAL,
        table=TABLE,
        scope=_SCOPE_HOST if version == 4 else _SCOPE_UNIVERSE,
        protocol=PROTOCOL,
    )


def _render_rule(version: int) -> bytes:
    head = ROUTE.pack(_FAMILIES[version], 0, 0, 0, 0, 0, 0, _LOOK_UP, 0)
    numbers = {
        RULE_PRIORITY: PRIORITY,
        _RULE_MARK: MARK,
        _RULE_MASK: 0xFFFF_FFFF,
        RULE_TABLE: TABLE,
    }
    attributes = b"".join(
        render_attribute(kind, _NUMBER.pack(value)) for kind, value in numbers.items()
    )
    protocol = render_attribute(_RULE_PROTOCOL, bytes([PROTOCOL]))
    flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL
    return render_message(NEW_RULE, flags, head + attributes + protocol)


def _list_rules(container: Place, version: int) -> list[Answer]:
    """Return those that were made here."""
    head = ROUTE.pack(_FAMILIES[version], 0, 0, 0, 0, 0, 0, 0, 0)
    request = render_message(GET_RULE, NLM_F_REQUEST | NLM_F_DUMP, head)
    return [
        answer
        for answer in ask(container.link, "list rules of routing", request)
        if _read(answer).get(_RULE_PROTOCOL) == bytes([PROTOCOL])
    ]


def _is_rule(answer: Answer) -> bool:
    found = _read(answer)
    return (found.get(_RULE_MARK), found.get(RULE_TABLE)) == (
        _NUMBER.pack(MARK),
        _NUMBER.pack(TABLE),
    )


def _read(answer: Answer) -> dict[int, bytes]:
    return read_attributes(answer.payload[ROUTE.size :])
