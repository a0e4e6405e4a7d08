"""State changes as the agent submits them to the control plane.

Source: amazon-ecs-agent, ecs-agent/api/ecs/client/ecs_client.go; ECS API, SubmitTaskStateChange.
"""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel

Timestamp = Annotated[
    datetime,
    PlainSerializer(lambda moment: round(moment.astimezone(UTC).timestamp(), 3), return_type=float),
]
"""JSON 1.1 carries times as seconds since 1970 with milliseconds as the fraction."""


OURS: Final = frozenset(
    {"stopCode", "healthStatus", "healthStatusSince", "restartCount", "replacements"}
)
"""Members that ECS doesn't have: a control plane may refuse them."""


class Change(BaseModel):
    """Base of every outbound shape."""

    model_config = ConfigDict(
        alias_generator=to_camel, defer_build=True, extra="forbid", populate_by_name=True
    )


class ContainerStateChange(Change):
    """How one container stands."""

    container_name: str
    status: Literal["PENDING", "RUNNING", "STOPPED"]
    exit_code: int | None = None
    image_digest: str | None = None
    reason: str | None = None
    runtime_id: str | None = None
    health_status: Literal["HEALTHY", "UNHEALTHY", "UNKNOWN"] | None = None
    """Of a container with a health check. Ours, as all below: ECS hears it by telemetry."""
    health_status_since: Timestamp | None = None
    restart_count: int | None = None
    """Of a container with a restart policy."""


class ReplacementChange(Change):
    """What stands for something of the task definition on the machine of the task. Ours."""

    kind: str
    what: str
    by: str


class AttachmentStateChange(Change):
    """How one ENI attachment stands."""

    attachment_arn: str
    status: Literal["ATTACHED"]


class SubmitTaskStateChange(Change):
    """How one task stands."""

    cluster: str
    task: str
    status: Literal["PENDING", "RUNNING", "STOPPED"]
    """What comes before RUNNING is PENDING."""
    reason: str | None = None
    stop_code: Literal["TaskFailedToStart", "EssentialContainerExited", "UserInitiated"] | None = (
        None
    )
    """Ours: ECS has no such member. With STOPPED, why the task ended as far as the agent knows."""
    containers: tuple[ContainerStateChange, ...] = ()
    attachments: tuple[AttachmentStateChange, ...] = ()
    replacements: tuple[ReplacementChange, ...] | None = None
    """Ours."""
    pull_started_at: Timestamp | None = None
    pull_stopped_at: Timestamp | None = None
    execution_stopped_at: Timestamp | None = None
