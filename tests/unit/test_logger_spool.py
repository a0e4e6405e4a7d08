"""The queue between the thread that reads and the one that sends."""

import threading
import time
from itertools import count as numbers

import pytest

from reading import deadline as deadline_module
from reading.deadline import Deadline
from reading.lines import OVERHEAD_BYTES, Lines
from sending.spool import Empty, Spool

KIB = 1024


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def never() -> bool:
    return False


def make_lines(text: bytes, stream: str = "stdout") -> Lines:
    return Lines(stream, 1, text)


def take_all(spool: Spool) -> list[Lines]:
    taken: list[Lines] = []
    while True:
        try:
            lines = spool.take(0.0)
        except Empty:
            return taken
        if lines is None:
            return taken
        taken.append(lines)


def texts(spool: Spool) -> list[bytes]:
    return [text for lines in take_all(spool) for text in lines.text.split(b"\n")]


def test_blocking_spool_waits_until_the_sender_has_delivered() -> None:
    spool = Spool(0, blocking=True)  # at least 64 KiB
    first = make_lines(b"a" * 60 * KIB)
    spool.put(first, never)
    other = threading.Thread(target=spool.put, args=(make_lines(b"b" * 60 * KIB), never))
    other.start()

    taken = spool.take(5)
    with pytest.raises(Empty):
        spool.take(0.2)  # taken, but not delivered: it is still held
    spool.free(first.cost, 1)
    then = spool.take(5)
    other.join()

    assert taken is first
    assert then is not None
    assert then.text == b"b" * 60 * KIB
    assert spool.held_bytes == then.cost


def test_blocking_spool_loses_nothing_however_fast_the_lines_come() -> None:
    spool = Spool(64 * KIB, blocking=True)
    received = []

    def send() -> None:
        while (lines := spool.take(5)) is not None:
            received.append(lines.text)
            spool.free(lines.cost, lines.count())

    sender = threading.Thread(target=send)
    sender.start()
    for number in range(5000):
        spool.put(make_lines(b"%d" % number), never)
    spool.close()
    sender.join()

    assert received == [b"%d" % number for number in range(5000)]
    assert spool.dropped == 0


def test_blocking_spool_takes_what_comes_when_the_time_is_over() -> None:
    spool = Spool(0, blocking=True)
    asked = numbers()
    spool.put(make_lines(b"a" * 60 * KIB), never)

    spool.put(make_lines(b"b" * 60 * KIB), lambda: next(asked) > 0)

    assert len(take_all(spool)) == 2
    assert spool.dropped == 0


def test_nobody_waits_for_a_sender_that_has_given_up() -> None:
    spool = Spool(0, blocking=True)
    spool.put(make_lines(b"a" * 60 * KIB), never)
    other = threading.Thread(target=spool.put, args=(make_lines(b"b" * 60 * KIB), never))
    other.start()

    spool.abandon()
    other.join(timeout=5)

    assert not other.is_alive()
    assert spool.dropped == 1


def test_full_spool_drops_the_newest_and_says_so_in_the_stream() -> None:
    spool = Spool(1000, blocking=False)
    first = make_lines(b"a" * 500)

    spool.put(first, never)
    spool.put(make_lines(b"b" * 500 + b"\n" + b"c" * 500), never)
    spool.free(first.cost, 1)
    spool.put(make_lines(b"d"), never)
    spool.close()

    assert texts(spool) == [
        b"a" * 500,
        b"shim-logger: 2 lines dropped: the buffer was full",
        b"d",
    ]
    assert spool.dropped == 2


def test_full_spool_keeps_the_whole_lines_that_there_is_room_for() -> None:
    spool = Spool(1000, blocking=False)

    spool.put(make_lines(b"a" * 400), never)
    spool.put(make_lines(b"1" * 50 + b"\n" + b"2" * 50 + b"\n" + b"3" * 400 + b"\n4"), never)
    spool.close()

    kept = texts(spool)
    assert kept[1:3] == [b"1" * 50, b"2" * 50]
    assert kept[3:] == [b"shim-logger: 2 lines dropped: the buffer was full"]
    assert spool.dropped == 2


