"""The thread that takes lines out of the spool and gives them to a destination, until all is there.

A destination that fails for a while is tried again, with longer and longer pauses. In blocking mode
the container waits meanwhile; else the spool fills up and loses lines. Only when the end has come
and its deadline is over is anything given up, and then it is counted.
"""

import time
from _queue import SimpleQueue

from lines import Lines
from local_copy import LocalCopy
from reports import Reports
from spool import NO_LIMIT, Deadline, Empty, Spool

FIRST_PAUSE_S = 0.1
QUIET_S = 1.0
"""Trouble that was expected isn't told if it is over so soon: a router starts with its task."""
MAX_PAUSE_S = 10.0


class Setup:
    """What a destination is made with."""

    def __init__(
        self, flags: dict[str, str], deadline: Deadline, reports: Reports, copy: LocalCopy | None
    ) -> None:
        self.flags = flags
        """By name, without the dashes; those without a value are left out."""
        self.deadline = deadline
        """No operation may take longer than it leaves."""
        self.reports = reports
        self.copy = copy


class TryAgain(Exception):  # noqa: N818 - it is no error
    """The destination can't take it now; the text says why."""

    def __init__(self, text: str, sent: int = 0, *, expected: bool = False) -> None:
        super().__init__(text)
        self.expected = expected
        """Whether that is nothing to speak of, if it doesn't last."""
        self.sent = sent
        """So many of the lines that were added got through in this attempt."""


class Destination:
    """What a driver is: lines are added, and sent at the latest when `flush` is called."""

    max_line_bytes = 16 * 1024
    """A longer line comes in pieces. Source: moby, daemon/logger/copier.go."""
    max_waiting_lines = NO_LIMIT
    """How many lines may wait for it, whatever the budget of bytes is."""
    linger_s = 0.0
    """How long lines may wait for others; 0: what is there is sent at once."""
    refused = 0
    """Lines that it would never have taken, and that are gone."""
    kept_lines = 0
    """Lines that a flush has kept back, as others may belong to them; none when the end has begun.
    They are flushed again after `linger_s`."""
    kept_cost = 0
    """Bytes that these take."""

    def open(self) -> None:
        """Get ready; the container is started afterwards.

        Raises:
            OSError, ValueError: it can't be done, and the task fails with this text.
        """

    def add(self, lines: Lines) -> bool:
        """Take lines over; return whether it is time to flush."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send all that was added.

        Raises:
            TryAgain: what was not sent yet stays, and the next flush sends it.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the destination; nothing is added any more."""


class Sender:
    """Brings what is in the spool to the destination."""

    def __init__(
        self, destination: Destination, spool: Spool, deadline: Deadline, reports: Reports
    ) -> None:
        self._destination = destination
        self._spool = spool
        self._deadline = deadline
        self._reports = reports
        self._added = 0
        """Lines that the destination has, and hasn't sent."""
        self._cost = 0
        self.ended: SimpleQueue[None] = SimpleQueue()
        """Gets one item when this is over."""

    def run(self) -> None:
        """Send until the spool is closed and empty, or the deadline is over.

        A fault of this program must not stop the container: its output goes on to the local copy.
        """
        try:
            self._send_all()
            self._destination.close()
        except BaseException as error:  # noqa: BLE001 - there is nobody else to report it
            self._spool.abandon()
            self._reports.loss(f"stops sending: {error!r}")
        self.ended.put(None)

    def count_left(self) -> int:
        """Lines that were never sent; for the end."""
        return self._added + self._spool.count_left()

    def _send_all(self) -> None:
        due = float("inf")
        while not self._deadline.is_over():
            wait_s = None if due == float("inf") else max(0.0, due - time.monotonic())
            try:
                lines = self._spool.take(wait_s)
            except Empty:
                due = self._flush()
                continue
            if lines is None:
                self._flush()
                return
            self._added += lines.count()
            self._cost += lines.cost
            if self._destination.add(lines):
                due = self._flush()
            elif due == float("inf"):
                due = time.monotonic() + self._destination.linger_s

    def _flush(self) -> float:
        """Flush until it succeeds; return when the next time is if nothing comes."""
        pause_s = FIRST_PAUSE_S
        while self._added and not self._deadline.is_over():
            try:
                self._destination.flush()
            except TryAgain as error:
                self._added -= error.sent
                self._spool.free(0, error.sent)
                if not error.expected or pause_s > QUIET_S:
                    self._reports.trouble(f"{error}; trying again")
                self._deadline.rest(pause_s)
                pause_s = min(pause_s * 2, MAX_PAUSE_S)
            else:
                kept_lines, kept_cost = self._destination.kept_lines, self._destination.kept_cost
                self._spool.free(self._cost - kept_cost, self._added - kept_lines)
                self._added, self._cost = kept_lines, kept_cost
                break
        return time.monotonic() + self._destination.linger_s if self._added else float("inf")
