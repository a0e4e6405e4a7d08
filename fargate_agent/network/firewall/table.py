"""The host's table of one agent: what its routed ENIs may send and receive; pure.

Its chains look only at packets of interfaces whose names begin as the agent's do, so other tables
and other agents are left alone. What an ENI is allowed is found by its address in a map, which
leads to the chain of its list of security groups. So an ENI costs a few elements, and nothing that
is done for a packet depends on how many there are.

The anti-spoofing is the host's routing table: it has one route for each address of an ENI, and a
packet that came in elsewhere is dropped.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from typing import Final

from fargate_agent.network.firewall.rules import (
    VERSIONS,
    members_name,
    render_egress,
    render_ingress,
)
from fargate_agent.network.names import AGENT_PREFIXES
from fargate_agent.network.nft.expressions import (
    ANYCAST,
    BROADCAST,
    ESTABLISHED,
    INVALID,
    MULTICAST,
    PACKET_HOST,
    RELATED,
    TCP,
    UDP,
    accept,
    destination_in,
    destination_type_is,
    drop,
    from_interface,
    from_interface_in,
    from_interfaces,
    go_to,
    is_translated,
    jump_to,
    load_destination,
    load_source,
    lookup,
    lookup_verdict,
    masquerade,
    more_connections_than,
    original_port_in,
    packet_type_is,
    port_in,
    protocol_is,
    return_,
    source_in,
    source_is_spoofed,
    state_is,
    to_interfaces,
    version_is,
)
from fargate_agent.network.nft.logged import REFUSED_IN, REFUSED_OUT, render_logged_drop
from fargate_agent.network.nft.objects import (
    EVAL,
    FORWARD,
    IFNAME,
    INPUT,
    INTERVAL,
    MAP,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    Table,
    addresses,
)
from fargate_agent.network.routes import ranges_of
from fargate_agent.plan import EniPlan
from fargate_agent.plan.security_groups import GroupPlan

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

NOT_FORWARDED: Final[tuple[Network, ...]] = (
    *(IPv4Network(text) for text in ("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")),
    *(IPv6Network(text) for text in ("fd00:ec2::/32", "fe80::/10", "ff00::/8")),
)
"""Where nothing of a task goes: this network, link-local addresses with AWS's services on them,
multicast, reserved ones. Source: RFC 6890; Amazon VPC user guide, "Link-local addresses"."""
LINK_LOCAL_V6: Final = IPv6Network("fe80::/10")

_BEFORE_CONNECTIONS: Final = -300
"""Priority `raw`: ahead of connection tracking. Source: nft(8)."""
_FILTER, _SOURCE_NAT = 0, 100
_PROTOCOLS: Final = {"tcp": TCP, "udp": UDP}


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallSettings:
    """What the agent's settings say of the filter."""

    host_ports: tuple[tuple[str, int, int], ...] = ()
    """Protocol, first and last port of the machine that tasks may reach."""
    host_reaches_tasks: bool = True
    max_tracked_flows: int = 16_384
    """Of one address of an ENI."""
    log_group: int | None = None
    """The group of the kernel's log that is told of packets that are refused; None: none is."""


@dataclass(frozen=True, slots=True, order=True)
class GroupList:
    """The security groups of an ENI, the ranges of its VPC, and whether it reaches others.

    ENIs that have all in common have one chain for each direction.
    """

    groups: tuple[str, ...] | None
    """Sorted ids; None: everything may go out, nothing may come in."""
    ranges: tuple[str, ...]
    nat: bool = True

    @property
    def key(self) -> str:
        """Return what names its chains."""
        everything = (self.groups, self.ranges, self.nat)
        return hashlib.sha256(repr(everything).encode()).hexdigest()[:16]


def list_groups(eni: EniPlan) -> GroupList:
    """Return what decides for an ENI."""
    groups = None if eni.security_groups is None else tuple(sorted(set(eni.security_groups)))
    return GroupList(groups, tuple(sorted(str(one) for one in ranges_of(eni))), eni.nat)


def render_table(table: Table, ours: str, settings: FirewallSettings) -> Iterator[bytes]:
    """Yield what makes the table without any ENI. `ours` begins the names of its interfaces."""
    for version in VERSIONS:
        yield table.set(f"uplinks{version}", IFNAME)
        key = addresses(version)
        yield table.set(f"ranges{version}", key, INTERVAL)
        yield table.set(f"flows{version}", key, EVAL)
        yield table.set(f"out{version}", key, MAP)
        yield table.set(f"in{version}", key, MAP)
    for chain in (
        "from_wire",
        "from_task",
        "to_task",
        "to_host",
        "from_uplink",
        "allowed_out",
        "refused",
        "refused_in",
        "published",
    ):
        yield table.chain(chain)
    yield table.base_chain("antispoof", PREROUTING, _BEFORE_CONNECTIONS)
    yield table.base_chain("input", INPUT, _FILTER)
    yield table.base_chain("forward", FORWARD, _FILTER)
    yield table.base_chain("postrouting", POSTROUTING, _SOURCE_NAT, kind="nat")
    yield from _render_antispoof(table, ours)
    yield from _render_host(table, ours, settings)
    yield from _render_forward(table, ours, settings)
    for version in VERSIONS:
        yield table.rule(
            "postrouting",
            version_is(version),
            load_source(version) + lookup(f"ranges{version}"),
            load_destination(version) + lookup(f"ranges{version}", inverted=True),
            to_interfaces(ours, equal=False),
            masquerade(),
        )


