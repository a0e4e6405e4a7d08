"""Lines that belong together, such as a stack trace: which line begins an event, and which goes on.

Source: moby, daemon/logger/awslogs: an event has a newline after each line, and ends when the next
one begins, when it gets too long, or when nothing comes for some seconds. There all streams share
one event; here each has its own, so that stdout doesn't cut a stack trace on stderr.
"""

import time

from local.local_copy import make_valid
from reading.lines import Lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Finds = Callable[[bytes], bool]

PENDING_S = 5.0
"""How long an event waits for another line."""
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DIRECTIVES = {
    "a": f"(?:{'|'.join(day[:3] for day in _DAYS)})",
    "A": f"(?:{'|'.join(_DAYS)})",
    "w": "[0-6]",
    "d": r"(?:0[1-9]|[12]\d|3[01])",
    "b": f"(?:{'|'.join(month[:3] for month in _MONTHS)})",
    "B": f"(?:{'|'.join(_MONTHS)})",
    "m": r"(?:0[1-9]|1[0-2])",
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "H": r"(?:[01]\d|2[0-3])",
    "I": r"(?:0\d|1[0-2])",
    "p": "[AP]M",
    "M": r"[0-5]\d",
    "S": r"[0-5]\d",
    "f": r"\d{6}",
    "z": r"[+-]\d{4}",
    "Z": r"[A-Z]{2,5}",
    "j": r"(?:0(?:0[1-9]|[1-9]\d)|[12]\d\d|3[0-5]\d|36[0-6])",
    "L": r"\.\d{3}",
}
"""Source: moby's documentation of `awslogs-datetime-format`; Python's strftime."""


class NoRe2Error(ImportError):
    """This interpreter has no google-re2."""


def compile_pattern(text: str) -> "Finds":
    """Compile an expression of RE2; the result says whether it is found in a line.

    Raises:
        ValueError: it isn't one.
        NoRe2Error: RE2 can't be loaded.
    """
    try:
        import re2
    except ImportError as error:
        raise NoRe2Error(f"google-re2 can't be loaded: {error}") from None
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True  # whether it is found is all that is asked
    try:
        compiled = re2.compile(text.encode(errors="surrogateescape"), options)
    except re2.error as error:
        raise ValueError(error.args[0].decode(errors="replace")) from None
    return lambda line: compiled.search(line) is not None


def compile_datetime(text: str) -> "Finds":
    r"""Compile what strftime takes, e.g. `\[%Y-%m-%d`; the rest of it is an expression itself.

    Raises:
        ValueError: it can't be read.
        NoRe2Error: RE2 can't be loaded.
    """
    first, *others = text.split("%")
    pattern = first
    while others:
        directive = others.pop(0)
        if not directive and others:  # two in a row stand for one
            pattern += "%" + others.pop(0)
        else:
            pattern += _DIRECTIVES.get(directive[:1], "%" + directive[:1]) + directive[1:]
    return compile_pattern(pattern)


class Joiner:
    """Makes events of lines."""

    def __init__(self, begins: "Finds", max_bytes: int) -> None:
        """`begins` says whether a line begins an event."""
        self._begins = begins
        self._max_bytes = max_bytes
        self._pending: dict[str, _Event] = {}
        """By stream."""

    def count_lines(self) -> int:
        """How many lines wait."""
        return sum(event.lines for event in self._pending.values())

    def count_bytes(self) -> int:
        """How much waits."""
        return sum(len(event.text) for event in self._pending.values())

    def take(self, lines: Lines) -> list[tuple[int, bytes]]:
        """Return the events that these lines have ended: when each began (ns), and its text."""
        ended = []
        event = self._pending.pop(lines.stream, None) or _Event(lines.time_ns)
        may_begin = lines.partial is None or lines.partial[1] == 1
        for text in make_valid(lines.text).split(b"\n"):
            line = text + b"\n"
            begins = may_begin and self._begins(text)
            if event.lines and (begins or len(event.text) + len(line) > self._max_bytes):
                ended.append((event.time_ns, event.text))
                event = _Event(lines.time_ns)
            event.text += line
            event.lines += 1
        if lines.goes_on:
            event.text = event.text[:-1]
        self._pending[lines.stream] = event
        return ended

    def end_old(self) -> list[tuple[int, bytes]]:
        """Return events that have waited long enough for another line."""
        return self._end(time.monotonic() - PENDING_S)

    def end_all(self) -> list[tuple[int, bytes]]:
        """Return all events that wait for another line."""
        return self._end(float("inf"))

    def _end(self, until_s: float) -> list[tuple[int, bytes]]:
        old = [item for item in self._pending.items() if item[1].began_s <= until_s]
        for stream, _ in old:
            del self._pending[stream]
        return [(event.time_ns, event.text) for _, event in old]


class _Event:
    """One that has begun, and may go on."""

    __slots__ = ("began_s", "lines", "text", "time_ns")

    def __init__(self, time_ns: int) -> None:
        self.time_ns = time_ns
        """When its first line was read."""
        self.began_s = time.monotonic()
        self.text = b""
        self.lines = 0
