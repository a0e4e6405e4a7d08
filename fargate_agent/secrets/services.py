"""The two places where secrets are kept, each asked once.

Source: AWS Secrets Manager API reference, GetSecretValue; AWS Systems Manager API reference,
GetParameters.
"""

import json
from collections.abc import Collection
from typing import Any, Final

import aiohttp

from fargate_agent.aws.calls import AwsCall, AwsSite, call_json
from fargate_agent.egress.transport import RefusedError, TransferError
from fargate_agent.role_keys import RoleKeys
from fargate_agent.secrets.references import SecretReference

MAX_PARAMETERS: Final = 10
"""Of one call."""
CONTENT_TYPE: Final = "application/x-amz-json-1.1"


async def get_secret(
    http: aiohttp.ClientSession, site: AwsSite, keys: RoleKeys, reference: SecretReference
) -> str:
    """Return the text of a secret, without a look at `json_key`.

    Raises:
        AwsError: it was refused.
        TransferError: no answer came, or the secret is no text.
    """
    versions = {"VersionStage": reference.version_stage, "VersionId": reference.version_id}
    call = AwsCall(
        service="secretsmanager",
        region=reference.region,
        content_type=CONTENT_TYPE,
        target="secretsmanager.GetSecretValue",
        body=_render({"SecretId": reference.arn} | {k: v for k, v in versions.items() if v}),
    )
    text = (await call_json(http, site, keys, call)).get("SecretString")
    if not isinstance(text, str):
        raise RefusedError("the secret has no SecretString")
    return text


async def get_parameters(
    http: aiohttp.ClientSession,
    site: AwsSite,
    keys: RoleKeys,
    region: str,
    names: Collection[str],
) -> dict[str, str]:
    """Return the values, decrypted, of those of the parameters that are there.

    `names` are ten at most, each a name or an ARN.

    Raises:
        AwsError: it was refused.
        TransferError: no answer came, or none that makes sense.
    """
    call = AwsCall(
        service="ssm",
        region=region,
        content_type=CONTENT_TYPE,
        target="AmazonSSM.GetParameters",
        body=_render({"Names": list(names), "WithDecryption": True}),
    )
    found: dict[str, str] = {}
    try:
        answer = (await call_json(http, site, keys, call))["Parameters"]
        for one in sorted(answer, key=lambda one: int(one.get("Version") or 0)):
            # What stands for AWS may leave the selector out: then the version tells them apart.
            selectors = [one.get("Selector") or "", f":{one.get('Version')}"]
            for name in (one["Name"], one.get("ARN")):
                found.update({f"{name}{selector}": one["Value"] for selector in selectors})
    except (KeyError, TypeError, AttributeError, ValueError):
        raise TransferError("ssm answered with what are no parameters") from None
    return {name: found[name] for name in names if name in found}


def _render(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode()
