"""Attributes of nfnetlink messages; numbers are big-endian.

Source of all numbers in this package: Linux, include/uapi/linux/netfilter/nf_tables.h.
"""

import struct
from typing import Final

from fargate_agent.network.blocking import render_attribute

NESTED: Final = 0x8000

DATA_VALUE, DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2

DROP: Final = 0
ACCEPT: Final = 1
RETURN: Final = -5
_JUMP: Final = -3
_GOTO: Final = -4


def nested(kind: int, attributes: bytes) -> bytes:
    """Render attributes inside an attribute."""
    return render_attribute(kind | NESTED, attributes)


def number(kind: int, value: int) -> bytes:
    """Render a number of 32 bits, signed ones as their two's complement."""
    return render_attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def text(kind: int, value: str) -> bytes:
    """Render a text."""
    return render_attribute(kind, value.encode() + b"\0")


def value(kind: int, data: bytes) -> bytes:
    """Render a value that a rule or an element holds."""
    return nested(kind, render_attribute(DATA_VALUE, data))


def verdict(kind: int, code: int) -> bytes:
    """Render what is decided: one of the numbers above."""
    return nested(kind, nested(DATA_VERDICT, number(_VERDICT_CODE, code)))


def jump_to(kind: int, chain: str) -> bytes:
    """Render a jump, after which the rules behind it are looked at."""
    return nested(
        kind, nested(DATA_VERDICT, number(_VERDICT_CODE, _JUMP) + text(_VERDICT_CHAIN, chain))
    )


def go_to(kind: int, chain: str) -> bytes:
    """Render a jump without a return."""
    return nested(
        kind, nested(DATA_VERDICT, number(_VERDICT_CODE, _GOTO) + text(_VERDICT_CHAIN, chain))
    )


def read_attributes(data: bytes) -> dict[int, bytes]:
    """Return attributes by their kind; of equal ones the last."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        if size < 4:
            break
        found[kind & ~NESTED] = data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


def read_list(data: bytes) -> list[bytes]:
    """Return what attributes hold that may be of one kind, in order."""
    found: list[bytes] = []
    offset = 0
    while offset + 4 <= len(data):
        (size,) = struct.unpack_from("=H", data, offset)
        if size < 4:
            break
        found.append(data[offset + 4 : offset + size])
        offset += (size + 3) & ~3
    return found


def read_text(data: bytes) -> str:
    """Return the text in an attribute."""
    return data.rstrip(b"\0").decode(errors="replace")