def _render_antispoof(table: Table, ours: str) -> Iterator[bytes]:
    """A LAN can't use an address of a VPC either; only the loopback needs no route."""
    yield table.rule("antispoof", from_interfaces(ours), go_to("from_wire"))
    yield table.rule("antispoof", from_interface("lo"), accept())
    for version in VERSIONS:
        yield table.rule(
            "antispoof",
            version_is(version),
            load_source(version) + lookup(f"ranges{version}"),
            source_is_spoofed(),
            drop(),
        )
    yield table.rule("from_wire", source_is_spoofed(), drop())
    yield table.rule("from_wire", source_in(LINK_LOCAL_V6), drop())
    yield table.rule("from_wire", packet_type_is(PACKET_HOST, equal=False), drop())
    for kind in (BROADCAST, ANYCAST, MULTICAST):
        yield table.rule("from_wire", destination_type_is(kind), drop())


def _render_host(table: Table, ours: str, settings: FirewallSettings) -> Iterator[bytes]:
    yield table.rule("input", from_interfaces(ours), go_to("to_host"))
    yield table.rule("to_host", state_is(ESTABLISHED | RELATED), accept())
    for protocol, first, last in settings.host_ports:
        allowed = protocol_is(_PROTOCOLS[protocol]) + port_in(first, last)
        yield table.rule("to_host", allowed, accept())
    yield table.rule("to_host", go_to("refused"))
    for chain, way in (("refused", REFUSED_OUT), ("refused_in", REFUSED_IN)):
        yield from render_logged_drop(table, chain, way, settings.log_group)
    if not settings.host_reaches_tasks:
        yield table.base_chain("output", OUTPUT, _FILTER)
        yield table.rule("output", to_interfaces(ours), state_is(ESTABLISHED | RELATED), accept())
        yield table.rule("output", to_interfaces(ours), go_to("refused_in"))


def _render_forward(table: Table, ours: str, settings: FirewallSettings) -> Iterator[bytes]:
    yield table.rule("forward", from_interfaces(ours), go_to("from_task"))
    yield table.rule("forward", to_interfaces(ours), go_to("to_task"))
    for version in VERSIONS:
        uplinks = from_interface_in(f"uplinks{version}")
        yield table.rule("forward", version_is(version), uplinks, go_to("from_uplink"))
    for prefix in AGENT_PREFIXES:  # the table of that agent decides
        yield table.rule("from_uplink", to_interfaces(prefix), accept())
    yield table.rule("from_uplink", drop())
    for network in NOT_FORWARDED:
        yield table.rule("from_task", destination_in(network), go_to("refused"))
    yield table.rule("from_task", state_is(ESTABLISHED | RELATED), accept())
    yield table.rule("from_task", state_is(INVALID), go_to("refused"))
    # What the host publishes by translation, as Docker does, is a service of the host.
    yield table.rule("from_task", is_translated(), jump_to("published"))
    for protocol, first, last in settings.host_ports:
        allowed = protocol_is(_PROTOCOLS[protocol]) + original_port_in(first, last)
        yield table.rule("published", allowed, return_())
    yield table.rule("published", go_to("refused"))
    for version in VERSIONS:
        source, most = load_source(version), settings.max_tracked_flows
        counted = source + more_connections_than(most, f"flows{version}")
        yield table.rule("from_task", version_is(version), counted, go_to("refused"))
    for version in VERSIONS:
        yield table.rule(
            "from_task",
            version_is(version),
            load_source(version) + lookup_verdict(f"out{version}"),
        )
    yield table.rule("from_task", go_to("refused"))
    yield table.rule("allowed_out", to_interfaces(ours), go_to("to_task"))
    yield table.rule("allowed_out", accept())
    yield table.rule("to_task", state_is(ESTABLISHED | RELATED), accept())
    yield table.rule("to_task", state_is(INVALID), go_to("refused_in"))
    yield table.rule("to_task", is_translated(), accept())
    for version in VERSIONS:
        yield table.rule(
            "to_task",
            version_is(version),
            load_destination(version) + lookup_verdict(f"in{version}"),
        )
    yield table.rule("to_task", go_to("refused_in"))


def render_group(table: Table, group_id: str) -> Iterator[bytes]:
    """Yield what makes the chains and sets of a security group, empty, unless they are there."""
    for version in VERSIONS:
        yield table.set(members_name(group_id, version), addresses(version))
    yield table.chain(f"in_{group_id}")
    yield table.chain(f"out_{group_id}")


