"""Rules about the task as a whole, whatever it runs on."""

import json
import re
from typing import Final

from fargate_agent.controlplane.errors import ApiError, client_error
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.sizes import check_ephemeral_storage as check_storage_size

MAX_DEFINITION_BYTES: Final = 65_536
"""Source: Amazon ECS service quotas, "Task definition size limit"."""
MAX_CONTAINERS: Final = 10
"""Source: Amazon ECS service quotas, "Containers per task definition"."""

NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
"""Of families, containers and volumes. Source: ECS API, RegisterTaskDefinition."""

_ROLE: Final = re.compile(
    r"(arn:aws[a-z0-9-]*:iam::\d{12}:role/[\w+=,.@/-]{1,576}|[\w+=,.@-]{1,64})", re.ASCII
)
"""An ARN or a short name. Source: IAM API, Role."""


def check_length(draft: Draft) -> None:
    """Raise if the definition is too long. What AWS counts, beside the request, is unverified."""
    request = {name: member for name, member in draft.request.items() if name != "tags"}
    text = json.dumps(request, ensure_ascii=False, separators=(",", ":"))
    if (length := len(text.encode())) > MAX_DEFINITION_BYTES:
        raise definition_too_long(length)


def definition_too_long(length: int) -> ApiError:
    """Return the error for a definition of so many bytes."""
    return client_error(
        f"Actual length: '{length}'. Max allowed length is '{MAX_DEFINITION_BYTES}' bytes."
    )


def check_family(draft: Draft) -> None:
    """Raise if the family can't be a name."""
    if not NAME.fullmatch(draft.request["family"]):
        raise client_error("Family contains invalid characters.")


def check_containers(draft: Draft) -> None:
    """Raise if there are no containers, too many, or if their names aren't names."""
    if not draft.containers:
        raise client_error("Container list cannot be empty.")
    if len(draft.containers) > MAX_CONTAINERS:  # unverified
        raise client_error(f"A task definition can have at most {MAX_CONTAINERS} containers.")
    for container in draft.containers:
        if not container.get("name"):
            raise client_error("Container.name should not be null or empty.")
        if not NAME.fullmatch(container["name"]):  # unverified
            raise client_error("Container.name contains invalid characters.")
    if len({container["name"] for container in draft.containers}) != len(draft.containers):
        raise client_error("Container names must be unique within a task definition")


def check_essential(draft: Draft) -> None:
    """Raise if no container is essential."""
    if not any(container.get("essential", True) for container in draft.containers):
        raise client_error("Task definition doesn't have any essential container.")


def check_members(draft: Draft) -> None:
    """Raise for what AWS no longer offers, and for sizes that can't be read."""
    if "inferenceAccelerators" in draft.request:
        raise client_error("Unsupported field 'inferenceAccelerators'.")
    draft.cpu_units()
    draft.memory_mib()


def check_roles(draft: Draft) -> None:
    """Raise if a role is neither an ARN nor the name of a role."""
    for member in ("taskRoleArn", "executionRoleArn"):
        if not _ROLE.fullmatch(draft.request.get(member, "unset")):
            raise client_error("Role is not valid")


def check_sums(draft: Draft) -> None:
    """Raise if the containers together want more than the task has."""
    cpu_units, memory_mib = draft.cpu_units(), draft.memory_mib()
    total = sum(container.get("cpu", 0) for container in draft.containers)
    if cpu_units is not None and total > cpu_units:
        raise client_error(
            "The sum of all container 'cpu' values cannot be greater than the value of the task "
            "'cpu'."
        )
    reserved_mib = sum(container.get("memoryReservation", 0) for container in draft.containers)
    if memory_mib is not None and reserved_mib > memory_mib:  # unverified
        raise client_error(
            "The sum of all container 'memoryReservation' values cannot be greater than the value "
            "of the task 'memory'."
        )


def check_ephemeral_storage(draft: Draft) -> None:
    """Raise if a task that isn't for Fargate asks for storage, or if it asks for the wrong size."""
    storage = draft.request.get("ephemeralStorage")
    if storage is None:
        return
    if not draft.requires_fargate:
        raise client_error("Tasks using the EC2 launch type do not support EphemeralStorage.")
    check_storage_size(storage["sizeInGiB"])
