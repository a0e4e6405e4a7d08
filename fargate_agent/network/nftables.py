"""Packet filter tables by nfnetlink: just what address translation for a subnet takes.

A table is made with its rules in one transaction, so one that exists is whole. pyroute2 can't be
used for that: it sends every object in a transaction of its own.

All functions block; those that change something are for threads. All numbers: Linux,
include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h.
"""

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from fargate_agent.network.blocking import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NetlinkError,
    ask,
    open_netlink,
    render_attribute,
    render_message,
)

NETLINK_NETFILTER: Final = 12
"""Source: Linux, include/uapi/linux/netlink.h; Python names it from 3.12 on."""
NFPROTO_IPV4: Final = 2
NFPROTO_IPV6: Final = 10

_SUBSYSTEM: Final = 10
_BATCH_BEGIN: Final = 0x10
_BATCH_END: Final = 0x11
_NEW_TABLE: Final = _SUBSYSTEM << 8
_GET_TABLE: Final = _NEW_TABLE | 1
_DELETE_TABLE: Final = _NEW_TABLE | 2
_NEW_CHAIN: Final = _NEW_TABLE | 3
_NEW_RULE: Final = _NEW_TABLE | 6

_TABLE_NAME: Final = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE = 1, 3, 4, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_ELEMENT: Final = 1
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_PAYLOAD_INTO, _PAYLOAD_BASE, _PAYLOAD_OFFSET, _PAYLOAD_SIZE = 1, 2, 3, 4
_BITWISE_FROM, _BITWISE_INTO, _BITWISE_SIZE, _BITWISE_MASK, _BITWISE_XOR = 1, 2, 3, 4, 5
_META_INTO, _META_KEY = 1, 2
_COMPARE_REGISTER, _COMPARE_OPERATION, _COMPARE_DATA = 1, 2, 3
_DATA_VALUE: Final = 1

_POST_ROUTING: Final = 4
_PRIORITY_SOURCE_NAT: Final = 100
_REGISTER: Final = 1
_NETWORK_HEADER: Final = 1
_EQUAL: Final = 0
_NOT_EQUAL: Final = 1
_OUT_INTERFACE_NAME: Final = 7
_NESTED: Final = 0x8000

_FAMILY_HEADER: Final = struct.Struct("!BBH")
_CHAIN: Final = "postrouting"

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    number: int
    source_offset: int
    destination_offset: int


_FAMILIES: Final = {
    4: _Family(number=NFPROTO_IPV4, source_offset=12, destination_offset=16),
    6: _Family(number=NFPROTO_IPV6, source_offset=8, destination_offset=24),
}


def table_exists(table: str, version: int) -> bool:
    """Whether there is a table of that name for that version of IP. Takes some 50 µs.

    Raises:
        NetlinkError: the kernel refused.
    """
    request = _message(
        _GET_TABLE, NLM_F_REQUEST | NLM_F_ACK, _FAMILIES[version], _text(_TABLE_NAME, table)
    )
    with open_netlink(None, NETLINK_NETFILTER) as link:
        try:
            ask(link, f"find packet filter table {table}", request)
        except NetlinkError as error:
            if error.code == errno.ENOENT:
                return False
            raise
    return True


def add_masquerade(table: str, subnet: Network, siblings: str) -> None:
    """Make a table that hides a subnet behind the host's addresses.

    But not from the subnet itself, nor from what lies beyond interfaces named `siblings…`.

    Raises:
        NetlinkError: the kernel refused.
    """
    family = _FAMILIES[subnet.version]
    create = NLM_F_REQUEST | NLM_F_CREATE
    chain = _text(_CHAIN_TABLE, table) + _text(_CHAIN_NAME, _CHAIN)
    hook = _number(_HOOK_NUMBER, _POST_ROUTING) + _number(_HOOK_PRIORITY, _PRIORITY_SOURCE_NAT)
    chain += _nested(_CHAIN_HOOK, hook) + _text(_CHAIN_TYPE, "nat")
    out_interface = _number(_META_INTO, _REGISTER) + _number(_META_KEY, _OUT_INTERFACE_NAME)
    rule = (
        _match_network(family.source_offset, _EQUAL, subnet)
        + _match_network(family.destination_offset, _NOT_EQUAL, subnet)
        + _expression("meta", out_interface)
        + _compare(_NOT_EQUAL, siblings.encode())
        + _expression("masq", b"")
    )
    _transact(
        f"add packet filter table {table}",
        _message(_NEW_TABLE, create, family, _text(_TABLE_NAME, table)),
        _message(_NEW_CHAIN, create, family, chain),
        _message(
            _NEW_RULE,
            create | NLM_F_ACK,
            family,
            _text(_RULE_TABLE, table)
            + _text(_RULE_CHAIN, _CHAIN)
            + _nested(_RULE_EXPRESSIONS, rule),
        ),
    )


