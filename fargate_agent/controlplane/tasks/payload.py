"""From the shapes of the API to the message that an agent is sent."""

import uuid
from typing import Any, Final

from fargate_agent.controlplane.tasks.overrides import TaskSize
from fargate_agent.controlplane.validate import Json
from fargate_agent.wire.messages import (
    ContainerMessage,
    EniMessage,
    RoleCredentialsMessage,
    TaskMessage,
    Volume,
)

CPU_UNITS_PER_VCPU: Final = 1024


def render_container(container: Json, container_arn: str) -> ContainerMessage:
    """Return a container as the agent is told it.

    Raises:
        pydantic.ValidationError: the agent's message has no room for it.
    """
    environment = {pair.get("name", ""): pair.get("value", "") for pair in _environment(container)}
    return ContainerMessage.model_validate(
        {**container, "environment": environment, "containerArn": container_arn}
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
    execution_role_arn: str | None,
) -> Json:
    """Return a `TaskMessage` as JSON; each container has its `containerArn` already."""
    message = TaskMessage(
        arn=arn,
        task_cluster_arn=cluster_arn,
        desired_status="RUNNING",
        family=definition["family"],
        version=str(definition["revision"]),
        cpu=size.cpu_units / CPU_UNITS_PER_VCPU,
        memory=size.memory_mib,
        execution_role_credentials=_render_role(execution_role_arn),
        containers=tuple(render_container(c, c["containerArn"]) for c in containers),
        elastic_network_interfaces=(eni,),
        volumes=tuple(render_volume(volume) for volume in definition.get("volumes", [])),
        group=group,
        zone=zone,
        vpc_id=vpc_id,
        pid_mode=definition.get("pidMode"),
        cpu_architecture=definition.get("runtimePlatform", {}).get("cpuArchitecture", "X86_64"),
        ephemeral_storage_gib=size.ephemeral_storage_gib,
    )
    dumped: Json = message.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dumped


def _render_role(arn: str | None) -> RoleCredentialsMessage | None:
    """Name a role, which the agent assumes itself, under an id that nobody can guess."""
    if arn is None:
        return None
    return RoleCredentialsMessage(credentials_id=str(uuid.uuid4()), role_arn=arn)


def _environment(container: Json) -> list[Any]:
    pairs: list[Any] = container.get("environment", [])
    return pairs
