"""Tags of what is created."""

from typing import Any

from fargate_agent.controlplane.errors import invalid_parameter


def check_tags(tags: list[Any]) -> None:
    """Return if the tags can be stored; their number and lengths were checked with the request.

    Raises:
        ApiError: a key is missing, reserved, or there twice.
    """
    seen: set[str] = set()
    for tag in tags:
        key = tag.get("key")
        if not key:
            raise invalid_parameter("Tag keys can not be null or empty.")
        if key.lower().startswith("aws:"):
            raise invalid_parameter(f"Tag key '{key}' has the prefix aws:, which is reserved.")
        if key in seen:
            raise invalid_parameter(f"Tag key '{key}' is there twice.")
        seen.add(key)
