"""What a server answers to a client that hasn't logged in: the field `WWW-Authenticate`.

Source: RFC 9110, 11.2, 11.3 and 11.6.1.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
"""What RFC 9110 calls a token."""
_SPACE: Final = r"[ \t]*"
_END: Final = rf"(?={_SPACE}(?:,|$))"

_PARAMETER: Final = re.compile(
    rf'({_WORD}){_SPACE}={_SPACE}(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)){_END}', re.DOTALL
)
"""A value without quotes may hold more than a token: registries send URLs so."""

_SCHEME: Final = re.compile(rf"({_WORD})(?=[ \t,]|$)")
_BETWEEN: Final = re.compile(r"[\s,]*")
_OTHER: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"|")+', re.DOTALL)
"""The rest of an element that is neither, as far as the next comma outside of quotes."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in that a server offers."""

    scheme: str
    """In small letters."""
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """By name in small letters."""


def parse_challenges(fields: Iterable[str]) -> tuple[Challenge, ...]:
    """Read every challenge in every field, in order. What is no challenge is passed over."""
    return tuple(challenge for text in fields for challenge in _parse_field(text))


def _parse_field(text: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while (position := _skip(text, position)) < len(text):
        if match := _PARAMETER.match(text, position):
            name, quoted, plain = match.groups()
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
            if found:
                found[-1][1].setdefault(name.lower(), value)
        elif match := _SCHEME.match(text, position):
            found.append((match[1].lower(), {}))
        else:
            match = _OTHER.match(text, position)
        position = match.end() if match else len(text)
    return [Challenge(scheme, MappingProxyType(parameters)) for scheme, parameters in found]


def _skip(text: str, position: int) -> int:
    between = _BETWEEN.match(text, position)
    return between.end() if between else position
