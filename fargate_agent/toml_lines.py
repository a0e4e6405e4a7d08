"""On which line of a TOML file a key stands, which the parser of the standard library doesn't say.

Only for text that the parser has taken: what is wrong there isn't noticed here.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

Path = tuple[str | int, ...]
"""Keys from the top; a number is a position in an array of tables."""

_STRING: Final = r"""
    \"{3}(?:\\.|[^\\])*?\"{3,5}(?!\")  |  '{3}.*?'{3,5}(?!')
  | \"(?:\\.|[^\"\\\n])*\"             |  '[^'\n]*'
"""
"""Source: TOML v1.0.0, "String"; up to two quotes may stand before the three that end one."""

_TOKEN: Final = re.compile(rf"(?P<string>{_STRING})|\#[^\n]*|[\[\]{{}}=\n]", re.DOTALL | re.VERBOSE)
_KEY: Final = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'|[A-Za-z0-9_-]+')


def find_line(text: str, path: Sequence[str | int]) -> int | None:
    """Return the line of a key, or of the nearest one above it that has a line of its own."""
    lines = _find_lines(text)
    for length in range(len(path), 0, -1):
        line = lines.get(tuple(path[:length]))
        if line is not None:
            return line
    return None


def _find_lines(text: str) -> Mapping[Path, int]:
    lines: dict[Path, int] = {}
    last: dict[Path, int] = {}
    """Position of the newest table in each array of tables."""
    table: Path = ()
    for line, head in _statements(text):
        keys = [_unquote(key) for key in _KEY.findall(head)]
        if head.startswith("[["):
            array = (*_resolve((), keys[:-1], last), keys[-1])
            last[array] = last.get(array, -1) + 1
            table = (*array, last[array])
        elif head.startswith("["):
            table = _resolve((), keys, last)
        path = table if head.startswith("[") else _resolve(table, keys, last)
        for length in range(1, len(path) + 1):
            lines.setdefault(path[:length], line)
    return lines


def _resolve(start: Path, keys: Sequence[str], last: Mapping[Path, int]) -> Path:
    """Follow keys; one that names an array of tables means its newest table."""
    path = start
    for key in keys:
        path = (*path, key)
        if path in last:
            path = (*path, last[path])
    return path


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Give every header as it is, and of every other statement what stands before its `=`."""
    start, depth, end = 0, 0, None
    for token in _TOKEN.finditer(f"{text}\n"):
        kind = token[0][0]
        if depth == 0 and end is None and kind in "=#\n":
            end = token.start()
        if kind in "[{":
            depth += 1
        elif kind in "]}":
            depth -= 1
        elif kind == "\n" and depth == 0:
            head = text[start:end]
            if head.strip():
                blank = len(head) - len(head.lstrip())
                yield text.count("\n", 0, start + blank) + 1, head.strip()
            start, end = token.end(), None


def _unquote(key: str) -> str:
    return next(iter(tomllib.loads(f"{key} = 0")))
