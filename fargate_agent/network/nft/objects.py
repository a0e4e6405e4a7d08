"""Messages about tables, chains, rules, sets and their elements."""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from fargate_agent.network.blocking import (
    NLM_F_CREATE,
    NLM_F_REQUEST,
    render_attribute,
    render_message,
)
from fargate_agent.network.nft.attributes import go_to, nested, number, text, value

SUBSYSTEM: Final = 10
"""Source: Linux, include/uapi/linux/netfilter/nfnetlink.h, `NFNL_SUBSYS_NFTABLES`."""

INET: Final = 1
NETDEV: Final = 5
"""Families. Source: Linux, include/uapi/linux/netfilter.h, `NFPROTO_…`."""

PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = 0, 1, 2, 3, 4
"""Hooks of `INET`. Source: the same."""
EGRESS: Final = 1
"""Hook of `NETDEV`. Source: the same, `NF_NETDEV_EGRESS`."""

OWNER: Final = 2
PERSIST: Final = 4
"""Flags of tables: nobody else may change it; it stays when its owner has gone (Linux 6.9)."""

NEW_TABLE, GET_TABLE, DEL_TABLE = 0, 1, 2
NEW_CHAIN, GET_CHAIN, DEL_CHAIN = 3, 4, 5
NEW_RULE, GET_RULE, DEL_RULE = 6, 7, 8
NEW_SET = 9
NEW_ELEMENT, DEL_ELEMENT = 12, 14

INTERVAL, MAP, EVAL = 4, 8, 0x20
VERDICT: Final = 0xFFFFFF00
"""Type of the values of a map that says what is done."""
INTERVAL_END: Final = 1

USERDATA: Final = 6
"""Attribute of a table that the kernel only keeps."""

_EXCLUSIVE, _APPEND = 0x200, 0x800
"""Source: Linux, include/uapi/linux/netlink.h, `NLM_F_EXCL`, `NLM_F_APPEND`."""
_HOST_ENDIAN: Final = struct.pack("=BBI", 0, 4, 1)
"""What tells `nft` that names of interfaces are no big numbers. Source: libnftnl,
include/libnftnl/udata.h, `NFTNL_UDATA_SET_KEYBYTEORDER`."""
_FAMILY_HEADER: Final = struct.Struct("!BBH")


class Key(NamedTuple):
    """What the elements of a set are."""

    type: int
    """As `nft` numbers them, so that it can show them."""
    size: int
    """Bytes."""


IPV4 = Key(7, 4)
IPV6 = Key(8, 16)
IFNAME = Key(41, 16)


def addresses(version: int) -> Key:
    """Return the key of a set of addresses."""
    return IPV4 if version == 4 else IPV6


