"""From the rules of a security group to those of the packet filter; pure.

A rule allows what all its parts match; each range and each group that it names makes a rule of the
packet filter of its own.
"""

from collections.abc import Iterator
from typing import Final

from fargate_agent.network.nft.expressions import (
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    in_network,
    load_destination,
    load_source,
    lookup,
    port_in,
    protocol_is,
    transport_byte_is,
    version_is,
)
from fargate_agent.plan.security_groups import GroupPlan, RulePlan
from fargate_agent.wire.security_groups import ALL_PROTOCOLS

VERSIONS: Final = (4, 6)

_NUMBERS: Final = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "icmpv6": ICMPV6}
_LAST_PORT: Final = 65535
_VERSION_OF: Final = {ICMP: 4, ICMPV6: 6}
"""Protocols that only one version of IP has."""


def members_name(group_id: str, version: int) -> str:
    """Name the set of the addresses of a group's members."""
    return f"members{version}_{group_id}"


def render_ingress(group: GroupPlan) -> Iterator[bytes]:
    """Yield what matches packets that a group lets in, one for each rule of the filter."""
    for rule in group.ingress:
        yield from _render(rule, is_ingress=True)


def render_egress(group: GroupPlan) -> Iterator[bytes]:
    """Yield what matches packets that a group lets out."""
    for rule in group.egress:
        yield from _render(rule, is_ingress=False)


def find_named(group: GroupPlan) -> frozenset[str]:
    """Return the groups that the rules of a group name."""
    return frozenset(name for rule in (*group.ingress, *group.egress) for name in rule.groups)


def _render(rule: RulePlan, *, is_ingress: bool) -> Iterator[bytes]:
    load = load_source if is_ingress else load_destination
    for version in VERSIONS:
        what = _match_protocol(rule, version)
        if what is None:
            continue
        of_version = version_is(version)
        for cidr in rule.cidrs:
            if cidr.version == version:
                where = load(version) + in_network(cidr) if cidr.prefixlen else b""
                yield of_version + where + what
        for group in rule.groups:
            where = load(version) + lookup(members_name(group, version))
            yield of_version + where + what


def _match_protocol(rule: RulePlan, version: int) -> bytes | None:
    """Match protocol and ports; None: packets of that version can't be meant.

    Source: EC2 API, IpPermission: with a protocol that has no ports, all of it is allowed.
    """
    if rule.protocol == ALL_PROTOCOLS:
        return b""
    protocol = _NUMBERS.get(rule.protocol)
    if protocol is None:
        protocol = int(rule.protocol)
    if _VERSION_OF.get(protocol, version) != version:
        return None
    matched = protocol_is(protocol)
    if protocol in {TCP, UDP}:
        first, last = max(rule.from_port, 0), rule.to_port
        if last < 0:
            last = _LAST_PORT
        return matched if (first, last) == (0, _LAST_PORT) else matched + port_in(first, last)
    if protocol in {ICMP, ICMPV6} and rule.from_port >= 0:
        matched += transport_byte_is(0, rule.from_port)
        if rule.to_port >= 0:
            matched += transport_byte_is(1, rule.to_port)
    return matched
