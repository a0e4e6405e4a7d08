"""DNS messages as bytes: what is looked at without reading all of one. Source: RFC 1035, 4.1."""

import struct
from typing import Final

from dns.rcode import Rcode

HEADER_BYTES: Final = 12
_HEADER: Final = struct.Struct("!HHHHHH")
_QR: Final = 0x8000
_TC: Final = 0x0200
_RA: Final = 0x0080
_OPCODE_AND_RD: Final = 0x7900
_RCODE: Final = 0x000F
_POINTER: Final = 0xC0
_QUESTION_TAIL_BYTES: Final = 4
_GIVES_UP: Final = frozenset({Rcode.SERVFAIL, Rcode.REFUSED, Rcode.NOTIMP, Rcode.FORMERR})


def set_id(message: bytes, id_: int) -> bytes:
    """Return the message with another id."""
    return id_.to_bytes(2) + message[2:]


def is_query(message: bytes) -> bool:
    """Whether it has a header, and isn't a reply."""
    return len(message) >= HEADER_BYTES and not _flags(message) & _QR


def is_cut(message: bytes) -> bool:
    """Whether it was cut to fit a datagram (TC)."""
    return bool(_flags(message) & _TC)


def is_useful(reply: bytes) -> bool:
    """Whether the server did what it was asked, so that no other has to be."""
    return _flags(reply) & _RCODE not in _GIVES_UP


def is_reply_to(reply: bytes, query: bytes) -> bool:
    """Whether a message has the id and the question of a query.

    A server that doesn't understand a query may leave the question out.
    """
    if len(reply) < HEADER_BYTES or reply[:2] != query[:2] or not _flags(reply) & _QR:
        return False
    question = query[HEADER_BYTES : find_question_end(query)]
    if reply[4:6] == b"\0\0":
        return not is_useful(reply)
    return reply[HEADER_BYTES : HEADER_BYTES + len(question)].lower() == question.lower()


def find_question_end(message: bytes) -> int:
    """Return where the first question ends; where the header does if there is none in full."""
    at = HEADER_BYTES
    while at < len(message) and message[at]:
        if message[at] & _POINTER:
            return HEADER_BYTES
        at += message[at] + 1
    end = at + 1 + _QUESTION_TAIL_BYTES
    return end if end <= len(message) else HEADER_BYTES


def render_format_error(query: bytes) -> bytes:
    """Return the reply to a message that makes no sense, with its question if that is whole."""
    end = find_question_end(query)
    questions = 1 if end > HEADER_BYTES else 0
    told = _flags(query) & _OPCODE_AND_RD | _QR | _RA | int(Rcode.FORMERR)
    header = _HEADER.pack(int.from_bytes(query[:2]), told, questions, 0, 0, 0)
    return header + query[HEADER_BYTES:end]


def _flags(message: bytes) -> int:
    return int.from_bytes(message[2:4])
