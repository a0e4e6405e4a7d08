"""What the metadata endpoint asks the control plane, as this agent and for one of its tasks.

The control plane lets an agent read tags and protection of its own tasks, and change their
protection.
"""

import asyncio
from typing import Any, Protocol

from fargate_agent.plan import TaskPlan
from fargate_agent.tmds.metadata import Tags
from fargate_agent.wire.metadata import TagError

CALL_TIMEOUT_S = 4.0
"""So that an error can still be sent before the client gives up. Source: amazon-ecs-agent,
ecs-agent/tmds/handlers/taskprotection/v1/handlers/handlers.go, `ecsCallTimeout`."""


class RefusedError(Exception):
    """The control plane answered with an error."""

    def __init__(
        self, code: str, message: str, *, status: int = 400, request_id: str | None = None
    ) -> None:
        """Keep what the ECS API says of an error; `code` is the modelled name."""
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.request_id = request_id


class UnreachableError(Exception):
    """No answer came, or none that makes sense."""


class Calls(Protocol):
    """Calls operations of the ECS API with the key of this agent."""

    async def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Call one operation and return its answer.

        Raises:
            RefusedError: the control plane refused.
            UnreachableError: it could not be asked.
        """
        ...


async def read_tags(calls: Calls, task: TaskPlan) -> Tags:
    """Return the tags of a task; that they can't be had is said beside them.

    Source: amazon-ecs-agent, agent/handlers/v2/response.go, `propagateTagsToMetadata`.
    """
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            answer = await calls.call("ListTagsForResource", {"resourceArn": task.arn})
        return Tags({tag["key"]: tag.get("value", "") for tag in answer.get("tags", [])})
    except RefusedError as error:
        why = TagError(
            error_field="TaskTags",
            error_code=error.code,
            error_message=error.message,
            status_code=error.status,
            request_id=error.request_id,
            resource_arn=task.arn,
        )
    except (UnreachableError, TimeoutError) as error:
        text = str(error) or f"the control plane didn't answer within {CALL_TIMEOUT_S:g} s"
        why = TagError(error_field="TaskTags", error_message=text, resource_arn=task.arn)
    return Tags({}, (why,))
