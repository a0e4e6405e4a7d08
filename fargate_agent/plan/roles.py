"""From the roles of a message to those of a plan; pure."""

import uuid

from fargate_agent.plan.model import ContainerPlan, RoleKeys, RolePlan, TaskPlan
from fargate_agent.wire.messages import RoleCredentialsMessage


def plan_role(message: RoleCredentialsMessage | None) -> RolePlan | None:
    """Return the role, with the credentials that came along if they are whole."""
    if message is None:
        return None
    return RolePlan(
        arn=message.role_arn, credentials_id=message.credentials_id, given=_read_keys(message)
    )


def render_secrets_id(task: TaskPlan, container: ContainerPlan) -> str:
    """Name the secrets of a container's log options on the metadata endpoint.

    It follows from the id of the role's credentials, so containers can't know it either.
    """
    role = task.execution_role
    secret = "" if role is None else role.credentials_id
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{secret}/{container.name}"))


def _read_keys(message: RoleCredentialsMessage) -> RoleKeys | None:
    if (
        message.access_key_id is None
        or message.secret_access_key is None
        or message.expiration is None
    ):
        return None
    token = message.session_token
    return RoleKeys(
        access_key=message.access_key_id,
        secret_key=message.secret_access_key.get_secret_value(),
        token=None if token is None else token.get_secret_value(),
        expires_at=message.expiration,
    )
