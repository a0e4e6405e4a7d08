"""Lines that belong together, such as a stack trace: which line begins an event, and which goes on.

Source: moby, daemon/logger/awslogs: an event has a newline after each line, and ends when the next
one begins, when it gets too long, or when nothing comes for some seconds. There all streams share
one event; here each has its own, so that stdout doesn't cut a stack trace on stderr.
"""

import re
import time

from lines import Lines

PENDING_S = 5.0
"""How long an event waits for another line."""
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DIRECTIVES = {
    "%": "%",
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
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\s",
    "upper": "A-Z",
    "word": r"\w",
    "xdigit": "0-9a-fA-F",
}
"""What RE2 has and `re` hasn't."""


def compile_pattern(text: str) -> "re.Pattern[str]":
    r"""Compile an expression of RE2: `[[:alpha:]]` and `\z` mean there what they don't here.

    Raises:
        ValueError: it can't be read.
    """
    for name, members in _CLASSES.items():
        text = text.replace(f"[:{name}:]", members)
    try:
        return re.compile(text.replace(r"\z", r"\Z"), re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:  # too much of it is another error
        raise ValueError(str(error)) from None


def compile_datetime(text: str) -> "re.Pattern[str]":
    r"""Compile what strftime takes, e.g. `\[%Y-%m-%d`; the rest of it is an expression itself.

    Raises:
        ValueError: it can't be read.
    """
    return compile_pattern(
        re.sub("%([a-zA-Z%])", lambda found: _DIRECTIVES.get(found[1], found[0]), text)
    )


class Joiner:
    """Makes events of lines."""

    def __init__(self, pattern: "re.Pattern[str]", max_bytes: int) -> None:
        self._pattern = pattern
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
        for text in lines.text.decode(errors="replace").split("\n"):
            line = text.encode() + b"\n"
            begins = may_begin and self._pattern.search(text) is not None
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
