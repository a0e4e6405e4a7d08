"""How credentials, and refusals of them, look in JSON.

Source: amazon-ecs-agent, ecs-agent/tmds/handlers/v1 and v2, the credentials handlers.
"""

from datetime import UTC, datetime
from typing import Any

from fargate_agent.plan import RolePlan
from fargate_agent.role_keys import RoleKeys


def render_keys(role: RolePlan, keys: RoleKeys) -> dict[str, Any]:
    """Return what SDKs read.

    The token is a text even where there is none: botocore and the SDK for JavaScript refuse an
    answer without it.
    """
    return {
        "RoleArn": role.arn,
        "AccessKeyId": keys.access_key,
        "SecretAccessKey": keys.secret_key,
        "Token": keys.token or "",
        "Expiration": render_expiration(keys.expires_at),
    }


def render_expiration(moment: datetime) -> str:
    """Return a moment as every SDK reads it: RFC 3339 in UTC, whole seconds, with `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def render_refusal(status: int, code: str, message: str) -> dict[str, Any]:
    """Return the body of an answer with another status than 200."""
    return {"code": code, "message": message, "HTTPErrorCode": status}
