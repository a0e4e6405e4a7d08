"""Lines on their way from the thread that reads the pipes to the one that sends.

What the sender has taken and not delivered counts as held: the budget bounds what there really is.
"""

import time
from _queue import Empty, SimpleQueue

from reading.lines import OVERHEAD_BYTES, Lines
from sending.destination import NO_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Empty", "Spool"]

SETTLE_S = 0.5
"""How often a reader that waits for room looks at its deadline."""
MIN_ROOM_BYTES = 64 * 1024
"""A budget is at least what is read at once, twice."""


class Spool:
    """A queue with a budget of bytes; blocking, or losing and counting what is too much."""

    def __init__(self, max_bytes: int, *, blocking: bool, max_lines: int = NO_LIMIT) -> None:
        self._max_bytes = max(max_bytes, MIN_ROOM_BYTES) if blocking else max_bytes
        self._max_lines = max_lines
        self._blocking = blocking
        self._waiting: SimpleQueue[Lines | None] = SimpleQueue()
        self._freed: SimpleQueue[tuple[int, int]] = SimpleQueue()
        self._abandoned = False
        self.held_bytes = 0
        self.held_lines = 0
        self.dropped = 0
        """Lines lost for want of room, all in all."""
        self._untold = 0

    def put(self, lines: Lines, is_over: "Callable[[], bool]") -> None:
        """Hand over lines. If blocking, wait for room until the time is over; else lose the excess.

        An empty spool takes whatever comes, so that a line larger than the budget gets through.
        """
        self._settle()
        while self._blocking and self._is_full(lines) and not (self._abandoned or is_over()):
            self._settle(SETTLE_S)
        if self._abandoned:
            self.dropped += lines.count()
        elif self._blocking or not self._is_full(lines):
            self._give(lines)
        else:
            self._give_some(lines)

    def abandon(self) -> None:
        """Nobody takes anything any more: what comes is lost, and nobody waits."""
        self._abandoned = True
        self._freed.put((0, 0))

    def close(self) -> None:
        """Nothing comes any more."""
        self._report(time.time_ns())
        self._waiting.put(None)

    def take(self, timeout_s: float | None) -> Lines | None:
        """Return the next lines; None after the last ones.

        Raises:
            Empty: nothing came for so long.
        """
        return (
            self._waiting.get(timeout=timeout_s)
            if timeout_s
            else self._waiting.get(block=timeout_s is None)
        )

    def free(self, cost: int, count: int) -> None:
        """The sender has got rid of so many bytes, and lines."""
        self._freed.put((cost, count))

    def is_empty(self) -> bool:
        """Whether there is nothing to take at the moment."""
        return self._waiting.empty()

    def count_left(self) -> int:
        """How many lines nobody has taken; for the end, when nobody does any more."""
        left = 0
        while True:
            try:
                lines = self._waiting.get(block=False)
            except Empty:
                return left
            left += lines.count() if lines else 0

    def _is_full(self, lines: Lines) -> bool:
        return self.held_bytes > 0 and (
            self.held_bytes + lines.cost > self._max_bytes
            or self.held_lines + lines.count() > self._max_lines
        )

    def _give_some(self, lines: Lines) -> None:
        """Keep the whole lines that there is room for, and drop the others."""
        end = self._find_end(lines.text) if lines.partial is None else -1
        if end >= 0:
            self._give(Lines(lines.stream, lines.time_ns, lines.text[:end]))
        lost = lines.text.count(b"\n", max(end, 0)) + (end < 0)
        self.dropped += lost
        self._untold += lost

    def _find_end(self, text: bytes) -> int:
        """Return where the newline after the last line stands that there is room for, or -1."""
        room = self._max_bytes - self.held_bytes - OVERHEAD_BYTES
        end = text.rfind(b"\n", 0, max(room, 0))
        rows = max(self._max_lines - self.held_lines, 0)
        if end >= 0 and text.count(b"\n", 0, end + 1) > rows:
            end = sum(len(line) + 1 for line in text.split(b"\n", rows)[:rows]) - 1
        return end

    def _report(self, now_ns: int) -> None:
        """Say in the stream itself what is missing there."""
        if self._untold:
            text = f"shim-logger: {self._untold} lines dropped: the buffer was full"
            self._untold = 0
            self._hold(Lines("stderr", now_ns, text.encode()))

    def _give(self, lines: Lines) -> None:
        self._report(lines.time_ns)
        self._hold(lines)

    def _hold(self, lines: Lines) -> None:
        self.held_bytes += lines.cost
        self.held_lines += lines.count()
        self._waiting.put(lines)

    def _settle(self, timeout_s: float = 0) -> None:
        try:
            freed = self._freed.get(block=timeout_s > 0, timeout=timeout_s or None)
            while True:
                self.held_bytes -= freed[0]
                self.held_lines -= freed[1]
                freed = self._freed.get(block=False)
        except Empty:
            pass
