"""Whether a caller may pass the roles of what it registers or runs.

Source: AWS service authorization reference, "Dependent actions" of Amazon Elastic Container
Service; IAM user guide, "Granting a user permissions to pass a role to an AWS service".
"""

from typing import Final

from fargate_agent.controlplane.access.permissions import Target, check_permission
from fargate_agent.controlplane.plane import Call, Plane
from fargate_agent.controlplane.validate import Json

ACTION: Final = "iam:PassRole"
SERVICE: Final = "ecs-tasks.amazonaws.com"
"""The value of `iam:PassedToService`. Source: ECS developer guide, task IAM role."""
_ROLES: Final = ("executionRoleArn", "taskRoleArn")


def check_pass_role(plane: Plane, call: Call, document: Json) -> None:
    """Return if the caller may pass the roles that a task definition, with its overrides, names.

    Raises:
        ApiError: it may not, in IAM's words.
    """
    if not plane.settings.check_pass_role:
        return
    roles = [plane.arns.role(document[member]) for member in _ROLES if document.get(member)]
    targets = [Target(role, {"iam:passedtoservice": SERVICE}) for role in dict.fromkeys(roles)]
    check_permission(call.caller, ACTION, targets, plane.arns)
