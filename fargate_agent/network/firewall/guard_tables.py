"""The tables of one ENI that the host doesn't route, in the network namespace of its task; pure.

The host sees nothing of such an ENI's packets: they go from the namespace to a NIC. So security
groups are enforced in the namespace, where containers lack the capability to change it: by an
`inet` table at its input and output. What a container writes to a packet socket passes neither; the
`netdev` table at the interface's egress drops all of that but ARP and neighbour discovery for the
ENI's own addresses, and whatever has a source that isn't the ENI's.

A packet of the task's own IP stack is told from a frame of a packet socket by its route: the latter
has none, so there is no realm to load. Source: Linux, net/netfilter/nft_meta.c,
`NFT_META_RTCLASSID`; net/core/dev.c, `__dev_queue_xmit`, which lets go of the route after the hook.

What neighbours send each other on that wire, such as forged ARP, isn't the agent's to prevent.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from fargate_agent.network.firewall.rules import (
    VERSIONS,
    find_named,
    members_name,
    render_egress,
    render_ingress,
)
from fargate_agent.network.firewall.table import LINK_LOCAL_V6, NOT_FORWARDED
from fargate_agent.network.nft.expressions import (
    ESTABLISHED,
    ICMPV6,
    PACKET_HOST,
    RELATED,
    accept,
    compare,
    destination_in,
    drop,
    from_interface,
    go_to,
    has_route,
    hop_limit_is,
    in_network,
    load_frame,
    load_source,
    mask,
    more_connections_than,
    packet_type_is,
    protocol_is,
    source_in,
    state_is,
    to_interface,
    transport_byte_is,
    version_is,
)
from fargate_agent.network.nft.objects import (
    EGRESS,
    EVAL,
    INPUT,
    OUTPUT,
    Table,
    addresses,
)
from fargate_agent.plan import EniPlan
from fargate_agent.plan.security_groups import GroupPlan

Address = IPv4Address | IPv6Address

_FILTER: Final = 0

_HEADER_BYTES: Final = 14
"""Of Ethernet: destination, source, type."""
_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
_GROUP_BIT: Final = b"\x01"
"""Of the first byte of a MAC that stands for several. Source: IEEE 802."""

_LISTENER_QUERY: Final = 130
_SOLICITATION, _ADVERTISEMENT = 135, 136
_LISTENER_REPORT: Final = 143
_NEIGHBOUR_HOPS: Final = 255
"""What has passed a router is no neighbour's. Source: RFC 4861, sections 4.3 and 4.4; types: RFC
2710 and RFC 3810."""

Members = Callable[[str], Iterable[Address]]


def render_guard(
    table: Table,
    eni: EniPlan,
    groups: Sequence[GroupPlan],
    members: Members,
    max_tracked_flows: int,
) -> Iterator[bytes]:
    """Yield what lets through what the groups of an ENI allow; `table` is there and empty."""
    for version in VERSIONS:
        yield table.set(f"flows{version}", addresses(version), EVAL)
    named = sorted({name for group in groups for name in find_named(group)})
    for name in named:
        for version in VERSIONS:
            yield table.set(members_name(name, version), addresses(version))
            keys = {one.packed for one in members(name) if one.version == version}
            if keys:
                yield table.add(members_name(name, version), sorted(keys))
    yield table.chain("to_task")
    yield table.chain("from_task")
    yield table.base_chain("input", INPUT, _FILTER)
    yield table.base_chain("output", OUTPUT, _FILTER)
    yield table.rule("input", from_interface(eni.ifname), go_to("to_task"))
    yield table.rule("output", to_interface(eni.ifname), go_to("from_task"))
    yield from _render_to_task(table, eni, groups)
    yield from _render_from_task(table, eni, groups, max_tracked_flows)


def _render_to_task(table: Table, eni: EniPlan, groups: Sequence[GroupPlan]) -> Iterator[bytes]:
    yield table.rule("to_task", state_is(ESTABLISHED | RELATED), accept())
    if eni.ipv6_address is not None:
        for kind in (_SOLICITATION, _ADVERTISEMENT):
            neighbour = hop_limit_is(_NEIGHBOUR_HOPS) + transport_byte_is(0, kind)
            yield table.rule("to_task", version_is(6), protocol_is(ICMPV6), neighbour, accept())
        yield table.rule(
            "to_task",
            source_in(LINK_LOCAL_V6),
            protocol_is(ICMPV6),
            transport_byte_is(0, _LISTENER_QUERY),
            accept(),
        )
    yield table.rule("to_task", packet_type_is(PACKET_HOST, equal=False), drop())
    for network in NOT_FORWARDED:
        yield table.rule("to_task", source_in(network), drop())
    for group in groups:
        for matched in render_ingress(group):
            yield table.rule("to_task", matched, accept())
    yield table.rule("to_task", drop())


def _render_from_task(
    table: Table, eni: EniPlan, groups: Sequence[GroupPlan], max_tracked_flows: int
) -> Iterator[bytes]:
    if eni.ipv6_address is not None:
        for kind in (_SOLICITATION, _ADVERTISEMENT, _LISTENER_REPORT):
            yield table.rule(
                "from_task",
                version_is(6),
                protocol_is(ICMPV6),
                transport_byte_is(0, kind),
                accept(),
            )
    for network in NOT_FORWARDED:
        yield table.rule("from_task", destination_in(network), drop())
    yield table.rule("from_task", state_is(ESTABLISHED | RELATED), accept())
    for version in VERSIONS:
        counted = more_connections_than(max_tracked_flows, f"flows{version}")
        yield table.rule("from_task", version_is(version), load_source(version) + counted, drop())
    if eni.security_groups is None:
        yield table.rule("from_task", accept())
    for group in groups:
        for matched in render_egress(group):
            yield table.rule("from_task", matched, accept())
    yield table.rule("from_task", drop())


def render_egress_guard(table: Table, eni: EniPlan, *, knows_routes: bool) -> Iterator[bytes]:
    """Yield what keeps frames that aren't the ENI's off its wire; `table` is of `NETDEV`.

    `knows_routes` says whether the kernel tells frames of packet sockets from others.
    """
    for chain in ("arp", "ipv4", "ipv6"):
        yield table.chain(chain)
    yield table.base_chain("egress", EGRESS, _FILTER, device=eni.ifname)
    mac = bytes.fromhex(eni.mac.replace(":", ""))
    yield table.rule("egress", load_frame(6, 6), compare(mac, equal=False), drop())
    for kind, chain in ((_ARP, "arp"), (_IPV4, "ipv4"), (_IPV6, "ipv6")):
        yield table.rule("egress", load_frame(12, 2), compare(kind), go_to(chain))
    yield table.rule("egress", drop())
    yield from _render_arp(table, eni, mac)
    yield from _render_ipv4(table, eni, knows_routes=knows_routes)
    if eni.ipv6_address is not None:
        yield from _render_ipv6(table, eni.ipv6_address.ip, mac, knows_routes=knows_routes)
    else:
        yield table.rule("ipv6", drop())


def _render_arp(table: Table, eni: EniPlan, mac: bytes) -> Iterator[bytes]:
    """Sender's MAC and address have to be its own. A probe has no address. Source: RFC 5227."""
    yield table.rule("arp", load_frame(_HEADER_BYTES + 8, 6), compare(mac, equal=False), drop())
    for sender in (eni.address.ip, IPv4Address(0)):
        yield table.rule("arp", load_frame(_HEADER_BYTES + 14, 4), compare(sender.packed), accept())
    yield table.rule("arp", drop())