def render_group_rules(table: Table, group: GroupPlan) -> Iterator[bytes]:
    """Yield what puts the rules of a group in the place of those it had.

    The groups that its rules name must be there.
    """
    yield table.flush(f"in_{group.id}")
    yield table.flush(f"out_{group.id}")
    for matched in render_ingress(group):
        yield table.rule(f"in_{group.id}", matched, accept())
    for matched in render_egress(group):
        yield table.rule(f"out_{group.id}", matched, go_to("allowed_out"))


def render_list(table: Table, groups: GroupList, ours: str) -> Iterator[bytes]:
    """Yield what makes the chains of a list of groups; they must not be there."""
    incoming, outgoing = f"i_{groups.key}", f"o_{groups.key}"
    vpc = f"vpc_{groups.key}"
    for chain in (incoming, outgoing, vpc):
        yield table.chain(chain)
    # An ENI of another VPC is not reached, whatever the rules say: VPCs are apart.
    networks = [IPv6Network(one) if ":" in one else IPv4Network(one) for one in groups.ranges]
    for network in networks:
        yield table.rule(vpc, destination_in(network), return_())
    yield table.rule(vpc, to_interfaces(ours), go_to("refused"))
    if not groups.nat:
        yield from _render_private(table, groups, networks)
    yield table.rule(outgoing, jump_to(vpc))
    if groups.groups is None:
        yield table.rule(outgoing, go_to("allowed_out"))
    for group_id in groups.groups or ():
        yield table.rule(incoming, jump_to(f"in_{group_id}"))
        yield table.rule(outgoing, jump_to(f"out_{group_id}"))
    yield table.rule(incoming, go_to("refused_in"))
    yield table.rule(outgoing, go_to("refused"))


def _render_private(
    table: Table, groups: GroupList, networks: Iterable[Network]
) -> Iterator[bytes]:
    """What is outside of the VPC is not reached, and reaches nothing, as without a route to it.

    What the host publishes by translation is a service of the host: it has passed `published`.
    Source: Amazon VPC user guide, "Route tables": what no route matches is dropped.
    """
    yield table.rule(f"vpc_{groups.key}", is_translated(), return_())
    yield table.rule(f"vpc_{groups.key}", go_to("refused"))
    source = f"src_{groups.key}"
    yield table.chain(source)
    for network in networks:
        yield table.rule(source, source_in(network), return_())
    yield table.rule(source, go_to("refused_in"))
    yield table.rule(f"i_{groups.key}", jump_to(source))


def render_ranges(table: Table, networks: Iterable[Network]) -> Iterator[bytes]:
    """Yield what makes the ranges of all VPCs known, in the place of those before."""
    everything = tuple(networks)
    for version in VERSIONS:
        yield table.flush_set(f"ranges{version}")
        of_version = [one for one in everything if one.version == version]
        if not of_version:
            continue
        # mypy doesn't know that these are all of one version.
        merged = collapse_addresses(of_version)  # type: ignore[type-var]
        ranges = [(one.network_address.packed, _behind(one)) for one in merged]
        yield table.add_ranges(f"ranges{version}", ranges)


def render_uplinks(table: Table, uplinks: Mapping[int, Iterable[str]]) -> Iterator[bytes]:
    """Yield what makes known which interfaces forward because the agent has made them.

    They are given for both versions of IP: the host may be somebody's router for one of them.
    """
    for version, names in uplinks.items():
        yield table.flush_set(f"uplinks{version}")
        if keys := [name.encode().ljust(16, b"\0") for name in sorted(names)]:
            yield table.add(f"uplinks{version}", keys)


def render_address(table: Table, address: Address, groups: GroupList) -> Iterator[bytes]:
    """Yield what puts an address of an ENI, which has no elements, under its list of groups."""
    key = address.packed
    yield table.add_goto(f"out{address.version}", key, f"o_{groups.key}")
    yield table.add_goto(f"in{address.version}", key, f"i_{groups.key}")


def render_eni(table: Table, addresses: Iterable[Address], groups: GroupList) -> Iterator[bytes]:
    """Yield what puts the addresses of an ENI under its list of groups, and into the groups."""
    for address in addresses:
        yield from render_address(table, address, groups)
        for group_id in groups.groups or ():
            yield table.add(members_name(group_id, address.version), [address.packed])


def remove_address(table: Table, address: Address) -> Iterator[bytes]:
    """Yield what lets an address have nothing any more."""
    yield table.remove_elements(f"out{address.version}", [address.packed])
    yield table.remove_elements(f"in{address.version}", [address.packed])


def _behind(network: Network) -> bytes | None:
    """Return the first address behind a network; None at the end of all addresses."""
    last = int(network.broadcast_address)
    if last + 1 == 1 << network.max_prefixlen:
        return None
    return (last + 1).to_bytes(network.max_prefixlen // 8)
