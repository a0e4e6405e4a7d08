"""Rules about one container, whatever it runs on."""

import re
from typing import Final

from fargate_agent.controlplane.errors import client_error
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.validate import Json

MIN_MEMORY_MIB: Final = 4
"""Source: ECS API, ContainerDefinition.memory."""
MAX_IMAGE_CHARS: Final = 255
"""Without the digest. Source: ECS API, ContainerDefinition.image."""
MIN_TIMEOUT_S: Final = 2
"""Source: ECS developer guide, "Container timeouts"."""
MAX_IGNORED_EXIT_CODES: Final = 50
MIN_RESTART_PERIOD_S: Final = 60
MAX_RESTART_PERIOD_S: Final = 1800
"""Source: ECS API, ContainerRestartPolicy."""

HEALTH_CHECK_BOUNDS: Final = {
    "interval": (5, 300),
    "timeout": (2, 60),
    "retries": (1, 10),
    "startPeriod": (0, 300),
}
"""Seconds, seconds, times, seconds. Source: ECS API, HealthCheck."""

NO_HEALTH_CHECK: Final = ["NONE"]
"""The command of a health check that there isn't. Source: Docker, Engine API, HealthConfig.Test."""

_IMAGE: Final = re.compile(r"[A-Za-z0-9][\w./:#-]*(@sha256:[0-9a-f]{64})?", re.ASCII)


def check_containers(draft: Draft) -> None:
    """Raise if a container on its own is wrong."""
    memory_mib = draft.memory_mib()
    for container in draft.containers:
        _check_image(container.get("image"))
        _check_memory(container, memory_mib)
        _check_restarts(container)
        _check_timeouts(container)
        _check_health_check(container)
        if len(container.get("credentialSpecs", [])) > 1:  # unverified
            raise client_error("A container can have at most one credential spec.")


def _check_image(image: str | None) -> None:
    if not image:
        raise client_error("Container.image should not be null or empty.")
    if len(image.partition("@")[0]) > MAX_IMAGE_CHARS or not _IMAGE.fullmatch(image):  # unverified
        raise client_error("Container.image contains invalid characters.")


def _check_memory(container: Json, task_memory_mib: int | None) -> None:
    invalid = f"Invalid setting for container '{container['name']}'."
    memory, reservation = container.get("memory"), container.get("memoryReservation")
    if memory is None and reservation is None and task_memory_mib is None:
        raise client_error(
            f"{invalid} At least one of 'memory' or 'memoryReservation' must be specified."
        )
    for member in ("memory", "memoryReservation"):
        if container.get(member, MIN_MEMORY_MIB) < MIN_MEMORY_MIB:  # unverified
            raise client_error(f"{invalid} '{member}' must be at least {MIN_MEMORY_MIB}.")
    if container.get("cpu", 0) < 0:  # unverified
        raise client_error(f"{invalid} 'cpu' must not be negative.")
    if memory is not None and reservation is not None and memory < reservation:
        raise client_error(
            f"{invalid} 'memory' must be greater than or equal to 'memoryReservation'."
        )
    if memory is not None and task_memory_mib is not None and memory > task_memory_mib:
        raise client_error(
            f"The 'memory' setting for container '{container['name']}' is greater than for the "
            "task."
        )


def _check_restarts(container: Json) -> None:
    policy = container.get("restartPolicy", {})
    period_s = policy.get("restartAttemptPeriod", MIN_RESTART_PERIOD_S)
    if not MIN_RESTART_PERIOD_S <= period_s <= MAX_RESTART_PERIOD_S:
        raise client_error(
            f"The 'restartAttemptPeriod' setting for container '{container['name']}' must be "
            f"between {MIN_RESTART_PERIOD_S} and {MAX_RESTART_PERIOD_S}."
        )
    if len(policy.get("ignoredExitCodes", [])) > MAX_IGNORED_EXIT_CODES:  # unverified
        raise client_error(
            f"The 'ignoredExitCodes' setting for container '{container['name']}' can have at most "
            f"{MAX_IGNORED_EXIT_CODES} exit codes."
        )


def _check_timeouts(container: Json) -> None:
    for member, what in (("startTimeout", "start"), ("stopTimeout", "stop")):
        if container.get(member, MIN_TIMEOUT_S) < MIN_TIMEOUT_S:
            raise client_error(
                f"Granular {what} timeout on container '{container['name']}' must be at least "
                f"{MIN_TIMEOUT_S} seconds."
            )


def _check_health_check(container: Json) -> None:
    check = container.get("healthCheck")
    if check is None:
        return
    kind, *words = check["command"] or [""]
    is_command = kind in {"CMD", "CMD-SHELL"} and words
    if not is_command and check["command"] != NO_HEALTH_CHECK:  # unverified
        raise client_error(
            f"Health check command must start with CMD or CMD-SHELL for container "
            f"'{container['name']}'"
        )
    for member, (low, high) in HEALTH_CHECK_BOUNDS.items():
        value = check.get(member, low)
        if value > high:
            raise client_error(
                f"Health check {member} must be less than or equal to the maximum allowed value "
                f"{high} for container '{container['name']}'"
            )
        if value < low:  # unverified
            raise client_error(
                f"Health check {member} must be greater than or equal to the minimum allowed value "
                f"{low} for container '{container['name']}'"
            )