class Table:
    """The messages about one table; they are sent by `connection`."""

    def __init__(self, name: str, family: int = INET) -> None:
        self.name: Final = name
        self._family = family
        self._set_ids = 0

    def claim(self, comment: str) -> bytes:
        """Make the table, which mustn't be there yet; `comment` is shown by `nft`, and read back.

        At most 254 bytes. Source: libnftnl, include/libnftnl/udata.h, `NFTNL_UDATA_TABLE_COMMENT`.
        """
        data = comment.encode() + b"\0"
        body = text(1, self.name) + render_attribute(USERDATA, bytes([0, len(data)]) + data)
        return self._message(NEW_TABLE, NLM_F_CREATE | _EXCLUSIVE, body)

    def make(self, flags: int = 0) -> bytes:
        """Make the table, or take it over from an owner that has gone."""
        own = number(2, flags) if flags else b""
        return self._message(NEW_TABLE, NLM_F_CREATE, text(1, self.name) + own)

    def remove(self) -> bytes:
        """Remove the table with all that is in it."""
        return self._message(DEL_TABLE, 0, text(1, self.name))

    def base_chain(
        self, name: str, hook: int, priority: int, *, kind: str = "filter", device: str = ""
    ) -> bytes:
        """Make a chain that a hook begins with; what it doesn't decide is accepted."""
        where = number(1, hook) + number(2, priority)
        if device:
            where += text(3, device)
        body = self._of(name) + nested(4, where) + number(5, 1) + text(7, kind)
        return self._message(NEW_CHAIN, NLM_F_CREATE, body)

    def chain(self, name: str) -> bytes:
        """Make a chain that others go to, unless it is there."""
        return self._message(NEW_CHAIN, NLM_F_CREATE, self._of(name))

    def remove_chain(self, name: str) -> bytes:
        """Remove a chain that has no rules and that nothing goes to."""
        return self._message(DEL_CHAIN, 0, self._of(name))

    def rule(self, chain: str, *expressions: bytes) -> bytes:
        """Put a rule at the end of a chain."""
        body = text(1, self.name) + text(2, chain) + nested(4, b"".join(expressions))
        return self._message(NEW_RULE, NLM_F_CREATE | _APPEND, body)

    def flush(self, chain: str) -> bytes:
        """Remove the rules of a chain."""
        return self._message(DEL_RULE, 0, text(1, self.name) + text(2, chain))

    def set(self, name: str, key: Key, flags: int = 0) -> bytes:
        """Make a set, or a map of verdicts, unless it is there."""
        self._set_ids += 1
        body = text(1, self.name) + text(2, name) + number(3, flags)
        body += number(4, key.type) + number(5, key.size)
        if flags & MAP:
            body += number(6, VERDICT) + number(7, 16)
        if key is IFNAME:
            body += render_attribute(13, _HOST_ENDIAN)
        return self._message(NEW_SET, NLM_F_CREATE, body + number(10, self._set_ids))

    def add(self, name: str, keys: Iterable[bytes]) -> bytes:
        """Put elements into a set; those that are there stay."""
        return self._elements(NEW_ELEMENT, NLM_F_CREATE, name, (_element(key) for key in keys))

    def add_ranges(self, name: str, ranges: Iterable[tuple[bytes, bytes | None]]) -> bytes:
        """Put ranges, each first and behind its last, into a set of intervals."""
        elements = []
        for first, behind in ranges:
            elements.append(_element(first))
            if behind is not None:
                elements.append(_element(behind, flags=INTERVAL_END))
        return self._elements(NEW_ELEMENT, NLM_F_CREATE, name, elements)

    def add_goto(self, name: str, key: bytes, chain: str) -> bytes:
        """Put one element into a map: for it, a chain decides."""
        element = nested(1, value(1, key) + go_to(2, chain))
        return self._elements(NEW_ELEMENT, NLM_F_CREATE, name, (element,))

    def remove_elements(self, name: str, keys: Iterable[bytes]) -> bytes:
        """Take elements out of a set or map, which has to have them."""
        return self._elements(DEL_ELEMENT, 0, name, (_element(key) for key in keys))

    def flush_set(self, name: str) -> bytes:
        """Take all elements out of a set or map."""
        return self._message(DEL_ELEMENT, 0, text(1, self.name) + text(2, name))

    def _elements(self, kind: int, flags: int, name: str, elements: Iterable[bytes]) -> bytes:
        body = text(1, self.name) + text(2, name) + nested(3, b"".join(elements))
        return self._message(kind, flags, body)

    def _of(self, chain: str) -> bytes:
        return text(1, self.name) + text(3, chain)

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        return message(kind, flags, body, self._family)


def message(kind: int, flags: int, body: bytes, family: int) -> bytes:
    """Render one message about tables of a family."""
    header = _FAMILY_HEADER.pack(family, 0, 0)
    return render_message(SUBSYSTEM << 8 | kind, NLM_F_REQUEST | flags, header + body)


def batch_edge(kind: int) -> bytes:
    """Render what begins (0x10) or ends (0x11) a transaction."""
    return render_message(kind, NLM_F_REQUEST, _FAMILY_HEADER.pack(0, 0, SUBSYSTEM))


def _element(key: bytes, flags: int = 0) -> bytes:
    more = number(3, flags) if flags else b""
    return nested(1, value(1, key) + more)
