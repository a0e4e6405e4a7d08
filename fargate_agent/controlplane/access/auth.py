"""Signature version 4: who sent a request, proved by computing its signature again.

Source: AWS IAM user guide, "Create a signed AWS API request"; error texts as AWS answers them.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from pydantic import SecretStr

from fargate_agent.controlplane.access.keyring import Keyring
from fargate_agent.controlplane.access.keys import Key
from fargate_agent.controlplane.access.policy import Policy
from fargate_agent.controlplane.errors import ApiError

Service = Literal["ecs", "ec2", "servicediscovery"]
"""What a signature is for."""

TOKEN_HEADER: Final = "x-amz-security-token"  # noqa: S105 - its name
MAX_SKEW: Final = timedelta(minutes=5)
"""Source: AWS, "Signature expired … - 5 min."."""

_TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256\s+Credential=(?P<key>[^/,\s]+)/(?P<date>\d{8})/(?P<region>[^/,\s]+)"
    r"/(?P<service>[^/,\s]+)/aws4_request,\s*SignedHeaders=(?P<headers>[^,\s]+)"
    r",\s*Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sent a request."""

    access_key_id: str
    secret_access_key: SecretStr
    principal: str
    policy: Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRequest:
    """The parts of an HTTP request that a signature covers."""

    method: str
    target: str
    """Path and query as they came."""
    headers: Mapping[str, str]
    """Names in lower case; what was repeated is joined by commas."""
    body: bytes


class Authenticator:
    """Tells callers by their signatures."""

    def __init__(self, keyring: Keyring, region: str) -> None:
        self._keyring = keyring
        self._region = region

    async def authenticate(
        self, request: SignedRequest, now: datetime, service: Service = "ecs"
    ) -> Caller:
        """Return who signed the request.

        Raises:
            ApiError: the signature is missing, malformed, wrong, too old, or for something else;
                the key is unknown, inactive or expired.
        """
        match = _parse_authorization(request.headers.get("authorization"))
        keys = await self._keyring.current()
        key = _find_key(keys.get(match["key"]), request, now)
        self._check_scope(match, service)
        timestamp = _check_time(request.headers.get("x-amz-date", ""), match["date"], now)
        signed = match["headers"].split(";")
        _check_coverage(request, signed)
        try:
            signer = _Signer(_credentials(key), service, self._region)
            expected = _sign(request, signer, signed, timestamp)
        except ValueError:
            raise _mismatch() from None
        if not hmac.compare_digest(expected, match["signature"]):
            raise _mismatch()
        return _caller(key)

    async def look_again(self, caller: Caller, now: datetime) -> Caller:
        """Return a caller as the keys have it by now: a connection may outlive its key.

        Raises:
            ApiError: the key is gone, inactive or expired, or has another secret.
        """
        key = (await self._keyring.current()).get(caller.access_key_id)
        if key is None or not key.is_active or key.secret_access_key != caller.secret_access_key:
            raise _unrecognized()
        _check_expiry(key, now)
        return _caller(key)

    def _check_scope(self, match: re.Match[str], service: Service) -> None:
        if match["region"] != self._region:
            raise _invalid(
                f"Credential should be scoped to a valid region, not '{match['region']}'; "
                f"this is '{self._region}'."
            )
        if match["service"] != service:
            raise _invalid(f"Credential should be scoped to correct service: '{service}'.")


class _Signer(SigV4Auth):  # type: ignore[misc]  # botocore ships no types
    """Signs exactly the headers that the request holds: those the sender said it had signed."""

    def headers_to_sign(self, request: AWSRequest) -> Any:  # noqa: ANN401 - botocore ships no types
        return request.headers


def _parse_authorization(header: str | None) -> re.Match[str]:
    if header is None:
        raise ApiError("MissingAuthenticationTokenException", "Missing Authentication Token")
    match = _AUTHORIZATION.fullmatch(header.strip())
    if match is None:
        raise ApiError(
            "IncompleteSignatureException",
            "Authorization header requires 'Credential', 'Signature' and 'SignedHeaders' "
            "parameters of AWS4-HMAC-SHA256.",
        )
    return match


