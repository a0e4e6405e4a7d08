"""Where answers leave a task that has several ENIs: by the one that was asked.

Only the first ENI has the default route. What has the address of another one as its source would
leave by the first, whose wire carries no such source. So each further ENI has a table of routes of
its own, and a rule that has what comes from its addresses look there, as Amazon's own images do it.
Source: Amazon EC2 user guide, "Configure your Amazon EC2 instance for secondary network
interfaces".
"""

import errno
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fargate_agent.network.blocking import (
    NLM_F_CREATE,
    NLM_F_REQUEST,
    Request,
    open_netlink,
    render_attribute,
    render_message,
    require_each,
)
from fargate_agent.network.namespaces import inside
from fargate_agent.network.rtnetlink import (
    NLM_F_EXCL,
    Address,
    Interface,
    render_default_route,
    render_network_route,
)
from fargate_agent.network.sysctl import ROOT
from fargate_agent.plan import EniPlan

FIRST_TABLE: Final = 10_000
"""The number of an ENI's table is the number of its interface more; that of its rule is the same.
Source: amazon-ec2-net-utils, which counts from there, too."""

_NEW_RULE: Final = 32
"""Source: Linux, include/uapi/linux/rtnetlink.h."""
_RULE: Final = struct.Struct("=BBBBBBBBI")
_SOURCE, _PRIORITY, _TABLE = 2, 6, 15
_TO_TABLE: Final = 1
"""Source: Linux, include/uapi/linux/fib_rules.h: `struct fib_rule_hdr`, `FRA_…`, `FR_ACT_…`."""
_THERE: Final = frozenset({errno.EEXIST})
_ARP_SETTINGS: Final = {"arp_ignore": "1", "arp_announce": "2"}
"""An interface answers only for its own addresses, and asks with them. Source: Linux,
Documentation/networking/ip-sysctl.rst."""


def render_answers(index: int, eni: EniPlan) -> Iterator[Request]:
    """Yield what has answers leave by an ENI; of the first one, that is nothing."""
    if eni.primary:
        return
    table = FIRST_TABLE + int("".join(one for one in eni.ifname if one.isdecimal()) or 0)
    ways: list[tuple[Interface | None, Address | None]] = [
        (eni.address, eni.gateway),
        (eni.ipv6_address, eni.ipv6_gateway),
    ]
    for address, gateway in ways:
        if address is None:
            continue
        what = f"route answers from {address.ip}"
        yield Request(what, render_network_route(index, address.network, table))
        if gateway is not None:
            yield Request(what, render_default_route(index, gateway, table))
        yield Request(what, _render_rule(address.ip, table), _THERE)


def route_answers(netns: Path, index: int, eni: EniPlan) -> None:
    """Have answers leave by an ENI whose interface is up, on a wire where others ask by ARP.

    Blocks, for less than a millisecond.

    Raises:
        NetlinkError, OSError: the kernel refused.
    """
    requests = list(render_answers(index, eni))
    if not requests:
        return
    with inside(netns):
        for name, value in _ARP_SETTINGS.items():
            (ROOT / "ipv4/conf/all" / name).write_text(value, encoding="ascii")
    with open_netlink(netns, socket.NETLINK_ROUTE) as task:
        require_each(task, requests)


def _render_rule(source: Address, table: int) -> bytes:
    family = socket.AF_INET if source.version == 4 else socket.AF_INET6
    head = _RULE.pack(family, 0, source.max_prefixlen, 0, 0, 0, 0, _TO_TABLE, 0)
    attributes = render_attribute(_SOURCE, source.packed)
    for kind in (_PRIORITY, _TABLE):
        attributes += render_attribute(kind, struct.pack("=I", table))
    flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL
    return render_message(_NEW_RULE, flags, head + attributes)
