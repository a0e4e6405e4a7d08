"""Expressions of rules that lead connections of one namespace to a proxy in it.

All numbers: Linux, include/uapi/linux/netfilter/nf_tables.h.
"""

import struct
from typing import Final

from fargate_agent.network.nft.attributes import number, value
from fargate_agent.network.nft.expressions import (
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    compare,
    expression,
    meta,
)

_REGISTER: Final = 1
_META_MARK, _META_SKUID, _META_SKGID = 3, 10, 11
_META_SOURCE_REGISTER: Final = 3
_FIB_ADDRTYPE, _FIB_SADDR = 3, 1
_SOCKET_WILDCARD: Final = 2


def source_type_is(kind: int, *, equal: bool = True) -> bytes:
    """Go on if the source is, or isn't, of a type such as `LOCAL`."""
    load = expression(
        "fib", number(1, _REGISTER) + number(2, _FIB_ADDRTYPE) + number(3, _FIB_SADDR)
    )
    return load + compare(struct.pack("=I", kind), equal=equal)


def sender_is(uid: int) -> bytes:
    """Go on if a process of that user sends a packet."""
    return meta(_META_SKUID) + compare(struct.pack("=I", uid))


def sender_group_is(gid: int) -> bytes:
    """Go on if a process of that group sends a packet."""
    return meta(_META_SKGID) + compare(struct.pack("=I", gid))


def redirect_to(port: int) -> bytes:
    """Give a connection a port of this namespace as its destination."""
    return _load_port(port) + expression("redir", number(1, _REGISTER))


def has_socket() -> bytes:
    """Go on if a socket is bound to the very address that a packet goes to, or connected."""
    load = expression("socket", number(1, _SOCKET_WILDCARD) + number(2, _REGISTER))
    return load + compare(b"\0")


def hand_to(version: int, port: int) -> bytes:
    """Give a packet to a transparent proxy that listens to a port; its destination stays."""
    family = NFPROTO_IPV4 if version == 4 else NFPROTO_IPV6
    return _load_port(port) + expression("tproxy", number(1, family) + number(3, _REGISTER))


def mark_with(mark: int) -> bytes:
    """Mark a packet, for rules of routing."""
    load = expression("immediate", number(1, _REGISTER) + value(2, struct.pack("=I", mark)))
    return load + expression(
        "meta", number(2, _META_MARK) + number(_META_SOURCE_REGISTER, _REGISTER)
    )


def _load_port(port: int) -> bytes:
    return expression("immediate", number(1, _REGISTER) + value(2, struct.pack("!H", port)))
