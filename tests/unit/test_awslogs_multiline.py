"""Lines that belong together."""

import pytest

from destinations.multiline import Joiner, compile_datetime, compile_pattern
from reading.lines import Lines

MAX_BYTES = 262_118


def make_joiner(pattern: str = "^TEST", max_bytes: int = MAX_BYTES) -> Joiner:
    return Joiner(compile_pattern(pattern), max_bytes)


def join(joiner: Joiner, *texts: bytes, stream: str = "stdout") -> list[bytes]:
    """Give lines, and return what that ended."""
    return [
        text
        for number, lines in enumerate(texts, 1)
        for _, text in joiner.take(Lines(stream, number, lines))
    ]


def test_line_that_matches_begins_an_event() -> None:
    joiner = make_joiner()

    ended = join(joiner, b"TEST 1\n  more\nTEST 2", b"TEST 3")

    assert ended == [b"TEST 1\n  more\n", b"TEST 2\n"]
    assert joiner.end_all() == [(2, b"TEST 3\n")]


def test_event_has_the_time_of_its_first_line() -> None:
    joiner = make_joiner()

    ended = [
        *joiner.take(Lines("stdout", 10, b"TEST 1")),
        *joiner.take(Lines("stdout", 20, b"more")),
        *joiner.take(Lines("stdout", 30, b"TEST 2")),
    ]

    assert ended == [(10, b"TEST 1\nmore\n")]


def test_streams_do_not_cut_each_other() -> None:
    joiner = make_joiner()

    ended = join(joiner, b"TEST 1") + join(joiner, b"TEST e", stream="stderr") + join(joiner, b"m")

    assert ended == []
    assert sorted(text for _, text in joiner.end_all()) == [b"TEST 1\nm\n", b"TEST e\n"]


def test_event_ends_when_it_gets_too_long() -> None:
    joiner = make_joiner(max_bytes=20)

    ended = join(joiner, b"TEST\n0123456789\n0123456789\n0123456789")

    assert ended == [b"TEST\n0123456789\n", b"0123456789\n"]


def test_pieces_of_a_long_line_are_put_together_and_begin_nothing() -> None:
    joiner = make_joiner()

    ended = [
        *joiner.take(Lines("stdout", 1, b"TEST", ("id", 1, False), goes_on=True)),
        *joiner.take(Lines("stdout", 1, b"TEST", ("id", 2, True))),
    ]

    assert ended == []
    assert joiner.end_all() == [(1, b"TESTTEST\n")]


def test_last_line_without_newline_gets_none() -> None:
    joiner = make_joiner()

    joiner.take(Lines("stdout", 1, b"TEST\nend", goes_on=True))

    assert joiner.end_all() == [(1, b"TEST\nend")]


def test_young_event_waits_and_is_counted() -> None:
    joiner = make_joiner()
    join(joiner, b"TEST\nmore")

    assert joiner.end_old() == []
    assert (joiner.count_lines(), joiner.count_bytes()) == (2, 10)


@pytest.mark.parametrize(
    ("text", "line", "begins"),
    [
        pytest.param("^[[:digit:]]{4}-", "2026-", True, id="posix-class"),
        pytest.param("^[[:upper:][:digit:]_]+$", "A_1", True, id="posix-classes"),
        pytest.param("^[[:upper:]]", "a", False, id="posix-class-differs"),
        pytest.param("[[:^space:]]", "a b", True, id="negated-posix-class"),
        pytest.param("[[:^space:]]", " \t", False, id="negated-posix-class-differs"),
        pytest.param(r"end\z", "end", True, id="end-of-text"),
        pytest.param("(?i)^error", "ERROR", True, id="flag"),
        pytest.param("^(?i)error", "ERROR", True, id="flag-inside"),
        pytest.param("(?U)^E.*", "ERROR", True, id="ungreedy"),
        pytest.param(r"^\p{Lu}+", "ÄRGER", True, id="unicode-class"),
        pytest.param(r"^\p{Lu}+", "ärger", False, id="unicode-class-differs"),
        pytest.param(r"^\QE.\E", "E.", True, id="quoted"),
        pytest.param(r"^\QE.\E", "Ex", False, id="quoted-differs"),
        pytest.param(r"^\x{45}", "E", True, id="code-point"),
        pytest.param(r"(?P<level>E)", "E", True, id="named-group"),
        pytest.param("ö.🐟", "xöx🐟", True, id="characters-not-bytes"),
        pytest.param("^.$", "\ufffd", True, id="what-was-no-utf-8"),
        pytest.param(r"^\d", "٣", False, id="digits-are-those-of-ascii"),
        pytest.param("^(a+)+$", "a" * 100_000 + "b", False, id="linear-time"),
    ],
)
def test_pattern_means_what_it_means_in_re2(text: str, line: str, begins: bool) -> None:
    assert compile_pattern(text)(line.encode()) is begins


@pytest.mark.parametrize(
    ("text", "line", "begins"),
    [
        pytest.param(r"\[%b %d, %Y %H:%M:%S\]", "[Jan 05, 2026 23:59:07] x", True, id="upstream"),
        pytest.param(r"\[%b %d, %Y %H:%M:%S\]", "[Jan 35, 2026 23:59:07] x", False, id="no-day"),
        pytest.param("%Y-%m-%dT%H:%M:%S%L%z", "2026-12-31T00:00:00.123+0100", True, id="iso"),
        pytest.param("%A %a %w %B", "Monday Tue 6 December", True, id="names"),
        pytest.param("%y %I %p %f %Z %j", "26 12 PM 123456 UTC 366", True, id="others"),
        pytest.param("%j$", "010", True, id="day-of-the-year"),
        pytest.param("100%%", "100%", True, id="percent"),
        pytest.param("%Q", "%Q", True, id="unknown-directive"),
    ],
)
def test_datetime_format_is_found_in_a_line(text: str, line: str, begins: bool) -> None:
    assert compile_datetime(text)(line.encode()) is begins


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        pytest.param("^(TEST", "missing ): ^(TEST", id="none"),
        pytest.param("a{1001}", "invalid repetition size: {1001}", id="too-often"),
        pytest.param(r"^(?!\s)", "invalid perl operator: (?!", id="looks-ahead"),
        pytest.param("(?<=E)r", "invalid perl operator: (?<=", id="looks-behind"),
        pytest.param(r"(E)\1", r"invalid escape sequence: \1", id="refers-back"),
        pytest.param("E++", "bad repetition operator: ++", id="possessive"),
        pytest.param(r"E\Z", r"invalid escape sequence: \Z", id="end-as-python-has-it"),
        pytest.param("\udcff", "invalid UTF-8", id="no-utf-8"),
    ],
)
def test_pattern_that_is_none_is_an_error(pattern: str, text: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is compared whole
        compile_pattern(pattern)

    assert str(raised.value) == text


def test_line_that_is_no_utf_8_is_searched_as_it_is_sent() -> None:
    joiner = make_joiner("^.END")

    assert join(joiner, b"TEST\n\xffEND") == [b"TEST\n"]
    assert joiner.end_all() == [(1, "\ufffdEND\n".encode())]
