"""From the shapes of the API to the message that an agent is sent."""

import uuid
from collections.abc import Callable
from typing import Any, Final

from fargate_agent.controlplane.file_labels import render_files
from fargate_agent.controlplane.tasks.overrides import TaskSize
from fargate_agent.controlplane.validate import Json
from fargate_agent.wire.containers import ContainerMessage, Volume
from fargate_agent.wire.messages import (
    EniMessage,
    RoleCredentialsMessage,
    TaskMessage,
)
from fargate_agent.wire.unsupported import UnsupportedByTasks

CPU_UNITS_PER_VCPU: Final = 1024


def render_container(container: Json, container_arn: str) -> ContainerMessage:
    """Return a container as the agent is told it.

    Raises:
        pydantic.ValidationError: the agent's message has no room for it.
    """
    environment = {pair.get("name", ""): pair.get("value", "") for pair in _environment(container)}
    return ContainerMessage.model_validate(
        {
            **container,
            **render_files(container),
            "environment": environment,
            "containerArn": container_arn,
        }
    )


def render_volume(volume: Json) -> Volume:
    """Return a volume as the agent is told it.

    Raises:
        pydantic.ValidationError: the agent's message has no room for it.
    """
    return Volume.model_validate(volume)


def render_task(  # noqa: PLR0913 - a message has this many sources, and each is named at the call
    *,
    arn: str,
    cluster_arn: str,
    definition: Json,
    containers: list[Json],
    size: TaskSize,
    group: str,
    zone: str,
    vpc_id: str,
    eni: EniMessage,
    role_arn: Callable[[str], str],
) -> Json:
    """Return a `TaskMessage` as JSON.

    `definition` is what the task is made of, with the overrides. Each container has its
    `containerArn` already. `role_arn` completes the name of a role.
    """
    message = TaskMessage(
        arn=arn,
        task_cluster_arn=cluster_arn,
        desired_status="RUNNING",
        family=definition["family"],
        version=str(definition["revision"]),
        cpu=size.cpu_units / CPU_UNITS_PER_VCPU,
        memory=size.memory_mib,
        execution_role_credentials=_render_role(definition.get("executionRoleArn"), role_arn),
        role_credentials=_render_role(definition.get("taskRoleArn"), role_arn),
        containers=tuple(render_container(c, c["containerArn"]) for c in containers),
        elastic_network_interfaces=(eni,),
        volumes=tuple(render_volume(volume) for volume in definition.get("volumes", [])),
        enable_fault_injection=bool(definition.get("enableFaultInjection")),
        pid_mode=definition.get("pidMode"),
        group=group,
        zone=zone,
        vpc_id=vpc_id,
        cpu_architecture=definition.get("runtimePlatform", {}).get("cpuArchitecture", "X86_64"),
        ephemeral_storage_gib=size.ephemeral_storage_gib,
        **_unsupported(definition),
    )
    dumped: Json = message.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dumped


def _render_role(role: str | None, role_arn: Callable[[str], str]) -> RoleCredentialsMessage | None:
    """Name a role under an id that nobody can guess; its credentials are kept nowhere."""
    if role is None:
        return None
    return RoleCredentialsMessage(credentials_id=str(uuid.uuid4()), role_arn=role_arn(role))


def _unsupported(definition: Json) -> dict[str, Any]:
    """Return what the agent refuses by name."""
    members = UnsupportedByTasks.model_fields.items()
    return {name: definition.get(str(field.alias)) for name, field in members}


def _environment(container: Json) -> list[Any]:
    pairs: list[Any] = container.get("environment", [])
    return pairs
