"""What the text of a secret is: an object with members, something that can be written; pure."""

import json
from typing import Any

from fargate_agent.secrets.tries import FetchError


def read_object(text: str) -> dict[str, Any] | None:
    """Return a secret as the object that it is; None if it is none."""
    try:
        secret = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return secret if isinstance(secret, dict) else None


def pick(text: str, key: str, failed: str) -> str:
    """Return one member: a string as it is, anything else as JSON.

    Raises:
        FetchError: the secret is no object, or has no such member. The text begins with `failed`
            and shows nothing of the secret.
    """
    secret = read_object(text)
    if secret is None:
        raise FetchError(f"{failed}: the secret is not a JSON object, so it has no key {key}")
    if key not in secret:
        raise FetchError(
            f"{failed}: retrieved secret from Secrets Manager did not contain json key {key}"
        )
    return show_member(secret[key])


def show_member(value: object) -> str:
    """Return a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def can_be_written(text: str) -> bool:
    r"""Whether there are bytes for a text.

    JSON can name half a character, which is none.

    Example:
        >>> can_be_written("ä"), can_be_written("\ud800")
        (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
