"""One member of a secret that is a JSON object; pure."""

import json
from typing import Any

from fargate_agent.secrets.tries import FetchError


def read_object(text: str, failed: str) -> dict[str, Any]:
    """Return a secret as the object that it is.

    Raises:
        FetchError: it is none. The text begins with `failed` and shows nothing of the secret.
    """
    try:
        secret = json.loads(text)
    except (ValueError, RecursionError):
        secret = None
    if not isinstance(secret, dict):
        raise FetchError(f"{failed}: the secret is not a JSON object")
    return secret


def pick(text: str, key: str, failed: str) -> str:
    """Return one member: a string as it is, anything else as JSON.

    Raises:
        FetchError: the secret is no object, or has no such member.
    """
    try:
        secret = read_object(text, failed)
    except FetchError as error:
        raise FetchError(f"{error}, so it has no key {key}") from None
    if key not in secret:
        raise FetchError(
            f"{failed}: retrieved secret from Secrets Manager did not contain json key {key}"
        )
    value = secret[key]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