def test_loss_is_told_before_the_lines_that_came_after_it() -> None:
    spool = Spool(2000, blocking=False)
    first = make_lines(b"a" * 1400)
    spool.put(first, never)
    spool.put(make_lines(b"stays"), never)
    spool.put(make_lines(b"lost" * 500), never)
    spool.free(first.cost, 1)

    spool.put(make_lines(b"kept\n" + b"too long" * 500), never)
    spool.close()

    kept = texts(spool)
    assert kept[1:] == [
        b"stays",
        b"shim-logger: 1 lines dropped: the buffer was full",
        b"kept",
        b"shim-logger: 1 lines dropped: the buffer was full",
    ]


def test_empty_spool_takes_a_line_larger_than_its_budget() -> None:
    spool = Spool(100, blocking=False)

    spool.put(make_lines(b"x" * 16 * KIB), never)

    assert [lines.count() for lines in take_all(spool)] == [1]
    assert spool.dropped == 0


def test_part_of_a_long_line_is_dropped_as_one() -> None:
    spool = Spool(300, blocking=False)
    spool.put(make_lines(b"a"), never)

    spool.put(Lines("stdout", 1, b"x" * 500, ("id", 1, False), goes_on=True), never)

    assert spool.dropped == 1


def test_budget_bounds_what_is_held_and_every_line_is_counted() -> None:
    spool = Spool(10_000, blocking=False)
    sent = 0
    for number in range(1000):
        text = b"\n".join(b"%d" % number for _ in range(number % 7 + 1))
        spool.put(make_lines(text), never)
        sent += number % 7 + 1
        assert spool.held_bytes <= 10_000
    spool.close()

    kept = [text for text in texts(spool) if not text.startswith(b"shim-logger")]
    assert len(kept) + spool.dropped == sent
    assert spool.dropped > 0


@pytest.mark.parametrize("first", [1, 2, 3])
def test_number_of_lines_may_be_limited_too(first: int) -> None:
    spool = Spool(10**6, blocking=False, max_lines=4)
    spool.put(make_lines(b"\n".join([b"a"] * first)), never)

    spool.put(make_lines(b"1\n22\n333\n4444"), never)
    spool.close()

    kept = [text for text in texts(spool) if not text.startswith(b"shim-logger")]
    assert kept == [b"a"] * first + [b"1", b"22", b"333"][: 4 - first]
    assert spool.dropped == first


def test_cost_of_lines_counts_the_objects_around_them() -> None:
    assert make_lines(b"abc").cost == 3 + OVERHEAD_BYTES


def test_lines_that_nobody_took_are_counted() -> None:
    spool = Spool(10_000, blocking=True)
    spool.put(make_lines(b"a\nb"), never)
    spool.put(make_lines(b"c"), never)
    spool.close()

    assert spool.count_left() == 3


def test_deadline_is_what_came_first() -> None:
    deadline = Deadline()
    assert not deadline.has_begun()
    assert deadline.left_s(5) == 5

    deadline.begin(100)
    deadline.begin(1000)

    assert deadline.has_begun()
    assert 90 < deadline.left_s(1000) <= 100
    assert not deadline.is_over()


@pytest.mark.parametrize(
    ("end_s", "pause_s"),
    [
        pytest.param(None, 1.2, id="end-has-not-begun"),
        pytest.param(9, 1.0, id="end-has-begun"),
        pytest.param(0.1, 0.1, id="end-is-near"),
        pytest.param(0, 0, id="end"),
    ],
)
def test_pauses_are_short_when_the_end_has_begun(
    monkeypatch: pytest.MonkeyPatch, end_s: float | None, pause_s: float
) -> None:
    clock = Clock()
    monkeypatch.setattr(deadline_module, "time", clock)
    deadline = Deadline()
    if end_s is not None:
        deadline.begin(end_s)

    deadline.rest(1.2)

    assert clock.now == pytest.approx(pause_s)


def test_deadline_leaves_nothing_when_it_is_over() -> None:
    deadline = Deadline()

    deadline.begin(0)

    assert time.monotonic() >= deadline.at
    assert deadline.is_over()
    assert deadline.left_s(5) == 0
