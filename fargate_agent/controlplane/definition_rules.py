"""What RegisterTaskDefinition refuses, in AWS's order and words.

Source: texts as measured on the ECS API; see the reference on task definitions.
"""

import re
from typing import Any, Final

from fargate_agent.controlplane.errors import ApiError, client_error
from fargate_agent.controlplane.sizes import check_pair, parse_cpu, parse_memory
from fargate_agent.controlplane.validate import Json

MAX_CONTAINERS: Final = 10
"""Source: Amazon ECS service quotas, "Containers per task definition"."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")


def check_definition(request: Json) -> None:
    """Return if a task definition can be registered; cpu and memory are normalised already.

    Raises:
        ApiError: the first thing that is wrong.
    """
    containers = request["containerDefinitions"]
    if not _NAME.fullmatch(request["family"]):
        raise client_error("Family contains invalid characters.")
    if not containers:
        raise client_error("Container list cannot be empty.")
    if len(containers) > MAX_CONTAINERS:
        raise client_error(f"A task definition can have at most {MAX_CONTAINERS} containers.")
    _check_names(containers)
    if not any(container.get("essential", True) for container in containers):
        raise client_error("Task definition doesn't have any essential container.")
    if "FARGATE" in request.get("requiresCompatibilities", []):
        _check_network_mode(request)
    for container in containers:
        _check_container(container, request)
    _check_dependencies(containers)
    if "FARGATE" in request.get("requiresCompatibilities", []):
        _check_fargate_size(request)
    _check_cpu_sum(request)
    _check_volumes(request)


def is_fargate_compatible(request: Json) -> bool:
    """Whether tasks of a definition that passed `check_definition` can run on Fargate."""
    try:
        _check_network_mode(request)
        _check_fargate_size(request)
    except ApiError:
        return False
    return True


def _check_names(containers: list[Any]) -> None:
    for container in containers:
        if not container.get("name"):
            raise client_error("Container.name should not be null or empty.")
        if not _NAME.fullmatch(container["name"]):
            raise client_error("Container.name contains invalid characters.")
    if len({container["name"] for container in containers}) != len(containers):
        raise client_error("Container names must be unique within a task definition")


def _check_network_mode(request: Json) -> None:
    if request.get("networkMode") != "awsvpc":
        raise client_error("Fargate only supports network mode ‘awsvpc’.")


def _check_container(container: Json, request: Json) -> None:
    name = container["name"]
    if not container.get("image"):
        raise client_error("Container.image should not be null or empty.")
    memory, reservation = container.get("memory"), container.get("memoryReservation")
    if memory is None and reservation is None and "memory" not in request:
        raise client_error(
            f"Invalid setting for container '{name}'. At least one of 'memory' or "
            "'memoryReservation' must be specified."
        )
    if memory is not None and reservation is not None and memory < reservation:
        raise client_error(
            f"Invalid setting for container '{name}'. 'memory' must be greater than or equal to "
            "'memoryReservation'."
        )
    if memory is not None and "memory" in request and memory > int(request["memory"]):
        raise client_error(
            f"The 'memory' setting for container '{name}' is greater than for the task."
        )


def _check_dependencies(containers: list[Any]) -> None:
    known = {container["name"]: container for container in containers}
    for container in containers:
        for dependency in container.get("dependsOn", []):
            other = known.get(dependency["containerName"])
            if other is None:
                raise client_error(
                    f"Cannot depend on container + '{dependency['containerName']}' because it "
                    "does not exist"
                )
            if dependency["condition"] in {"SUCCESS", "COMPLETE"} and other.get("essential", True):
                raise client_error(
                    "A dependency container with SUCCESS or COMPLETE condition cannot be an "
                    "essential container"
                )
        for source in container.get("volumesFrom", []):
            if source.get("sourceContainer") not in known:
                raise client_error(
                    "Invalid 'volumesFrom' setting. Unknown container: "
                    f"'{source.get('sourceContainer')}'."
                )


def _check_fargate_size(request: Json) -> None:
    for member in ("cpu", "memory"):
        if member not in request:
            raise client_error(f"Fargate requires that '{member}' be defined at the task level.")
    check_pair(parse_cpu(request["cpu"]), parse_memory(request["memory"]))


def _check_cpu_sum(request: Json) -> None:
    total = sum(container.get("cpu", 0) for container in request["containerDefinitions"])
    if "cpu" in request and total > int(request["cpu"]):
        raise client_error(
            "The sum of all container 'cpu' values cannot be greater than the value of the task "
            "'cpu'."
        )


def _check_volumes(request: Json) -> None:
    known = [volume.get("name", "") for volume in request.get("volumes", [])]
    used = {
        point.get("sourceVolume")
        for container in request["containerDefinitions"]
        for point in container.get("mountPoints", [])
    }
    for name in sorted(used - set(known), key=str):
        raise client_error(f"Unknown volume '{name}'.")
    if unused := [name for name in known if name not in used]:
        raise client_error(
            f"Volumes [{', '.join(unused)}] are not referenced by any of the containers"
        )
