"""What a secret of `repositoryCredentials` holds; pure."""

import json
from typing import Final

from fargate_agent.errors import ResourceInitializationError

FAILED: Final = "unable to pull secrets or registry auth: unable to retrieve registry auth from asm"


def read_login(text: str, reference: str) -> tuple[str, str]:
    """Return user and password. Source: ECS developer guide, private registry authentication.

    Raises:
        ResourceInitializationError: the secret isn't `{"username": "…", "password": "…"}`; the
            text shows nothing of it.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):
        user, password = found.get("username"), found.get("password")
        if isinstance(user, str) and isinstance(password, str) and user and password:
            return user, password
    raise ResourceInitializationError(
        f'{FAILED}: the secret {reference} is not {{"username": "…", "password": "…"}}'
    )
