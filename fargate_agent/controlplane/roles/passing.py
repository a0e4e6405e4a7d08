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
INFRASTRUCTURE: Final = "ecs.amazonaws.com"
"""The same of roles by which ECS makes volumes. Source: ECS developer guide, "Amazon ECS
infrastructure IAM role"."""
_ROLES: Final = ("executionRoleArn", "taskRoleArn")


def check_pass_role(plane: Plane, call: Call, document: Json) -> None:
    """Return if the caller may pass the roles that a task definition, with its overrides, names.

    Raises:
        ApiError: it may not, in IAM's words.
    """
    roles = [plane.arns.role(document[member]) for member in _ROLES if document.get(member)]
    _check(plane, call, roles, SERVICE)


def check_pass_volume_roles(plane: Plane, call: Call, configurations: list[Json]) -> None:
    """Return if the caller may pass the roles of volumes that are configured at launch.

    Raises:
        ApiError: it may not, in IAM's words.
    """
    volumes = [one.get("managedEBSVolume", {}) for one in configurations]
    roles = [volume["roleArn"] for volume in volumes if volume.get("roleArn")]
    _check(plane, call, roles, INFRASTRUCTURE)


def _check(plane: Plane, call: Call, roles: list[str], service: str) -> None:
    if not plane.settings.check_pass_role:
        return
    targets = [Target(role, {"iam:passedtoservice": service}) for role in dict.fromkeys(roles)]
    check_permission(call.caller, ACTION, targets, plane.arns)
