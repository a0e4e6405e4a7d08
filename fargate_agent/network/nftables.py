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

_POST_ROUTING: Final = 4
_PRIORITY_SOURCE_NAT: Final = 100
_REGISTER: Final = 1
_NETWORK_HEADER: Final = 1
_EQUAL: Final = 0
_NOT_EQUAL: Final = 1
_OUT_INTERFACE_NAME: Final = 7
_NESTED: Final = 0x8000

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
    request = _message(_GET_TABLE, NLM_F_REQUEST | NLM_F_ACK, _FAMILIES[version], _text(1, table))
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
    chain = _text(1, table) + _text(3, "postrouting")
    hook = _nested(4, _number(1, _POST_ROUTING) + _number(2, _PRIORITY_SOURCE_NAT))
    rule = (
        _match_network(family.source_offset, _EQUAL, subnet)
        + _match_network(family.destination_offset, _NOT_EQUAL, subnet)
        + _expression("meta", _number(1, _REGISTER) + _number(2, _OUT_INTERFACE_NAME))
        + _compare(_NOT_EQUAL, siblings.encode())
        + _expression("masq", b"")
    )
    _transact(
        f"add packet filter table {table}",
        _message(_NEW_TABLE, create, family, _text(1, table)),
        _message(_NEW_CHAIN, create, family, chain + hook + _text(7, "nat")),
        _message(
            _NEW_RULE,
            create | NLM_F_ACK,
            family,
            _text(1, table) + _text(2, "postrouting") + _nested(4, rule),
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
                _message(_DELETE_TABLE, NLM_F_REQUEST | NLM_F_ACK, family, _text(1, table)),
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
                names.add(_read_text(answer.payload[4:], 1))
    return names


def _transact(what: str, *messages: bytes) -> None:
    batch = struct.pack("!BBH", socket.AF_UNSPEC, 0, _SUBSYSTEM)
    begin = render_message(_BATCH_BEGIN, NLM_F_REQUEST, batch)
    end = render_message(_BATCH_END, NLM_F_REQUEST, batch)
    with open_netlink(None, NETLINK_NETFILTER) as link:
        ask(link, what, b"".join([begin, *messages, end]))


def _message(kind: int, flags: int, family: _Family, attributes: bytes) -> bytes:
    return render_message(kind, flags, struct.pack("!BBH", family.number, 0, 0) + attributes)


def _match_network(offset: int, operation: int, network: Network) -> bytes:
    size = network.max_prefixlen // 8
    load = _number(1, _REGISTER) + _number(2, _NETWORK_HEADER)
    mask = _number(1, _REGISTER) + _number(2, _REGISTER) + _number(3, size)
    mask += _nested(4, _attribute(1, network.netmask.packed)) + _nested(
        5, _attribute(1, bytes(size))
    )
    return (
        _expression("payload", load + _number(3, offset) + _number(4, size))
        + _expression("bitwise", mask)
        + _compare(operation, network.network_address.packed)
    )


def _compare(operation: int, value: bytes) -> bytes:
    return _expression(
        "cmp",
        _number(1, _REGISTER) + _number(2, operation) + _nested(3, _attribute(1, value)),
    )


def _expression(name: str, data: bytes) -> bytes:
    return _nested(1, _text(1, name) + _nested(2, data))


def _nested(kind: int, attributes: bytes) -> bytes:
    return _attribute(kind | _NESTED, attributes)


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("!I", value))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def _read_text(attributes: bytes, wanted: int) -> str:
    offset = 0
    while offset < len(attributes):
        size, kind = struct.unpack_from("=HH", attributes, offset)
        if kind == wanted:
            return attributes[offset + 4 : offset + size].rstrip(b"\0").decode()
        offset += (size + 3) & ~3
    return ""
