"""What rules are made of: each function returns expressions, and a rule is their sum.

Register 1 holds what was loaded last. A rule ends at the first comparison that fails.
"""

import struct
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from fargate_agent.network.blocking import render_attribute
from fargate_agent.network.nft import attributes
from fargate_agent.network.nft.attributes import nested, number, text, value

Network = IPv4Network | IPv6Network

NFPROTO_IPV4, NFPROTO_IPV6 = 2, 10
ESTABLISHED, RELATED, INVALID = 2, 4, 1
"""States of a connection as `nft` loads them. Source: Linux,
include/uapi/linux/netfilter/nf_conntrack_common.h, `NF_CT_STATE_BIT`."""
BROADCAST, ANYCAST, MULTICAST, LOCAL = 3, 4, 5, 2
"""Types of addresses. Source: Linux, include/uapi/linux/rtnetlink.h, `RTN_…`."""
PACKET_HOST: Final = 0
"""A frame for this machine. Source: Linux, include/uapi/linux/if_packet.h."""
IFNAME_BYTES: Final = 16
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58

_ELEMENT: Final = 1
_NAME, _DATA = 1, 2
_REGISTER: Final = 1
_VERDICT_REGISTER: Final = 0

_EQ, _NEQ = 0, 1
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
_META_IIFNAME, _META_OIFNAME, _META_NFPROTO, _META_L4PROTO, _META_PKTTYPE = 6, 7, 15, 16, 19
_META_MARK, _META_SKUID, _META_SKGID, _META_RTCLASSID = 3, 10, 11, 13
_CT_STATE, _CT_STATUS, _CT_PROTO_DST = 0, 2, 12
_DIRECTION_ORIGINAL: Final = 0
_STATUS_DNAT: Final = 1 << 5
_FIB_OIF, _FIB_ADDRTYPE = 1, 3
_FIB_SADDR, _FIB_DADDR, _FIB_IIF = 1, 2, 8
_SOCKET_TRANSPARENT: Final = 0
_NAT_TO_PORT: Final = 2
"""Source: Linux, include/uapi/linux/netfilter/nf_nat.h, `NF_NAT_RANGE_PROTO_SPECIFIED`."""
_DYNSET_ADD: Final = 0
_INVERT: Final = 1

_ADDRESSES: Final = {4: (12, 16, 4), 6: (8, 24, 16)}
"""Where source and destination stand in the header, and how long they are."""


def expression(name: str, data: bytes = b"") -> bytes:
    """Render one expression."""
    return nested(_ELEMENT, text(_NAME, name) + nested(_DATA, data))


def meta(key: int) -> bytes:
    """Load what the kernel knows of a packet."""
    return expression("meta", number(1, _REGISTER) + number(2, key))


def payload(base: int, offset: int, size: int, register: int = _REGISTER) -> bytes:
    """Load bytes of a packet."""
    return expression(
        "payload", number(1, register) + number(2, base) + number(3, offset) + number(4, size)
    )


def compare(data: bytes, *, equal: bool = True) -> bytes:
    """Go on if the register is, or isn't, that; only its first bytes count."""
    how = number(2, _EQ if equal else _NEQ)
    return expression("cmp", number(1, _REGISTER) + how + value(3, data))


def mask(bits: bytes) -> bytes:
    """Keep only those bits of the register."""
    registers = number(1, _REGISTER) + number(2, _REGISTER)
    return expression(
        "bitwise",
        registers + number(3, len(bits)) + value(4, bits) + value(5, bytes(len(bits))),
    )


def within(first: bytes, last: bytes) -> bytes:
    """Go on if the register is between two values, or one of them."""
    return expression(
        "range", number(1, _REGISTER) + number(2, _EQ) + value(3, first) + value(4, last)
    )


def from_interfaces(prefix: str) -> bytes:
    """Go on if a packet came in by an interface whose name begins so."""
    return meta(_META_IIFNAME) + compare(prefix.encode())


def to_interfaces(prefix: str, *, equal: bool = True) -> bytes:
    """Go on if a packet leaves, or doesn't, by an interface whose name begins so."""
    return meta(_META_OIFNAME) + compare(prefix.encode(), equal=equal)


def from_interface(name: str) -> bytes:
    """Go on if a packet came in by the interface of that name."""
    return meta(_META_IIFNAME) + compare(name.encode().ljust(IFNAME_BYTES, b"\0"))


