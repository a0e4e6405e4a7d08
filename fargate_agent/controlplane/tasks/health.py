"""How healthy a task is, from the health of its containers. Pure.

A container with a health check has a `healthStatus` in the row of its task from the beginning.

Source: ECS API, HealthCheck.
"""

from collections.abc import Collection, Sequence
from typing import Final

from fargate_agent.controlplane.rules.container import NO_HEALTH_CHECK
from fargate_agent.controlplane.validate import Json

UNKNOWN: Final = "UNKNOWN"
"""No essential container has a health check."""
STARTING: Final = "STARTING"
"""One has, which hasn't passed yet and hasn't failed. Clients are told UNKNOWN."""
HEALTHY: Final = "HEALTHY"
UNHEALTHY: Final = "UNHEALTHY"


def has_check(container: Json) -> bool:
    """Whether a container of a task definition has a health check."""
    check = container.get("healthCheck")
    return check is not None and check["command"] != NO_HEALTH_CHECK


def may_restart(container: Json) -> bool:
    """Whether a container of a task definition has a restart policy that is in force."""
    return bool(container.get("restartPolicy", {}).get("enabled"))


def is_passed(status: str) -> bool:
    """Whether a task of this health has passed the checks that it has."""
    return status in (HEALTHY, UNKNOWN)


def judge(containers: Sequence[Json], essential: Collection[str]) -> str:
    """Return the health of a task.

    Args:
        containers: as the row of the task has them.
        essential: names of those that count.
    """
    found = {
        container["healthStatus"]
        for container in containers
        if container["name"] in essential and "healthStatus" in container
    }
    if not found:
        return UNKNOWN
    if UNHEALTHY in found:
        return UNHEALTHY
    return STARTING if UNKNOWN in found else HEALTHY
