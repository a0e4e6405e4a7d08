"""From the roles of a message to those of a plan; pure."""

from fargate_agent.plan.model import RolePlan
from fargate_agent.role_keys import RoleKeys
from fargate_agent.wire.messages import RoleCredentialsMessage


def plan_role(message: RoleCredentialsMessage | None) -> RolePlan | None:
    """Return the role, with the credentials that came along if they are whole."""
    if message is None:
        return None
    return RolePlan(
        arn=message.role_arn,
        credentials_id=message.credentials_id,
        given=read_keys(message),
        endpoint_urls=message.endpoint_urls,
    )


def read_keys(message: RoleCredentialsMessage) -> RoleKeys | None:
    """Return the keys of a message; None if they aren't whole."""
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
