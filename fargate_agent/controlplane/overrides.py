"""What RunTask may change of a task definition, for one task. Pure."""

import json
from dataclasses import dataclass
from typing import Any, Final

from fargate_agent.controlplane.errors import invalid_parameter, unsupported
from fargate_agent.controlplane.sizes import check_pair, parse_cpu, parse_memory
from fargate_agent.controlplane.validate import Json

MAX_OVERRIDES_CHARS: Final = 8192
"""Source: ECS API, RunTask.overrides."""

DEFAULT_EPHEMERAL_STORAGE_GIB: Final = 20
MIN_EPHEMERAL_STORAGE_GIB: Final = 21
MAX_EPHEMERAL_STORAGE_GIB: Final = 200
"""Source: ECS API, EphemeralStorage."""

_REPLACED: Final = ("command", "cpu", "memory", "memoryReservation", "environmentFiles")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSize:
    """What a task may use in all."""

    cpu_units: int
    memory_mib: int
    ephemeral_storage_gib: int


def override_containers(definition: Json, overrides: Json) -> list[Json]:
    """Return the containers of a definition as this task is to have them.

    Raises:
        ApiError: an override is too long, or for a container that isn't there.
    """
    if len(json.dumps(overrides, separators=(",", ":"))) > MAX_OVERRIDES_CHARS:
        raise invalid_parameter(f"Container Overrides length must be at most {MAX_OVERRIDES_CHARS}")
    by_name = {
        container["name"]: dict(container) for container in definition["containerDefinitions"]
    }
    for override in overrides.get("containerOverrides", []):
        name = override.get("name")
        if name not in by_name:
            raise invalid_parameter(
                f"Override for container named {name} is not a container in the TaskDefinition."
            )
        if override.get("resourceRequirements"):
            raise unsupported("Overrides of resourceRequirements are not supported.")
        by_name[name] = _override(by_name[name], override)
    return list(by_name.values())


def plan_size(definition: Json, overrides: Json) -> TaskSize:
    """Return the size of a task.

    Raises:
        ApiError: Fargate has no such size.
    """
    cpu = parse_cpu(overrides.get("cpu") or definition["cpu"])
    memory = parse_memory(overrides.get("memory") or definition["memory"])
    check_pair(cpu, memory)
    storage = overrides.get("ephemeralStorage") or definition.get("ephemeralStorage")
    if storage is None:
        gib = DEFAULT_EPHEMERAL_STORAGE_GIB
    else:
        gib = storage["sizeInGiB"]
        check_ephemeral_storage(gib)
    return TaskSize(cpu_units=cpu, memory_mib=memory, ephemeral_storage_gib=gib)


def check_ephemeral_storage(gib: int) -> None:
    """Return if a task can have so much.

    Raises:
        ApiError: it is too little or too much.
    """
    if gib < MIN_EPHEMERAL_STORAGE_GIB:
        raise invalid_parameter(
            f"EphemeralStorage size should be at least {MIN_EPHEMERAL_STORAGE_GIB}"
        )
    if gib > MAX_EPHEMERAL_STORAGE_GIB:
        raise invalid_parameter(
            f"EphemeralStorage size should be at most {MAX_EPHEMERAL_STORAGE_GIB}"
        )


def render_overrides(definition: Json, overrides: Json) -> Json:
    """Return the overrides as a task shows them: every container is listed."""
    given: dict[Any, Json] = {
        override["name"]: override for override in overrides.get("containerOverrides", [])
    }
    return {
        **overrides,
        "containerOverrides": [
            given.get(container["name"], {"name": container["name"]})
            for container in definition["containerDefinitions"]
        ],
        "inferenceAcceleratorOverrides": [],
    }


def _override(container: Json, override: Json) -> Json:
    environment = {pair.get("name"): pair for pair in container.get("environment", [])}
    environment |= {pair.get("name"): pair for pair in override.get("environment", [])}
    return {
        **container,
        **{member: override[member] for member in _REPLACED if member in override},
        "environment": list(environment.values()),
    }
