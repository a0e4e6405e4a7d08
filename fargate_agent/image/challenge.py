"""How a registry says that it wants a token, and where the token comes from.

Source: RFC 7235 (challenges); Docker registry, token authentication specification.
"""

import re
from dataclasses import dataclass
from typing import Final

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from fargate_agent.image.auth import Credentials
from fargate_agent.image.document import InvalidDocumentError, parse_document
from fargate_agent.image.transport import (
    RefusedError,
    TransferError,
    read_document,
    shown,
    transfer,
)

_PARAMETER: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What a registry answers to who hasn't logged in."""

    realm: URL
    """Where tokens are to be had; empty with basic authentication."""
    service: str
    scope: str
    """What the token must allow; empty if the registry doesn't say."""


def parse_challenges(headers: CIMultiDictProxy[str]) -> dict[str, Challenge]:
    """Read every `WWW-Authenticate` header, by its scheme in small letters."""
    return dict(_parse(header) for header in headers.getall("WWW-Authenticate", []))


async def fetch_token(
    session: aiohttp.ClientSession,
    challenge: Challenge,
    scope: str,
    credentials: Credentials | None,
) -> str:
    """Get a token; `scope` counts where the challenge names none.

    Raises:
        TransferError: the token server could not be asked.
        RefusedError: it gives none, to these credentials.
    """
    what = "failed to authorize: failed to fetch " + ("oauth" if credentials else "anonymous")
    url = challenge.realm.update_query(scope=challenge.scope or scope)
    if challenge.service:
        url = url.update_query(service=challenge.service)
    headers = {"Authorization": credentials.header} if credentials else {}
    with transfer(f'{what} token: Get "{shown(url)}"'):
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            status, reason = response.status, response.reason
            data = await read_document(response)
    if status != 200:
        kind = RefusedError if status in {400, 401, 403, 404} else TransferError
        raise kind(
            f"{what} token: unexpected status from GET request to {shown(url)}: {status} {reason}"
        )
    try:
        answer = parse_document(f"answer of {shown(url)}", data)
        return answer.text("token", "") or answer.text("access_token")
    except InvalidDocumentError as error:
        raise TransferError(f"{what} token: {error}") from error


def _parse(header: str) -> tuple[str, Challenge]:
    scheme, _, rest = header.partition(" ")
    fields = dict(_PARAMETER.findall(rest))
    try:
        realm = URL(fields.get("realm", ""))
    except ValueError:
        realm = URL()
    challenge = Challenge(
        realm=realm if scheme.lower() == "bearer" else URL(),
        service=fields.get("service", ""),
        scope=fields.get("scope", ""),
    )
    return scheme.lower(), challenge
