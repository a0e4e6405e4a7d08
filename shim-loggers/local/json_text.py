"""JSON with the C half of the standard library's `json`, and without its Python half.

That half loads `re`: 1.3 MB and 8 ms of every logger. Source: CPython, Modules/_json.c.
"""

from local.local_copy import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def quote(text: str | bytes) -> bytes:
    """Make a JSON string; what isn't UTF-8 becomes U+FFFD."""
    data = text.encode(errors="replace") if isinstance(text, str) else text
    return b'"%b"' % escape(data).replace(b"\n", b"\\n")


def parse_json(data: bytes) -> object:
    """Read one JSON value.

    Raises:
        ValueError: it is none.
    """
    from _json import make_scanner

    text = data.decode().strip(" \t\r\n")
    try:
        value, end = make_scanner(_Manner())(text, 0)  # type: ignore[arg-type]
    except (StopIteration, RecursionError, SystemError):  # the last: 3.11 without `json`
        raise ValueError("invalid JSON") from None
    if end != len(text):
        raise ValueError("invalid JSON")
    return value


class _Manner:
    """What the scanner asks its maker; NaN and infinities are Python's own idea."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def parse_constant(name: str) -> "NoReturn":
        raise ValueError("invalid JSON: " + name)
