"""JSON as loggers read and write it, against the standard library's."""

import json
import random

import pytest

from local.json_text import parse_json, quote


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, 2.5, -3e4, true, false, null], "b": {"c": "\\u00e9\\n\\ud83d\\ude00"}}',
        " [] ",
        "\n\t12\r\n",
        '"größer"',
        '{"a": 1, "a": 2}',
    ],
)
def test_value_is_read(text: str) -> None:
    assert parse_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half-an-object"),
        pytest.param(b"{} {}", id="two-values"),
        pytest.param(b"{'a': 1}", id="wrong-quotes"),
        pytest.param(b"[1,]", id="comma-at-the-end"),
        pytest.param(b"NaN", id="not-a-number"),
        pytest.param(b'[-Infinity, "x"]', id="infinity"),
        pytest.param(b'"\xff"', id="not-UTF-8"),
        pytest.param(b'"a\nb"', id="newline-in-a-string"),
        pytest.param("\ufeff{}".encode(), id="byte-order-mark"),
        pytest.param(b"[" * 100_000, id="too-deep"),
        pytest.param(b"9" * 5000, id="too-many-digits"),
    ],
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="."):
        parse_json(data)


def test_any_bytes_become_a_string() -> None:
    chance = random.Random(1)
    for _ in range(200):
        data = chance.randbytes(100)

        assert json.loads(quote(data)) == data.decode(errors="replace")
