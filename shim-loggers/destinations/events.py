"""Log events as PutLogEvents takes them, and how many of them one request may hold.

Source: CloudWatch Logs API reference, "PutLogEvents".
"""

from local.local_copy import escape, make_valid
from reading.lines import count_newlines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EVENT_BYTES = 26
"""What an event counts beside its text."""
MAX_BATCH_BYTES = 1_048_576
MAX_BATCH_EVENTS = 10_000
MAX_SPAN_MS = 24 * 3600 * 1000 - 1
MAX_TEXT_BYTES = 262_144 - EVENT_BYTES
"""A longer text is cut. Source: moby, daemon/logger/awslogs; the service takes more since 2025."""
CONTINUATION = 0b1000_0000
"""The upper two bits of a byte in UTF-8 that isn't a character's first."""


class Events:
    """Events of one moment."""

    __slots__ = ("count", "size", "text", "time_ms")

    def __init__(self, time_ms: int, text: bytes) -> None:
        """Take texts as JSON has them, parted by newlines; none is empty."""
        self.time_ms = time_ms
        self.text = text
        self.count = count_newlines(text) + 1
        self.size = len(text) + EVENT_BYTES * self.count
        """At least what the service counts: it counts texts before they were escaped."""

    def split(self) -> "tuple[Events, Events] | None":
        """Return two halves, unless this is one event."""
        place = self.text.rfind(b"\n", 0, len(self.text) // 2)
        if place < 0:
            place = self.text.find(b"\n")
        if place < 0:
            return None
        return Events(self.time_ms, self.text[:place]), Events(self.time_ms, self.text[place + 1 :])


def render_lines(text: bytes) -> bytes:
    """Make an event of each line, for `Events`; the service takes no empty ones."""
    text = _limit(text)
    while b"\n\n" in text:
        text = text.replace(b"\n\n", b"\n")
    return escape(text.strip(b"\n"))


def render_block(text: bytes) -> bytes:
    """Make one event of a text with newlines in it, for `Events`."""
    return b"\n".join(escape(part).replace(b"\n", b"\\n") for part in _cut(text, MAX_TEXT_BYTES))


def take_batch(queue: list[Events], max_bytes: int) -> list[Events]:
    """Return the first events of a queue that go together, in the order of their times.

    They are still in the queue afterwards. What is too much alone is split there; a single event
    never is.
    """
    while queue[0].size > max_bytes or queue[0].count > MAX_BATCH_EVENTS:
        halves = queue[0].split()
        if halves is None:
            break
        queue[:1] = halves
    size = count = end = 0
    earliest = latest = queue[0].time_ms
    for events in queue:
        size += events.size
        count += events.count
        earliest = min(earliest, events.time_ms)
        latest = max(latest, events.time_ms)
        too_much = size > max_bytes or count > MAX_BATCH_EVENTS or latest - earliest > MAX_SPAN_MS
        if end and too_much:
            break
        end += 1
    return sorted(queue[:end], key=lambda events: events.time_ms)


def render_batch(begin: bytes, batch: list[Events], end: bytes) -> bytes:
    """Return the members of the array `logEvents` with what stands around them.

    All of it is joined once: each copy is a megabyte.
    """
    parts = [begin]
    for events in batch:
        event = b'{"timestamp":%d,"message":"' % events.time_ms
        parts += (event, events.text.replace(b"\n", b'"},' + event), b'"},')
    parts[-1] = b'"}'
    return b"".join([*parts, end])


def count_rejected(info: "dict[str, Any]", count: int) -> tuple[int, int]:
    """Return how many events of a batch were too old, and too new, by `rejectedLogEventsInfo`."""
    old_ends = (info.get("tooOldLogEventEndIndex"), info.get("expiredLogEventEndIndex"))
    old = max(end if isinstance(end, int) else 0 for end in old_ends)
    new_begin = info.get("tooNewLogEventStartIndex")
    return old, count - new_begin if isinstance(new_begin, int) else 0


def _limit(text: bytes) -> bytes:
    """Cut lines that have become too long: what isn't UTF-8 grows to three times its size."""
    valid = make_valid(text)
    if len(valid) <= MAX_TEXT_BYTES or len(valid) == len(text):
        return valid
    return b"\n".join(part for line in valid.split(b"\n") for part in _cut(line, MAX_TEXT_BYTES))


def _cut(text: bytes, max_bytes: int) -> list[bytes]:
    """Cut between characters."""
    parts = []
    while len(text) > max_bytes:
        end = max_bytes
        while end > max_bytes - 4 and text[end] & 0b1100_0000 == CONTINUATION:
            end -= 1
        parts.append(text[:end])
        text = text[end:]
    return [*parts, text]
