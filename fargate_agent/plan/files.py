"""The files of a container that are texts or secrets, and secrets that are many variables; pure."""

import posixpath
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan.model import FilePlan
from fargate_agent.wire.containers import ContainerMessage

_CLOSED: Final = ("/proc", "/sys", "/dev")


def plan_files(container: ContainerMessage) -> tuple[FilePlan, ...]:
    """Return the files in the order of the message: secrets, then texts.

    Raises:
        ResourceInitializationError: one has no place that a file can be at. A control plane of ours
            has refused that when the task definition was registered.
    """
    files = [
        *(
            FilePlan(destination=secret.container_path or "", reference=secret.value_from)
            for secret in container.secrets
            if secret.type == "MOUNT_POINT"
        ),
        *(FilePlan(destination=file.container_path, text=file.text) for file in container.files),
    ]
    for file in files:
        _check_destination(file.destination, container.name)
    return tuple(files)


def plan_secret_objects(container: ContainerMessage) -> tuple[tuple[str, str], ...]:
    """Return prefix and reference of each secret whose members are variables."""
    return tuple(
        (secret.prefix, secret.value_from)
        for secret in container.secrets
        if secret.type == "ALL_KEYS"
    )


def _check_destination(path: str, container: str) -> None:
    is_whole = path == posixpath.normpath(path) and path.startswith("/") and path[1:2] not in "/"
    if not is_whole or any(f"{path}/".startswith(f"{closed}/") for closed in _CLOSED):
        raise ResourceInitializationError(
            f"container '{container}': there can't be a file at '{path}'", container=container
        )
