"""One signed call to a service of AWS, or of what stands for AWS here."""

from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from fargate_agent.aws.answers import read_json, refusal
from fargate_agent.aws.errors import AwsError
from fargate_agent.egress.transport import TransferError, read_body, transfer
from fargate_agent.egress.urls import shown
from fargate_agent.role_keys import RoleKeys

MAX_ANSWER_BYTES: Final = 4 << 20
"""Far more than an answer of these services has: a secret is 64 KiB at most."""

_HOSTS: Final = {"ecr": "api.ecr"}
"""How services are called in their endpoints, where they sign by another name.
Source: AWS General Reference, Amazon ECR endpoints."""

_SUFFIXES: Final = {"cn": "amazonaws.com.cn", "eusc": "amazonaws.eu"}
"""By what the names of regions of a partition begin with.
Source: botocore, data/partitions.json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSite:
    """Where the services are."""

    region: str
    endpoint_url: str | None = None
    """Of every service; None: those of AWS in the region."""

    def url(self, service: str, region: str) -> str:
        """Return the URL of a service. Source: AWS General Reference, service endpoints."""
        if self.endpoint_url is not None:
            return f"{self.endpoint_url.rstrip('/')}/"
        suffix = _SUFFIXES.get(region.partition("-")[0], "amazonaws.com")
        return f"https://{_HOSTS.get(service, service)}.{region}.{suffix}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsCall:
    """A request to a service."""

    service: str
    """As it signs."""
    region: str
    content_type: str
    target: str | None = None
    """The operation, where it isn't part of the body."""
    body: bytes = field(repr=False)


async def send_call(
    http: aiohttp.ClientSession, site: AwsSite, keys: RoleKeys, call: AwsCall
) -> tuple[int, bytes]:
    """Sign a request, send it, and return the status and the body of the answer.

    Raises:
        TransferError: no answer came. The text holds no secret.
    """
    url = site.url(call.service, call.region)
    headers = {"Content-Type": call.content_type}
    if call.target is not None:
        headers["X-Amz-Target"] = call.target
    request = AWSRequest(method="POST", url=url, data=call.body, headers=headers)
    SigV4Auth(keys, call.service, call.region).add_auth(request)
    signed = dict(request.headers.items())
    with transfer(f'Post "{shown(url)}"'):
        async with http.post(
            url, data=call.body, headers=signed, allow_redirects=False
        ) as response:
            return response.status, await read_body(response, MAX_ANSWER_BYTES)


async def call_json(
    http: aiohttp.ClientSession,
    site: AwsSite,
    keys: RoleKeys,
    call: AwsCall,
    *,
    may_be_empty: bool = False,
) -> dict[str, Any]:
    """Call a service that speaks JSON 1.1; some answer nothing to what makes something.

    Raises:
        AwsError: it refused.
        TransferError: no answer came, or none that makes sense.
    """
    status, body = await send_call(http, site, keys, call)
    answer = {} if may_be_empty and not body else read_json(body)
    if status == 200 and answer is not None:
        return answer
    if answer is not None and "__type" in answer:
        code = str(answer["__type"]).rpartition("#")[2]
        message = str(answer.get("message") or answer.get("Message") or "")
        raise refusal(status, code, message, keys)
    if status >= 500:
        raise AwsError(status, "ServiceUnavailable", f"HTTP {status}")
    raise TransferError(f"{call.service} answered HTTP {status} with what is no JSON object")