def _find_key(key: Key | None, request: SignedRequest, now: datetime) -> Key:
    """Return the key if it may be used, with the session token that came along."""
    given = request.headers.get(TOKEN_HEADER)
    wanted = None if key is None else key.session_token
    if key is None or not key.is_active or (given is None) != (wanted is None):
        raise _unrecognized()
    if given is not None and wanted is not None:
        token = wanted.get_secret_value()
        if not hmac.compare_digest(given.encode(errors="surrogateescape"), token.encode()):
            raise _unrecognized()
    _check_expiry(key, now)
    return key


def _check_expiry(key: Key, now: datetime) -> None:
    if key.has_expired(now):
        raise ApiError(
            "ExpiredTokenException", "The security token included in the request is expired"
        )


def _caller(key: Key) -> Caller:
    return Caller(
        access_key_id=key.access_key_id,
        secret_access_key=key.secret_access_key,
        principal=key.principal,
        policy=key.policy,
    )


def _credentials(key: Key) -> Credentials:
    """The id and the secret; the session token is among the headers that were signed."""
    return Credentials(key.access_key_id, key.secret_access_key.get_secret_value())


def _sign(request: SignedRequest, signer: _Signer, signed: list[str], timestamp: str) -> str:
    parts = urlsplit(f"http://{request.headers['host']}{request.target}")
    again = AWSRequest(
        method=request.method,
        url=f"http://{parts.netloc}{parts.path}",
        params=parse_qsl(parts.query, keep_blank_values=True),
        data=request.body,
    )
    for name in signed:
        again.headers[name] = request.headers[name]
    again.context["timestamp"] = timestamp
    text = signer.string_to_sign(again, signer.canonical_request(again))
    return str(signer.signature(text, again))


def _check_time(timestamp: str, date: str, now: datetime) -> str:
    try:
        at = datetime.strptime(timestamp, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise ApiError(
            "IncompleteSignatureException",
            "Date must be in ISO-8601 'basic format', in the header X-Amz-Date.",
        ) from None
    if not timestamp.startswith(date):
        raise _invalid("Date in Credential scope does not match YYYYMMDD from ISO-8601 version.")
    present = now.strftime(_TIME_FORMAT)
    if at < now - MAX_SKEW:
        limit = (now - MAX_SKEW).strftime(_TIME_FORMAT)
        raise _invalid(
            f"Signature expired: {timestamp} is now earlier than {limit} ({present} - 5 min.)"
        )
    if at > now + MAX_SKEW:
        limit = (now + MAX_SKEW).strftime(_TIME_FORMAT)
        raise _invalid(
            f"Signature not yet current: {timestamp} is still later than {limit} "
            f"({present} + 5 min.)"
        )
    return timestamp


def _check_coverage(request: SignedRequest, signed: list[str]) -> None:
    """Refuse a signature that leaves out what decides the meaning of the request."""
    needed = {name for name in request.headers if name.startswith("x-amz-")}
    if missing := ({"host"} | needed) - set(signed):
        raise _invalid(f"'{sorted(missing)[0]}' must be a 'SignedHeader' in the AWS Authorization.")
    if any(name not in request.headers for name in signed):
        raise _mismatch()
    claimed = request.headers.get("x-amz-content-sha256")
    if claimed is not None and claimed != hashlib.sha256(request.body).hexdigest():
        raise _mismatch()


def _unrecognized() -> ApiError:
    return ApiError(
        "UnrecognizedClientException", "The security token included in the request is invalid."
    )


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidSignatureException", message)


def _mismatch() -> ApiError:
    return _invalid(
        "The request signature we calculated does not match the signature you provided. Check your "
        "AWS Secret Access Key and signing method. Consult the service documentation for details."
    )
