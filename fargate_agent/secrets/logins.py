"""What a secret of `repositoryCredentials` holds; pure."""

from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.secrets.pick import can_be_written, read_object

FAILED: Final = "unable to pull secrets or registry auth: unable to retrieve registry auth from asm"


def read_login(text: str, reference: str) -> tuple[str, str]:
    """Return user and password. Source: ECS developer guide, private registry authentication.

    Raises:
        ResourceInitializationError: the secret isn't `{"username": "…", "password": "…"}`; the
            text shows nothing of it.
    """
    found = read_object(text) or {}
    match found.get("username"), found.get("password"):
        case str(user), str(password) if user and password and can_be_written(user + password):
            return user, password
    raise ResourceInitializationError(
        f'{FAILED}: the secret {reference} is not {{"username": "…", "password": "…"}}'
    )
