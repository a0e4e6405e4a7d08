"""The thread that takes lines out of the spool and gives them to a destination, until all is there.

A destination that fails for a while is tried again, with longer and longer pauses. In blocking mode
the container waits meanwhile; else the spool fills up and loses lines. Only when the end has come
and its deadline is over is anything given up, and then it is counted.
"""

import time
from _queue import SimpleQueue

from reading.deadline import Deadline
from sending.destination import Destination, TryAgain
from sending.libc import trim_heap
from sending.reports import Reports
from sending.spool import Empty, Spool

FIRST_PAUSE_S = 0.1
QUIET_S = 1.0
"""Trouble that was expected isn't told if it is over so soon: a router starts with its task."""
MAX_PAUSE_S = 10.0
TRIM_BYTES = 512 * 1024
"""After so much, and when nothing waits, its memory goes back to the kernel: else a logger that was
once 10 MB behind keeps these 10 MB."""


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
        self._untrimmed = 0
        """Bytes that were freed since memory was last given back."""
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

    def _trim(self) -> None:
        if self._untrimmed >= TRIM_BYTES and self._spool.is_empty():
            self._untrimmed = 0
            trim_heap()

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
                self._untrimmed += self._cost - kept_cost
                self._added, self._cost = kept_lines, kept_cost
                self._trim()
                break
        return time.monotonic() + self._destination.linger_s if self._added else float("inf")
