"""AssumeRole of the Security Token Service.

Source: AWS Security Token Service API reference, 2011-06-15.
"""

from datetime import datetime
from typing import Final
from urllib.parse import urlencode

import aiohttp

from fargate_agent.aws.answers import read_members, refusal
from fargate_agent.aws.calls import AwsCall, AwsSite, send_call
from fargate_agent.egress.transport import TransferError
from fargate_agent.role_keys import RoleKeys

VERSION: Final = "2011-06-15"
_MEMBERS: Final = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")


async def assume_role(
    http: aiohttp.ClientSession,
    site: AwsSite,
    keys: RoleKeys,
    *,
    role_arn: str,
    session_name: str,
    duration_s: int,
) -> RoleKeys:
    """Assume a role with the keys of this machine.

    Raises:
        AwsError: it was refused.
        TransferError: no answer came, or none that makes sense.
    """
    form = {
        "Action": "AssumeRole",
        "Version": VERSION,
        "RoleArn": role_arn,
        "RoleSessionName": session_name,
        "DurationSeconds": str(duration_s),
    }
    call = AwsCall(
        service="sts",
        region=site.region,
        content_type="application/x-www-form-urlencoded",
        body=urlencode(form).encode(),
    )
    status, body = await send_call(http, site, keys, call)
    members = read_members(body)
    if status != 200:
        if status < 500 and "Code" not in members:
            raise TransferError(f"sts answered HTTP {status} with what is no error of its own")
        code = members.get("Code", "ServiceUnavailable")
        raise refusal(status, code, members.get("Message", f"HTTP {status}"), keys)
    texts = [members.get(name, "") for name in _MEMBERS]
    try:
        expires_at = datetime.fromisoformat(texts[-1])
    except ValueError:
        expires_at = None
    if not all(texts) or expires_at is None or expires_at.tzinfo is None:
        raise TransferError("sts answered with what are no credentials")
    access_key, secret_key, token, _ = texts
    return RoleKeys(
        access_key=access_key, secret_key=secret_key, token=token, expires_at=expires_at
    )
