"""What a logger is told on its command line: pairs in any order, as containerd's shim makes them.

Source: containerd, pkg/process/io_util.go; moby and docker/go-units for sizes.
"""

DECIMAL = 1000
BINARY = 1024
_UNITS = ("", "k", "m", "g", "t", "p")
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
    try:
        size = int(float(lower.removesuffix(unit)) * base ** _UNITS.index(unit))
    except (ValueError, OverflowError):
        raise ValueError(f"invalid size: '{text}'") from None
    if size < 0:
        raise ValueError(f"invalid size: '{text}'")
    return size
