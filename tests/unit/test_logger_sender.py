"""The thread that gives lines to a destination."""

import threading
import time
from collections.abc import Callable

import pytest

from reading.deadline import Deadline
from reading.lines import Lines
from sending import sender
from sending.destination import Destination, TryAgain
from sending.reports import Reports
from sending.sender import Sender
from sending.spool import Spool


class Shelf(Destination):
    """A destination that keeps what it gets, and fails as often as it is told."""

    def __init__(self, failures: int = 0, linger_s: float = 0.0) -> None:
        self.linger_s = linger_s
        self.failures = failures
        self.takes: list[int] = []
        """So many lines get through in the first attempts that fail."""
        self.added: list[bytes] = []
        self.batches: list[list[bytes]] = []
        self.closed = False

    def add(self, lines: Lines) -> bool:
        if lines.text == b"bug":
            raise KeyError("bug")
        self.added.append(lines.text)
        return len(self.added) >= 3

    def flush(self) -> None:
        if self.failures:
            self.failures -= 1
            takes = self.takes.pop(0) if self.takes else 0
            sent, self.added = self.added[:takes], self.added[takes:]
            self.batches.append(sent)
            raise TryAgain("away", len(sent))
        self.batches.append(self.added)
        self.added = []

    def close(self) -> None:
        self.closed = True


class Running:
    """A sender in its thread."""

    def __init__(self, destination: Destination, max_bytes: int = 10**6) -> None:
        self.deadline = Deadline()
        self.spool = Spool(max_bytes, blocking=True)
        reports = Reports("shelf", "c-1", None)
        self.sender = Sender(destination, self.spool, self.deadline, reports)
        self._thread = threading.Thread(target=self.sender.run)

    def put(self, *texts: bytes) -> None:
        for text in texts:
            self.spool.put(Lines("stdout", 1, text), self.deadline.is_over)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self.spool.close()
        self.sender.ended.get(timeout=10)
        self._thread.join()


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not done():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_everything_is_sent_in_order_and_the_destination_closed() -> None:
    shelf = Shelf()
    running = Running(shelf)
    running.put(*(b"%d" % number for number in range(10)))

    running.start()
    running.end()

    assert [text for batch in shelf.batches for text in batch] == [b"%d" % n for n in range(10)]
    assert shelf.closed
    assert running.sender.count_left() == 0
    assert running.spool.held_bytes > 0  # nobody has looked since
    running.spool.put(Lines("stdout", 1, b""), running.deadline.is_over)
    assert running.spool.held_lines == 1


def test_lines_do_not_wait_for_others_when_the_destination_does_not_linger() -> None:
    shelf = Shelf()
    running = Running(shelf)
    running.start()

    running.put(b"now")

    wait_until(lambda: shelf.batches == [[b"now"]])
    running.end()


def test_lines_wait_for_others_when_the_destination_lingers() -> None:
    shelf = Shelf(linger_s=30)
    running = Running(shelf)
    running.start()

    running.put(b"a", b"b", b"c", b"d")
    wait_until(lambda: len(shelf.batches) == 1)
    running.end()

    assert shelf.batches == [[b"a", b"b", b"c"], [b"d"]]


def test_destination_that_was_away_gets_everything_once() -> None:
    shelf = Shelf(failures=3)
    running = Running(shelf)
    running.put(b"a", b"b")

    running.start()
    running.end()

    assert [text for batch in shelf.batches for text in batch] == [b"a", b"b"]


def test_what_is_left_when_the_time_is_over_is_counted() -> None:
    shelf = Shelf(failures=1000)
    running = Running(shelf)
    running.put(b"a\nb", b"c", b"d", b"e")
    running.start()

    running.deadline.begin(0.3)
    running.end()

    assert running.sender.count_left() == 5
    assert not any(shelf.batches)


def test_lines_that_got_through_before_a_failure_are_not_counted_as_lost() -> None:
    shelf = Shelf(failures=1000)
    shelf.takes = [1, 1]
    running = Running(shelf)
    running.put(b"a", b"b", b"c")
    running.start()

    wait_until(lambda: len(shelf.batches) >= 2)
    running.deadline.begin(0.3)
    running.end()

    assert shelf.batches[:2] == [[b"a"], [b"b"]]
    assert running.sender.count_left() == 1


def test_long_pause_is_cut_short_when_the_end_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "FIRST_PAUSE_S", 60)
    shelf = Shelf(failures=1)
    running = Running(shelf)
    running.put(b"a")
    running.start()
    wait_until(lambda: shelf.failures == 0)

    running.deadline.begin(9)
    began = time.monotonic()
    running.end()

    assert shelf.batches == [[], [b"a"]]
    assert time.monotonic() - began < 5


def test_fault_of_a_driver_does_not_stop_the_container() -> None:
    shelf = Shelf()
    running = Running(shelf, max_bytes=0)
    running.start()

    running.put(b"a", b"bug", *[b"x" * 60_000] * 4)
    running.end()

    assert shelf.batches in ([[b"a"]], [])
    assert running.spool.dropped + running.sender.count_left() >= 4
