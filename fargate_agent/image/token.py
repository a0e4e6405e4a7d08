"""Tokens that let a client read one repository, from the service that a registry names.

Source: Docker registry, token authentication specification.
"""

import re
from typing import Final
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from fargate_agent.egress.transport import RefusedError, TransferError, read_body
from fargate_agent.egress.urls import origin_of, parse_url, shown
from fargate_agent.image.auth import Credentials
from fargate_agent.image.challenge import Challenge
from fargate_agent.image.document import MAX_DOCUMENT_BYTES, InvalidDocumentError, parse_document
from fargate_agent.image.refusal import explain_refusal
from fargate_agent.image.requests import MAX_HOPS, Requests, redirect_target

FAILED: Final = "failed to authorize"

_SENDABLE: Final = re.compile(r"[!-~]+")


async def fetch_token(
    requests: Requests, challenge: Challenge, scope: str, credentials: Credentials | None
) -> str:
    """Get a token; `scope` counts where the challenge names none.

    Raises:
        TransferError: the token service could not be asked.
        RefusedError: it gives none, to these credentials; or the challenge doesn't say where it is.
    """
    url = _token_url(challenge, scope)
    what = f"{FAILED}: failed to fetch {'oauth' if credentials else 'anonymous'} token"
    response = await _get(requests, url, credentials, what)
    try:
        if response.status != 200:
            raise (await explain_refusal(response)).within(what)
        data = await read_body(response, MAX_DOCUMENT_BYTES)
    finally:
        response.release()
    try:
        answer = parse_document(f"answer of {shown(url)}", data)
        token = answer.text("token", "") or answer.text("access_token")
        if not _SENDABLE.fullmatch(token):
            raise InvalidDocumentError(f"{answer.what}: the token can't be sent in a header")
        return token
    except InvalidDocumentError as error:
        raise TransferError(f"{what}: {error}") from error


async def _get(
    requests: Requests, url: URL, credentials: Credentials | None, what: str
) -> aiohttp.ClientResponse:
    """Follow the service where it has moved to; only its first host is shown the credentials."""
    first = origin_of(url)
    for _ in range(MAX_HOPS):
        shows = origin_of(url) == first and url.user is None
        headers = {"Authorization": credentials.header} if credentials and shows else {}
        response = await requests.send("GET", url, headers, what)
        try:
            target = redirect_target(response)
        except RefusedError:
            response.release()
            raise
        if target is None:
            return response
        response.release()
        url = target
    raise RefusedError(f"{what}: {shown(url)}: stopped after {MAX_HOPS} redirects")


def _token_url(challenge: Challenge, scope: str) -> URL:
    """The realm byte for byte, and what is asked of it behind its own query."""
    realm = challenge.parameters.get("realm", "")
    if not realm:
        raise RefusedError(f"{FAILED}: the registry wants a token, but names no realm to ask")
    wanted = [("scope", each) for each in (challenge.parameters.get("scope") or scope).split()]
    if service := challenge.parameters.get("service"):
        wanted.append(("service", service))
    try:
        url = parse_url(realm)
        mark = "?" if not url.raw_query_string else "&"
        return parse_url(f"{url}{mark if wanted else ''}{urlencode(wanted)}")
    except ValueError as error:
        raise RefusedError(
            f"{FAILED}: the registry's token realm '{shown(realm)[:200]}' can't be asked: {error}"
        ) from error