def to_interface(name: str) -> bytes:
    """Go on if a packet leaves by the interface of that name."""
    return meta(_META_OIFNAME) + compare(name.encode().ljust(IFNAME_BYTES, b"\0"))


def from_interface_in(interfaces: str) -> bytes:
    """Go on if a packet came in by an interface whose name is in the set."""
    return meta(_META_IIFNAME) + lookup(interfaces)


def version_is(version: int) -> bytes:
    """Go on if a packet is of IP version 4 or 6."""
    return meta(_META_NFPROTO) + compare(bytes([NFPROTO_IPV4 if version == 4 else NFPROTO_IPV6]))


def protocol_is(protocol: int, *, equal: bool = True) -> bytes:
    """Go on if a packet has that transport protocol."""
    return meta(_META_L4PROTO) + compare(bytes([protocol]), equal=equal)


def port_in(first: int, last: int) -> bytes:
    """Go on if the destination port of TCP or UDP is between two, or one of them."""
    load = payload(_TRANSPORT, 2, 2)
    if first == last:
        return load + compare(struct.pack("!H", first))
    return load + within(struct.pack("!H", first), struct.pack("!H", last))


def transport_byte_is(offset: int, number_: int) -> bytes:
    """Go on if a byte of the transport header is that, e.g. type (0) or code (1) of ICMP."""
    return payload(_TRANSPORT, offset, 1) + compare(bytes([number_]))


def load_source(version: int) -> bytes:
    """Load the source address; the packet has to be of that version."""
    source, _, size = _ADDRESSES[version]
    return payload(_NETWORK, source, size)


def load_destination(version: int) -> bytes:
    """Load the destination address; the packet has to be of that version."""
    _, destination, size = _ADDRESSES[version]
    return payload(_NETWORK, destination, size)


def load_frame(offset: int, size: int) -> bytes:
    """Load bytes of an Ethernet frame, from its beginning on."""
    return payload(_LINK, offset, size)


def hop_limit_is(hops: int) -> bytes:
    """Go on if a packet of IPv6 may pass so many routers more."""
    return payload(_NETWORK, 7, 1) + compare(bytes([hops]))


def has_route() -> bytes:
    """Go on if a packet was routed by this machine; a frame of a packet socket wasn't."""
    return meta(_META_RTCLASSID) + within(bytes(4), b"\xff" * 4)


def in_network(network: Network, *, equal: bool = True) -> bytes:
    """Go on if the address in the register is, or isn't, in a network."""
    if network.prefixlen == 0 and equal:
        return b""
    bits = network.netmask.packed
    narrow = b"" if network.prefixlen == network.max_prefixlen else mask(bits)
    return narrow + compare(network.network_address.packed, equal=equal)


def source_in(network: Network) -> bytes:
    """Go on if a packet comes from a network."""
    return version_is(network.version) + load_source(network.version) + in_network(network)


def destination_in(network: Network) -> bytes:
    """Go on if a packet goes to a network."""
    return version_is(network.version) + load_destination(network.version) + in_network(network)


def lookup(name: str, *, inverted: bool = False) -> bytes:
    """Go on if the register is, or isn't, in a set of the table."""
    flags = number(5, _INVERT) if inverted else b""
    return expression("lookup", text(1, name) + number(2, _REGISTER) + flags)


def lookup_verdict(name: str) -> bytes:
    """Do what a map of the table says about the register, if it says something."""
    return expression("lookup", text(1, name) + number(2, _REGISTER) + number(3, 0))


def state_is(states: int) -> bytes:
    """Go on if the connection of a packet is in one of these states."""
    load = expression("ct", number(1, _REGISTER) + number(2, _CT_STATE))
    return load + mask(struct.pack("=I", states)) + compare(bytes(4), equal=False)


def is_translated() -> bytes:
    """Go on if the destination of a connection was translated."""
    load = expression("ct", number(1, _REGISTER) + number(2, _CT_STATUS))
    return load + mask(struct.pack("=I", _STATUS_DNAT)) + compare(bytes(4), equal=False)


def original_port_in(first: int, last: int) -> bytes:
    """Go on if a connection was made to one of these ports, before it was translated."""
    load = expression(
        "ct",
        number(1, _REGISTER)
        + number(2, _CT_PROTO_DST)
        + render_attribute(3, bytes([_DIRECTION_ORIGINAL])),
    )
    return load + within(struct.pack("!H", first), struct.pack("!H", last))


