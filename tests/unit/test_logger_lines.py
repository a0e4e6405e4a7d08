"""From what a pipe gives to lines, and to the pieces of lines that are too long."""

import random

import pytest

from reading.lines import Lines, Splitter

LIMIT = 16 * 1024
CLOUDWATCH_LIMIT = 262_118


def split(*reads: bytes, max_bytes: int = 8) -> list[Lines]:
    """Split what several reads gave; the reads come 1, 2, 3 … ns after the epoch."""
    splitter = Splitter("stdout", max_bytes)
    taken = [lines for now, data in enumerate(reads, 1) for lines in splitter.take(data, now)]
    return taken + splitter.finish(len(reads) + 1)


def texts(*reads: bytes, max_bytes: int = 8) -> list[bytes]:
    return [text for one in split(*reads, max_bytes=max_bytes) for text in one.text.split(b"\n")]


@pytest.mark.parametrize(
    ("reads", "expected"),
    [
        pytest.param([b"a\nb\n"], [b"a", b"b"], id="lines"),
        pytest.param([b"a", b"b\nc", b"\n"], [b"ab", b"c"], id="line-over-many-reads"),
        pytest.param([b"\n\n"], [b"", b""], id="blank-lines"),
        pytest.param([b"a\nend"], [b"a", b"end"], id="no-newline-at-the-end"),
        pytest.param([b"a\r\n"], [b"a\r"], id="carriage-return-is-kept"),
        pytest.param([b"\0\n\0\0"], [b"\0", b"\0\0"], id="nul"),
        pytest.param([b"12345678\n"], [b"12345678"], id="exactly-the-limit"),
        pytest.param([b"12345678", b"\n"], [b"12345678"], id="exactly-the-limit-in-two-reads"),
        pytest.param([b"12345678"], [b"12345678"], id="exactly-the-limit-at-the-end"),
        pytest.param([b"123456789\n"], [b"12345678", b"9"], id="one-too-long"),
        pytest.param([b"12345678", b"9\n"], [b"12345678", b"9"], id="one-too-long-in-two-reads"),
        pytest.param(
            [b"a\n123456789\nb\n"], [b"a", b"12345678", b"9", b"b"], id="long-between-short"
        ),
        pytest.param([b"1234567" + "é".encode() + b"\n"], [b"1234567", b"\xc3\xa9"], id="utf-8"),
        pytest.param(
            [b"12345" + "🐟".encode() + b"\n"], [b"12345", "🐟".encode()], id="utf-8-of-4-bytes"
        ),
        pytest.param([b"\x80" * 9 + b"\n"], [b"\x80" * 4, b"\x80" * 5], id="not-utf-8"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_splitter_gives_each_line_once(reads: list[bytes], expected: list[bytes]) -> None:
    assert texts(*reads) == expected


@pytest.mark.parametrize(
    "max_bytes", [pytest.param(LIMIT, id="16-KiB"), pytest.param(CLOUDWATCH_LIMIT, id="cloudwatch")]
)
def test_long_line_comes_in_pieces_of_at_most_the_limit(max_bytes: int) -> None:
    line = b"x" * (3 * max_bytes)

    pieces = split(
        *(line[start : start + 32_768] for start in range(0, len(line), 32_768)),
        b"!\nnext\n",
        max_bytes=max_bytes,
    )

    assert [len(piece.text) for piece in pieces] == [max_bytes, max_bytes, max_bytes, 1, 4]
    partials = [piece.partial for piece in pieces[:4]]
    assert [partial[1:] for partial in partials if partial] == [
        (1, False),
        (2, False),
        (3, False),
        (4, True),
    ]
    assert len({partial[0] for partial in partials if partial}) == 1
    assert partials[0] is not None
    assert len(partials[0][0]) == 64
    assert [piece.goes_on for piece in pieces] == [True, True, True, False, False]
    assert pieces[4].partial is None


def test_pieces_of_a_line_have_the_time_of_the_first() -> None:
    pieces = split(b"short\n", b"123456789", b"0", b"1\n")

    assert [piece.time_ns for piece in pieces] == [1, 2, 2]


def test_two_long_lines_have_different_ids() -> None:
    pieces = split(b"123456789\n123456789\n")

    names = [piece.partial[0] for piece in pieces if piece.partial]
    assert names[0] == names[1] != names[2] == names[3]


def test_last_line_without_newline_says_that_it_goes_on() -> None:
    lines = split(b"a\nb\nend")

    assert [(one.text, one.goes_on, one.partial) for one in lines] == [
        (b"a\nb", False, None),
        (b"end", True, None),
    ]


def test_long_line_without_newline_ends_with_its_last_piece() -> None:
    pieces = split(b"123456789")

    assert [piece.goes_on for piece in pieces] == [True, True]
    assert [piece.partial[1:] for piece in pieces if piece.partial] == [(1, False), (2, True)]


def test_lines_read_at_once_are_one_object() -> None:
    lines = split(b"a\n" * 100)

    assert [one.count() for one in lines] == [100]


@pytest.mark.parametrize("seed", range(5))
def test_splitter_loses_and_adds_nothing_whatever_the_reads_are(seed: int) -> None:
    draw = random.Random(seed)
    sent = b"".join(
        draw.choice([b"x", b"\n", b"\0", b"\xff", "é".encode(), b"long" * 9]) for _ in range(2000)
    )
    cuts = sorted(draw.randrange(len(sent)) for _ in range(300))

    lines = split(*(sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)))

    assert b"".join(one.text + b"\n" * (not one.goes_on) for one in lines) == sent
    assert all(len(text) <= 8 for one in lines for text in one.text.split(b"\n"))