def delete_tables(table: str) -> None:
    """Take the tables of that name away, for IPv4 and IPv6; missing ones are fine.

    Raises:
        NetlinkError: the kernel refused.
    """
    for version, family in _FAMILIES.items():
        if table_exists(table, version):
            _transact(
                f"remove packet filter table {table}",
                _message(
                    _DELETE_TABLE, NLM_F_REQUEST | NLM_F_ACK, family, _text(_TABLE_NAME, table)
                ),
            )


def read_tables() -> set[str]:
    """Return the names of all tables for IPv4 and IPv6.

    Raises:
        NetlinkError: the kernel refused.
    """
    names = set()
    for family in _FAMILIES.values():
        request = _message(_GET_TABLE, NLM_F_REQUEST | NLM_F_DUMP, family, b"")
        with open_netlink(None, NETLINK_NETFILTER) as link:
            for answer in ask(link, "list packet filter tables", request):
                names.add(_read_text(answer.payload[_FAMILY_HEADER.size :], _TABLE_NAME))
    return names


def _transact(what: str, *messages: bytes) -> None:
    batch = _FAMILY_HEADER.pack(socket.AF_UNSPEC, 0, _SUBSYSTEM)
    begin = render_message(_BATCH_BEGIN, NLM_F_REQUEST, batch)
    end = render_message(_BATCH_END, NLM_F_REQUEST, batch)
    with open_netlink(None, NETLINK_NETFILTER) as link:
        ask(link, what, b"".join([begin, *messages, end]))


def _message(kind: int, flags: int, family: _Family, attributes: bytes) -> bytes:
    return render_message(kind, flags, _FAMILY_HEADER.pack(family.number, 0, 0) + attributes)


def _match_network(offset: int, operation: int, network: Network) -> bytes:
    """Load an address of the packet, mask it, compare it."""
    size = network.max_prefixlen // 8
    payload = (
        _number(_PAYLOAD_INTO, _REGISTER)
        + _number(_PAYLOAD_BASE, _NETWORK_HEADER)
        + _number(_PAYLOAD_OFFSET, offset)
        + _number(_PAYLOAD_SIZE, size)
    )
    mask = (
        _number(_BITWISE_FROM, _REGISTER)
        + _number(_BITWISE_INTO, _REGISTER)
        + _number(_BITWISE_SIZE, size)
        + _data(_BITWISE_MASK, network.netmask.packed)
        + _data(_BITWISE_XOR, bytes(size))
    )
    return (
        _expression("payload", payload)
        + _expression("bitwise", mask)
        + _compare(operation, network.network_address.packed)
    )


def _compare(operation: int, value: bytes) -> bytes:
    register = _number(_COMPARE_REGISTER, _REGISTER)
    how = _number(_COMPARE_OPERATION, operation) + _data(_COMPARE_DATA, value)
    return _expression("cmp", register + how)


def _expression(name: str, data: bytes) -> bytes:
    return _nested(_ELEMENT, _text(_EXPRESSION_NAME, name) + _nested(_EXPRESSION_DATA, data))


def _data(kind: int, value: bytes) -> bytes:
    return _nested(kind, render_attribute(_DATA_VALUE, value))


def _nested(kind: int, attributes: bytes) -> bytes:
    return render_attribute(kind | _NESTED, attributes)


def _number(kind: int, value: int) -> bytes:
    return render_attribute(kind, struct.pack("!I", value))


def _text(kind: int, value: str) -> bytes:
    return render_attribute(kind, value.encode() + b"\0")


def _read_text(attributes: bytes, wanted: int) -> str:
    offset = 0
    while offset < len(attributes):
        size, kind = struct.unpack_from("=HH", attributes, offset)
        if kind == wanted:
            return attributes[offset + 4 : offset + size].rstrip(b"\0").decode()
        offset += (size + 3) & ~3
    return ""
