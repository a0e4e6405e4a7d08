"""Which value of this machine a reference of a task definition means; pure."""

import re
from collections.abc import Iterator
from typing import Final

from fargate_agent.secrets.references import (
    InvalidReferenceError,
    ParameterReference,
    SecretReference,
    parse_reference,
)

_SUFFIX: Final = re.compile(r"-[A-Za-z0-9]{6}\Z")
"""What Secrets Manager puts behind the name of a secret."""


def candidates(reference: SecretReference | ParameterReference) -> Iterator[str]:
    """Give the names that a value may be kept under, the first that is there counts.

    The exact ARN comes first, then the name as it is written there, then what people call the same
    thing: a secret without the six characters that AWS adds, a parameter with or without the slash
    in front.
    """
    match reference:
        case SecretReference(arn=arn):
            name = arn.split(":", 6)[-1]
            yield from dict.fromkeys((arn, name, _SUFFIX.sub("", name)))
        case ParameterReference(name=full):
            arn = _strip_selector(full)
            name = "/" + arn.partition(":parameter/")[2] if arn.startswith("arn:") else arn
            other = name.removeprefix("/") if name.startswith("/") else f"/{name}"
            yield from dict.fromkeys((arn, name, other))


def is_ever_meant(name: str) -> bool:
    """Whether a value under that name can be found: a name has no colon, and an ARN no qualifier.

    Example:
        >>> is_ever_meant("prod/db"), is_ever_meant("/prod/db:3")
        (True, False)
    """
    if ":" not in name:
        return True
    try:
        return name.startswith("arn:") and name in candidates(parse_reference(name, ""))
    except InvalidReferenceError:
        return False


def name_to_set(reference: SecretReference | ParameterReference) -> str:
    """Return the name that people are told to keep a value under."""
    match reference:
        case SecretReference(arn=arn):
            name = arn.split(":", 6)[-1]
            suffix = _SUFFIX.search(name)
            word = "" if suffix is None else suffix[0][1:]
            is_word = word.isalpha() and word.islower()  # as in `my-secret`
            return name if is_word else _SUFFIX.sub("", name)
        case ParameterReference(name=full):
            name = _strip_selector(full)
            return "/" + name.partition(":parameter/")[2] if name.startswith("arn:") else name


def _strip_selector(name: str) -> str:
    """Leave out the version or label of a parameter."""
    if name.startswith("arn:"):
        head, slash, path = name.partition("/")
        return head + slash + path.partition(":")[0]
    return name.partition(":")[0]
