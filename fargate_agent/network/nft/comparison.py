"""Whether the kernel has the rules that were made.

What it says of a rule has everything that the rule was made of, and may have more.
"""

import struct
from collections.abc import Iterator
from typing import Final

from fargate_agent.network.nft.attributes import NESTED, read_attributes, read_list

_ATTRIBUTE: Final = struct.Struct("=HH")


def is_rule(found: bytes, wanted: bytes) -> bool:
    """Whether the expressions of a rule, as the kernel tells them, are those wanted."""
    theirs, ours = read_list(found), read_list(wanted)
    return len(theirs) == len(ours) and all(map(_has_all, theirs, ours))


def _has_all(found: bytes, wanted: bytes) -> bool:
    theirs = read_attributes(found)
    for kind, value in _split(wanted):
        their = theirs.get(kind & ~NESTED)
        if their is None:
            return False
        if not (_has_all(their, value) if kind & NESTED else their == value):
            return False
    return True


def _split(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        yield kind, data[offset + _ATTRIBUTE.size : offset + size]
        offset += max((size + 3) & ~3, _ATTRIBUTE.size)