def _render_ipv4(table: Table, eni: EniPlan, *, knows_routes: bool) -> Iterator[bytes]:
    yield table.rule("ipv4", load_frame(0, 1), mask(_GROUP_BIT), compare(_GROUP_BIT), drop())
    source = load_frame(_HEADER_BYTES + 12, 4)
    yield table.rule("ipv4", source, compare(eni.address.ip.packed, equal=False), drop())
    for network in NOT_FORWARDED:
        if isinstance(network, IPv4Network):
            where = load_frame(_HEADER_BYTES + 16, 4) + in_network(network)
            yield table.rule("ipv4", where, drop())
    yield table.rule("ipv4", has_route() if knows_routes else b"", accept())
    yield table.rule("ipv4", drop())


def _render_ipv6(
    table: Table, address: IPv6Address, mac: bytes, *, knows_routes: bool
) -> Iterator[bytes]:
    """Neighbour discovery goes out for its own addresses alone, whoever has written the frame."""
    kind = load_frame(_HEADER_BYTES + 6, 1) + compare(bytes([ICMPV6]))
    kind += load_frame(_HEADER_BYTES + 40, 1)
    own = (address, link_local_of(mac))
    for one in own:
        target = load_frame(_HEADER_BYTES + 48, 16) + compare(one.packed)
        yield table.rule("ipv6", kind + compare(bytes([_ADVERTISEMENT])) + target, accept())
    yield table.rule("ipv6", kind + compare(bytes([_ADVERTISEMENT])), drop())
    source = load_frame(_HEADER_BYTES + 8, 16)
    for one in (*own, IPv6Address(0)):
        for wanted in (_SOLICITATION, _LISTENER_REPORT):
            # A report has an option before it, so that its type stands 8 bytes later.
            yield table.rule("ipv6", source + compare(one.packed) + _neighbour(wanted), accept())
    multicast = load_frame(0, 1) + mask(_GROUP_BIT) + compare(_GROUP_BIT)
    yield table.rule("ipv6", multicast, drop())
    yield table.rule("ipv6", source + compare(address.packed, equal=False), drop())
    for network in NOT_FORWARDED:
        if isinstance(network, IPv6Network):
            where = load_frame(_HEADER_BYTES + 24, 16) + in_network(network)
            yield table.rule("ipv6", where, drop())
    yield table.rule("ipv6", has_route() if knows_routes else b"", accept())
    yield table.rule("ipv6", drop())


def _neighbour(kind: int) -> bytes:
    """Match a solicitation, or a report behind its hop-by-hop option. Source: RFC 3810, 5."""
    if kind == _LISTENER_REPORT:
        found = load_frame(_HEADER_BYTES + 6, 1) + compare(bytes([0]))
        found += load_frame(_HEADER_BYTES + 40, 1) + compare(bytes([ICMPV6]))
        return found + load_frame(_HEADER_BYTES + 48, 1) + compare(bytes([kind]))
    found = load_frame(_HEADER_BYTES + 6, 1) + compare(bytes([ICMPV6]))
    return found + load_frame(_HEADER_BYTES + 40, 1) + compare(bytes([kind]))


def link_local_of(mac: bytes) -> IPv6Address:
    """Return the link-local address that an interface makes of its MAC. Source: RFC 4291, A."""
    suffix = bytes([mac[0] ^ 2, *mac[1:3], 0xFF, 0xFE, *mac[3:]])
    return IPv6Address(b"\xfe\x80" + bytes(6) + suffix)
