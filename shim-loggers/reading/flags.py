"""What a logger is told on its command line: pairs in any order, as containerd's shim makes them.

Source: containerd, pkg/process/io_util.go; moby and docker/go-units for sizes.
"""

DECIMAL = 1000
BINARY = 1024
DEFAULT_BUFFER = "1m"
"""Source: shim-loggers-for-containerd, `max-buffer-size`."""
MAX_SIZE_DIGITS = 15
"""More would be more than anything holds."""
_UNITS = ("", "k", "m", "g", "t", "p")
_DURATIONS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TRUE = ("1", "t", "true")
_FALSE = ("0", "f", "false")


def parse_flags(arguments: list[str]) -> dict[str, str]:
    """Read `--flag value` and `--flag=value`; an empty value counts as none.

    Raises:
        ValueError: something isn't a flag.
    """
    flags = {}
    rest = arguments[::-1]
    while rest:
        name, equals, value = rest.pop().partition("=")
        if name and not name.startswith("--"):
            raise ValueError("not a flag: " + name)
        if name and not equals and rest:
            value = rest.pop()
        if value:
            flags[name[2:]] = value
    return flags


def parse_bool(flags: dict[str, str], name: str, default: bool) -> bool:
    """Read yes or no.

    Raises:
        ValueError: it is neither.
    """
    text = flags.get(name, "").lower()
    if text and text not in _TRUE + _FALSE:
        raise ValueError(f"invalid value for {name}: '{text}'")
    return text in _TRUE if text else default


def parse_size(text: str, base: int) -> int:
    """Read a number of bytes with a unit, e.g. `10m`; `base` is DECIMAL or BINARY.

    Raises:
        ValueError: it is none, or negative.
    """
    lower = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = lower[-1:] if lower[-1:] in _UNITS else ""
    number = lower.removesuffix(unit).rstrip(" ")
    if not number.replace(".", "", 1).isdecimal() or len(number) > MAX_SIZE_DIGITS:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(number) * base ** _UNITS.index(unit))


def parse_buffer_size(flags: dict[str, str]) -> int:
    """Read how many bytes of lines may be held.

    Raises:
        ValueError: it is no size.
    """
    return parse_size(flags.get("max-buffer-size", DEFAULT_BUFFER), BINARY)


def parse_duration(text: str) -> float:
    """Read a span of time with its units, e.g. `1m30s` or `500ms`; return seconds.

    Raises:
        ValueError: it is none. Source: Go, time.ParseDuration.
    """
    seconds, rest = 0.0, text
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        unit = rest[len(number) :]
        unit = unit[: len(unit) - len(unit.lstrip("nsuµmh"))]
        if unit not in _DURATIONS_S or not number.replace(".", "", 1).isdecimal():
            break
        seconds += float(number) * _DURATIONS_S[unit]
        rest = rest[len(number) + len(unit) :]
    if rest and text != "0" or not text:
        raise ValueError(f"invalid duration: '{text}'")
    return seconds
