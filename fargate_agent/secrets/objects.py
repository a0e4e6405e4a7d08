"""One object of S3, got with signed requests.

Source: Amazon S3 API reference, GetObject, error responses, "Virtual hosting of buckets".
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

import aiohttp
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from yarl import URL

from fargate_agent.aws.answers import read_members, refusal
from fargate_agent.aws.calls import AwsSite
from fargate_agent.egress.transport import RefusedError, TransferError, read_body, transfer
from fargate_agent.egress.urls import shown
from fargate_agent.role_keys import RoleKeys
from fargate_agent.secrets.pick import can_be_written
from fargate_agent.secrets.references import InvalidReferenceError

MAX_MOVES: Final = 3
"""How many regions a bucket may be looked for in: ours, the one that S3 names, one that it moves
to meanwhile."""

_ARN: Final = re.compile(r"arn:aws[a-z0-9-]*:s3:::([^/\s]+)/(.+)")
_AS_HOST: Final = re.compile(r"[a-z0-9][a-z0-9-]*[a-z0-9]")
"""A bucket that can stand in a host name; one with dots fits no certificate there."""
_REGION: Final = re.compile(r"[a-z0-9-]{1,32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectReference:
    """An object of S3."""

    bucket: str
    key: str


class _MovedError(Exception):
    """The bucket is in another region."""

    def __init__(self, region: str) -> None:
        super().__init__(region)
        self.region = region


def parse_object(arn: str) -> ObjectReference:
    """Read the ARN of an object.

    Raises:
        InvalidReferenceError: it is none.
    """
    match = _ARN.fullmatch(arn)
    if match is None or not can_be_written(arn) or "\0" in arn:
        raise InvalidReferenceError(f"{arn!r} is no object of S3: arn:aws:s3:::bucket/key is one")
    return ObjectReference(bucket=match[1], key=match[2])


async def get_object(
    http: aiohttp.ClientSession,
    site: AwsSite,
    keys: RoleKeys,
    reference: ObjectReference,
    max_bytes: int,
) -> bytes:
    """Return the content of an object, in whichever region its bucket is.

    Raises:
        AwsError: S3 refused.
        TransferError: no answer came, or it is larger than `max_bytes`.
    """
    region = site.region
    for _ in range(MAX_MOVES):
        try:
            return await _get(http, _render_url(site, region, reference), keys, region, max_bytes)
        except _MovedError as moved:
            region = moved.region
    raise RefusedError(f"bucket {reference.bucket} is not in the region that S3 names")


def _render_url(site: AwsSite, region: str, reference: ObjectReference) -> str:
    """Name the bucket in the host where that can be; an endpoint of one's own has one host."""
    base, key = site.url("s3", region), quote(reference.key, safe="/~")
    if site.endpoint_url is None and _AS_HOST.fullmatch(reference.bucket):
        return f"https://{reference.bucket}.{urlsplit(base).netloc}/{key}"
    return f"{base}{quote(reference.bucket, safe='')}/{key}"


async def _get(
    http: aiohttp.ClientSession, url: str, keys: RoleKeys, region: str, max_bytes: int
) -> bytes:
    request = AWSRequest(method="GET", url=url)
    S3SigV4Auth(keys, "s3", region).add_auth(request)
    with transfer(f'Get "{shown(url)}"'):
        async with http.get(
            URL(url, encoded=True), headers=dict(request.headers.items()), allow_redirects=False
        ) as response:
            body = await read_body(response, max_bytes)
            elsewhere = response.headers.get("x-amz-bucket-region")
            status = response.status
    if status == 200:
        return body
    said = read_members(body)
    elsewhere = elsewhere or said.get("Region")
    if elsewhere and elsewhere != region and _REGION.fullmatch(elsewhere):
        raise _MovedError(elsewhere)
    if not said and status < 500 and status not in {401, 403, 404}:
        raise TransferError(f"s3 answered HTTP {status} with what is no error of S3")
    code = said.get("Code", "NotFound" if status == 404 else "Forbidden")
    what = f"operation error S3: GetObject, https response error StatusCode: {status}, api error"
    raise refusal(status, f"{what} {code}", said.get("Message", code), keys)