def source_is_spoofed() -> bytes:
    """Go on if no route of this machine leads back to the source by the interface it came in."""
    load = expression(
        "fib", number(1, _REGISTER) + number(2, _FIB_OIF) + number(3, _FIB_SADDR | _FIB_IIF)
    )
    return load + compare(bytes(4))


def destination_type_is(kind: int, *, equal: bool = True) -> bytes:
    """Go on if the destination is, or isn't, of a type such as `BROADCAST`."""
    load = expression(
        "fib", number(1, _REGISTER) + number(2, _FIB_ADDRTYPE) + number(3, _FIB_DADDR)
    )
    return load + compare(struct.pack("=I", kind), equal=equal)


def source_type_is(kind: int, *, equal: bool = True) -> bytes:
    """Go on if the source is, or isn't, of a type such as `LOCAL`."""
    load = expression(
        "fib", number(1, _REGISTER) + number(2, _FIB_ADDRTYPE) + number(3, _FIB_SADDR)
    )
    return load + compare(struct.pack("=I", kind), equal=equal)


def sent_by_user(uid: int) -> bytes:
    """Go on if a packet was sent by a process of that user."""
    return meta(_META_SKUID) + compare(struct.pack("=I", uid))


def sent_by_group(gid: int) -> bytes:
    """Go on if a packet was sent by a process of that group."""
    return meta(_META_SKGID) + compare(struct.pack("=I", gid))


def has_transparent_socket() -> bytes:
    """Go on if a packet is for a socket that may have addresses which aren't this machine's."""
    return expression("socket", number(1, _SOCKET_TRANSPARENT) + number(2, _REGISTER)) + compare(
        b"\x01"
    )


def packet_type_is(kind: int, *, equal: bool = True) -> bytes:
    """Go on if a frame is, or isn't, of a type such as `PACKET_HOST`."""
    return meta(_META_PKTTYPE) + compare(bytes([kind]), equal=equal)


def more_connections_than(count: int, counts: str) -> bytes:
    """Go on if the register's value has more connections than that; the set keeps them."""
    limit = nested(7, text(_NAME, "connlimit") + nested(_DATA, number(1, count) + number(2, 1)))
    return expression(
        "dynset", text(1, counts) + number(3, _DYNSET_ADD) + number(4, _REGISTER) + limit
    )


def accept() -> bytes:
    """Let a packet pass this chain's hook."""
    return _immediate(attributes.verdict(2, attributes.ACCEPT))


def drop() -> bytes:
    """Drop a packet."""
    return _immediate(attributes.verdict(2, attributes.DROP))


def return_() -> bytes:
    """Go back to the chain that jumped here."""
    return _immediate(attributes.verdict(2, attributes.RETURN))


def go_to(chain: str) -> bytes:
    """Go on in another chain, and don't come back."""
    return _immediate(attributes.go_to(2, chain))


def jump_to(chain: str) -> bytes:
    """Go on in another chain, and come back if it decides nothing."""
    return _immediate(attributes.jump_to(2, chain))


def masquerade() -> bytes:
    """Give a connection the host's address as its source."""
    return expression("masq")


def redirect_to(port: int) -> bytes:
    """Have a connection be made to a port of this machine instead; one of TCP or UDP."""
    registers = number(1, _REGISTER) + number(2, _REGISTER)
    return _load(struct.pack("!H", port)) + expression("redir", registers + number(3, _NAT_TO_PORT))


def give_to_proxy(version: int, port: int) -> bytes:
    """Give a packet to the transparent socket that listens on a port; go on if there is one.

    The packet keeps its destination. One of TCP or UDP.
    """
    family = NFPROTO_IPV4 if version == 4 else NFPROTO_IPV6
    return _load(struct.pack("!H", port)) + expression(
        "tproxy", number(1, family) + number(3, _REGISTER)
    )


def set_mark(mark: int) -> bytes:
    """Give a packet a mark, which rules of routing can ask for."""
    return _load(struct.pack("=I", mark)) + expression(
        "meta", number(2, _META_MARK) + number(3, _REGISTER)
    )


def _load(data: bytes) -> bytes:
    return expression("immediate", number(1, _REGISTER) + value(2, data))


def _immediate(data: bytes) -> bytes:
    return expression("immediate", number(1, _VERDICT_REGISTER) + data)
