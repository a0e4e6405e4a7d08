"""What a logger is told on its command line."""

import pytest

from reading.flags import BINARY, DECIMAL, parse_bool, parse_duration, parse_flags, parse_size


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        pytest.param(["--a", "1", "--b", "2"], {"a": "1", "b": "2"}, id="pairs"),
        pytest.param(["--a=1", "--b="], {"a": "1"}, id="with-equals"),
        pytest.param(["--a", ""], {}, id="empty-value-is-none"),
        pytest.param(["", "--a", "1", ""], {"a": "1"}, id="empty-arguments"),
        pytest.param(["--a", "--b", "--c", "x"], {"a": "--b", "c": "x"}, id="value-like-a-flag"),
        pytest.param(["--a", "x=y"], {"a": "x=y"}, id="equals-in-a-value"),
        pytest.param([], {}, id="nothing"),
    ],
)
def test_flags_are_pairs_in_any_order(arguments: list[str], flags: dict[str, str]) -> None:
    assert parse_flags(arguments) == flags


def test_argument_that_is_no_flag_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a flag: x"):
        parse_flags(["--a", "1", "x"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("T", True), ("1", True), ("False", False), ("f", False), ("0", False)],
)
def test_bool_is_read_as_go_reads_it(text: str, expected: bool) -> None:
    assert parse_bool({"a": text}, "a", default=not expected) is expected


@pytest.mark.parametrize("default", [True, False])
def test_bool_has_a_default(default: bool) -> None:
    assert parse_bool({}, "a", default=default) is default


def test_bool_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="invalid value for a: 'maybe'"):
        parse_bool({"a": "maybe"}, "a", default=True)


@pytest.mark.parametrize(
    ("text", "base", "size"),
    [
        ("2m", BINARY, 2 * 1024 * 1024),
        ("4k", BINARY, 4096),
        ("4K", DECIMAL, 4000),
        ("1234", BINARY, 1234),
        ("1.5 KB", DECIMAL, 1500),
        ("10MiB", BINARY, 10 * 1024 * 1024),
        ("1g", BINARY, 1024**3),
    ],
)
def test_size_has_a_unit(text: str, base: int, size: int) -> None:
    assert parse_size(text, base) == size


@pytest.mark.parametrize(
    "text", ["", "3q", "-1", "ten", "k", "1e3", "1_000", "nan", "inf", "1.2.3"]
)
def test_size_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        parse_size(text, BINARY)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("500ms", 0.5), ("1m30s", 90), ("1.5h", 5400), ("0", 0), ("100us", 1e-4)],
)
def test_duration_has_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "3", "s", "3x", "-1s", "1s2", "m5"])
def test_duration_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="invalid duration"):
        parse_duration(text)
