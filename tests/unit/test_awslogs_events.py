"""Log events, and the batches that one request may hold."""

import json

import pytest

from destinations.events import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    MAX_TEXT_BYTES,
    Events,
    count_rejected,
    render_batch,
    render_block,
    render_lines,
    take_batch,
)

DAY_MS = 24 * 3600 * 1000


def read(batch: list[Events]) -> list[tuple[int, str]]:
    found = json.loads(render_batch(b"[", batch, b"]"))
    return [(event["timestamp"], event["message"]) for event in found]


def take_all(queue: list[Events], max_bytes: int = MAX_BATCH_BYTES) -> list[list[Events]]:
    batches = []
    while queue:
        batches.append(take_batch(queue, max_bytes))
        del queue[: len(batches[-1])]
    return batches


def size(batch: list[Events]) -> int:
    """What the service counts."""
    return sum(len(text.encode()) + 26 for _, text in read(batch))


@pytest.mark.parametrize(
    ("text", "events"),
    [
        pytest.param(b"a\nb", ["a", "b"], id="lines"),
        pytest.param(b"\n\na\n\n\nb\n\n", ["a", "b"], id="blank-lines-are-skipped"),
        pytest.param(b" \n\r", [" ", "\r"], id="white-lines-are-kept"),
        pytest.param(b"a\xffb\xc3", ["a\ufffdb\ufffd"], id="not-utf-8"),
        pytest.param(b'"\\\t\0\x7f', ['"\\\t\0\x7f'], id="special-characters"),
        pytest.param("🐟 ö".encode(), ["🐟 ö"], id="utf-8"),
    ],
)
def test_every_line_is_an_event(text: bytes, events: list[str]) -> None:
    assert [text for _, text in read([Events(7, render_lines(text))])] == events


@pytest.mark.parametrize("text", [b"", b"\n\n\n"], ids=["empty-line", "empty-lines"])
def test_empty_lines_make_nothing(text: bytes) -> None:
    assert render_lines(text) == b""


@pytest.mark.parametrize(
    "rendered",
    [
        pytest.param(render_lines(b"\xff" * MAX_TEXT_BYTES), id="line"),
        pytest.param(render_block("\ufffd".encode() * MAX_TEXT_BYTES), id="block"),
    ],
)
def test_event_that_grows_because_it_is_not_utf_8_is_cut(rendered: bytes) -> None:
    texts = [text for _, text in read([Events(7, rendered)])]

    assert "".join(texts) == "\ufffd" * MAX_TEXT_BYTES
    assert all(len(text.encode()) <= MAX_TEXT_BYTES for text in texts)


def test_block_is_one_event_with_its_newlines() -> None:
    assert read([Events(7, render_block(b'a\n"b"\n\n'))]) == [(7, 'a\n"b"\n\n')]


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param([b"\n".join([b"x"] * 16_000)] * 3, id="many-short-lines"),
        pytest.param([b"\n".join([b"x" * 100] * 325)] * 100, id="ordinary-lines"),
        pytest.param([b"x" * MAX_TEXT_BYTES] * 9, id="longest-lines"),
        pytest.param([b"\0" * MAX_TEXT_BYTES, b"a"], id="escapes-longer-than-a-batch"),
    ],
)
def test_batches_keep_the_limits_and_lose_nothing(texts: list[bytes]) -> None:
    lines = [line.decode() for text in texts for line in text.split(b"\n")]

    batches = take_all([Events(7, render_lines(text)) for text in texts])

    assert [text for batch in batches for _, text in read(batch)] == lines
    assert all(size(batch) <= MAX_BATCH_BYTES for batch in batches)
    assert all(len(read(batch)) <= MAX_BATCH_EVENTS for batch in batches)


def test_batch_holds_as_much_as_it_may() -> None:
    batches = take_all([Events(7, b"x" * 74) for _ in range(20_000)])

    assert [len(batch) for batch in batches] == [10_000, 10_000]


def test_batch_is_as_small_as_is_wanted() -> None:
    queue = [Events(7, b"\n".join([b"%05d" % number for number in range(4000)]))]

    batches = take_all(queue, 16 * 1024)

    assert [text for batch in batches for _, text in read(batch)] == [
        f"{number:05}" for number in range(4000)
    ]
    assert all(size(batch) <= 16 * 1024 for batch in batches)


def test_events_are_in_the_order_of_their_times_and_else_of_their_coming() -> None:
    queue = [Events(2, b"a"), Events(1, b"b"), Events(2, b"c"), Events(1, b"d")]

    batch = take_batch(queue, MAX_BATCH_BYTES)

    assert read(batch) == [(1, "b"), (1, "d"), (2, "a"), (2, "c")]


def test_batch_spans_less_than_a_day() -> None:
    queue = [Events(time_ms, b"a") for time_ms in (0, DAY_MS - 1, DAY_MS, DAY_MS + 1, 1)]

    batches = take_all(queue)

    assert [[events.time_ms for events in batch] for batch in batches] == [
        [0, DAY_MS - 1],
        [DAY_MS, DAY_MS + 1],
        [1],
    ]


@pytest.mark.parametrize(
    ("info", "rejected"),
    [
        pytest.param({}, (0, 0), id="none"),
        pytest.param({"tooOldLogEventEndIndex": 3}, (3, 0), id="too-old"),
        pytest.param({"expiredLogEventEndIndex": 2}, (2, 0), id="expired"),
        pytest.param({"tooNewLogEventStartIndex": 8}, (0, 2), id="too-new"),
        pytest.param({"tooNewLogEventStartIndex": 0}, (0, 10), id="all-too-new"),
        pytest.param(
            {
                "tooOldLogEventEndIndex": 1,
                "expiredLogEventEndIndex": 2,
                "tooNewLogEventStartIndex": 9,
            },
            (2, 1),
            id="everything",
        ),
        pytest.param({"tooOldLogEventEndIndex": None}, (0, 0), id="null"),
    ],
)
def test_rejected_events_are_counted(info: dict[str, object], rejected: tuple[int, int]) -> None:
    assert count_rejected(info, 10) == rejected
