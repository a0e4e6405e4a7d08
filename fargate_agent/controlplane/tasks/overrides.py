"""What RunTask may change of a task definition, for one task. Pure."""

import json
from dataclasses import dataclass
from typing import Any, Final

from fargate_agent.controlplane.errors import invalid_parameter
from fargate_agent.controlplane.rules.container import check_containers
from fargate_agent.controlplane.rules.draft import Draft, Rule
from fargate_agent.controlplane.rules.secrets import check_environment
from fargate_agent.controlplane.rules.task import check_roles, check_sums
from fargate_agent.controlplane.sizes import (
    check_ephemeral_storage,
    check_pair,
    no_configuration,
    parse_cpu,
    parse_memory,
)
from fargate_agent.controlplane.validate import Json

MAX_OVERRIDES_CHARS: Final = 8192
"""Source: ECS API, RunTask.overrides."""

DEFAULT_EPHEMERAL_STORAGE_GIB: Final = 20
"""Source: ECS API, EphemeralStorage."""

DEFAULT_CPU_UNITS: Final = 256
DEFAULT_MEMORY_MIB: Final = 512
"""Of a task that Fargate refuses because it says nothing of its size: Fargate's smallest one."""

_RULES: Final[tuple[Rule, ...]] = (
    check_roles,
    check_containers,
    check_environment,
    check_sums,
)
"""What holds for a definition holds for what is made of it. Kinds and texts are those of
RegisterTaskDefinition; that RunTask has the same is unverified."""

_OF_TASK: Final = ("taskRoleArn", "executionRoleArn", "ephemeralStorage")
_REPLACED: Final = ("command", "cpu", "memory", "memoryReservation", "environmentFiles")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSize:
    """What a task may use in all."""

    cpu_units: int
    memory_mib: int
    ephemeral_storage_gib: int
    volumes_gib: int = 0
    """Of EBS volumes in all."""

    @property
    def storage_gib(self) -> int:
        """What all of it takes of an agent's disk."""
        return self.ephemeral_storage_gib + self.volumes_gib


def override_task(definition: Json, overrides: Json) -> Json:
    """Return a definition with those members replaced that are the task's own."""
    return {
        **definition,
        **{member: overrides[member] for member in _OF_TASK if member in overrides},
    }


def override_containers(definition: Json, overrides: Json) -> list[Json]:
    """Return the containers of a definition as this task is to have them.

    Raises:
        ApiError: an override is for a container that isn't there, or they are too long.
    """
    by_name = {
        container["name"]: dict(container) for container in definition["containerDefinitions"]
    }
    for override in overrides.get("containerOverrides", []):
        name = override.get("name")
        if name not in by_name:
            shown = "null" if name is None else name  # unverified
            raise invalid_parameter(
                f"Override for container named {shown} is not a container in the TaskDefinition."
            )
        by_name[name] = _override(by_name[name], override)
    if len(json.dumps(overrides, separators=(",", ":"))) > MAX_OVERRIDES_CHARS:
        raise invalid_parameter(f"Container Overrides length must be at most {MAX_OVERRIDES_CHARS}")
    return list(by_name.values())


def check_overridden(
    definition: Json, overrides: Json, containers: list[Json], size: TaskSize, account: str
) -> None:
    """Return if the overrides leave a task that could have been defined so.

    Args:
        definition: that the task is made of.
        overrides: of RunTask.
        containers: of the definition, with the overrides.
        size: of the task, with the overrides.
        account: id of the account that the task is in.

    Raises:
        ApiError: a container has less or more than can be, or a role or a file is none.
    """
    changed: Json = {
        **override_task(definition, overrides),
        "containerDefinitions": containers,
        "cpu": str(size.cpu_units),
        "memory": str(size.memory_mib),
    }
    for rule in _RULES:
        rule(Draft(changed, account))


def plan_size(
    definition: Json, overrides: Json, *, relaxed: bool = False, has_32_vcpus: bool = True
) -> TaskSize:
    """Return the size of a task.

    Args:
        definition: that it is made of.
        overrides: of RunTask.
        relaxed: whether it may be one that Fargate doesn't have. What the task as a whole doesn't
            say then follows from its containers.
        has_32_vcpus: whether Fargate has tasks of that size here.

    Raises:
        ApiError: Fargate has no such size, or it can't be read.
    """
    cpu = overrides.get("cpu") or definition.get("cpu")
    memory = overrides.get("memory") or definition.get("memory")
    if relaxed:
        containers = definition["containerDefinitions"]
        cpu = cpu or str(_sum(containers, "cpu") or DEFAULT_CPU_UNITS)
        memory = memory or str(
            _sum(containers, "memory", "memoryReservation") or DEFAULT_MEMORY_MIB
        )
    cpu_units, memory_mib = parse_cpu(cpu or ""), parse_memory(memory or "")
    if relaxed:
        _check_positive(cpu_units, memory_mib)
    else:
        check_pair(cpu_units, memory_mib, has_32_vcpus=has_32_vcpus)
    storage = overrides.get("ephemeralStorage") or definition.get("ephemeralStorage")
    if storage is None:
        gib = DEFAULT_EPHEMERAL_STORAGE_GIB
    else:
        gib = storage["sizeInGiB"]
        check_ephemeral_storage(gib)
    return TaskSize(cpu_units=cpu_units, memory_mib=memory_mib, ephemeral_storage_gib=gib)


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


def _sum(containers: list[Json], *members: str) -> int:
    """Add up what each container says by the first of the members that it has."""
    return sum(
        next((container[member] for member in members if container.get(member)), 0)
        for container in containers
    )


def _check_positive(cpu_units: int, memory_mib: int) -> None:
    if cpu_units < 1 or memory_mib < 1:
        raise no_configuration(cpu_units, memory_mib)
