"""What a pull shows to each server: nothing, a password or a token, as that server demands.

A *challenge* is what a server answers to a client that hasn't logged in: the field
`WWW-Authenticate`. A *token* lets a client read one repository; the service that the registry names
gives it, for a password or for an *identity token*, which stands for a user.

Source: RFC 9110, 11.2, 11.3 and 11.6.1; Docker registry, token authentication specification and
OAuth2 token authentication.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Final
from urllib.parse import urlencode

import aiohttp
from multidict import MultiMapping
from yarl import URL

from fargate_agent.egress.retry import Tries
from fargate_agent.egress.transport import RefusedError, TransferError, read_body
from fargate_agent.egress.urls import Origin, origin_of, parse_url, shown
from fargate_agent.image.document import MAX_DOCUMENT_BYTES, InvalidDocumentError, parse_document
from fargate_agent.image.registry.auth import Credentials
from fargate_agent.image.registry.programs import ProgramError
from fargate_agent.image.registry.requests import (
    MAX_HOPS,
    Requests,
    explain_refusal,
    redirect_target,
)

FAILED: Final = "failed to authorize"

CLIENT_ID: Final = "fargate-agent"
"""Who asks for tokens, in words; nobody decides by it."""

FindCredentials = Callable[[URL, str | None], Awaitable[Credentials | None]]
"""Returns what there is to show to the host of a URL, which has refused the header that it is told;
raises `InvalidDocumentError` and `ProgramError`."""

_REPOSITORY: Final = re.compile(r"/v2/(.+)/(?:manifests|blobs)/[^/]+")
_SENDABLE: Final = re.compile(r"[!-~]+")

MAX_CHALLENGE_FIELDS: Final = 16
"""So many fields `WWW-Authenticate` of one answer are read. Registries send one for each way to log
in, and IANA's registry of these ways has about as many in all."""

MAX_CHALLENGE_CHARS: Final = 8190
"""A longer field is passed over. Source: aiohttp, `max_field_size`: what it takes by default."""

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
"""What RFC 9110 calls a token."""
_SPACE: Final = r"[ \t]*+"
_END: Final = rf"(?={_SPACE}(?:,|\Z))"
_QUOTED: Final = r'(?:[^"\\]++|\\.)*+'

_PARAMETER: Final = re.compile(
    rf'({_WORD}){_SPACE}={_SPACE}(?:"({_QUOTED})"|([^\s,"]*+)){_END}', re.DOTALL
)
"""A value without quotes may hold more than a token: registries send URLs so.

No repetition of these expressions gives back what it took, so that the time is that of the length,
whatever a registry sends."""

_SCHEME: Final = re.compile(rf"({_WORD})(?=[ \t,]|\Z)")
_BETWEEN: Final = re.compile(r"[\s,]*+")
_OTHER: Final = re.compile(rf'(?:[^,"]++|"{_QUOTED}(?:"|\\?\Z))++', re.DOTALL)
"""The rest of an element that is neither, as far as the next comma outside of quotes. A quote that
isn't closed takes the rest of the field."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in that a server offers."""

    scheme: str
    """In small letters."""
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """By name in small letters."""


class Logins:
    """Who we are, for each origin: what one server was shown never goes to another."""

    def __init__(self, requests: Requests, tries: Tries, find_credentials: FindCredentials) -> None:
        self._requests = requests
        self._tries = tries
        self._find_credentials = find_credentials
        self._authorizations: dict[Origin, str] = {}
        self._logging_in = asyncio.Lock()

    def authorization(self, url: URL) -> str | None:
        """Return the header `Authorization` for a request; None if the server demanded none yet."""
        return self._authorizations.get(origin_of(url))

    def show(self, url: URL, credentials: Credentials) -> None:
        """Show a password to a server from the first request on."""
        self._authorizations[origin_of(url)] = credentials.header

    async def log_in(self, response: aiohttp.ClientResponse, used: str | None) -> bool:
        """Do what the server demands, unless another request has done so meanwhile.

        Returns whether a request that had shown `used` may succeed now.

        Raises:
            GaveUpError: the token service could not be asked.
            RefusedError: it gives no token, or the server doesn't say where it is.
        """
        origin = origin_of(response.url)
        async with self._logging_in:
            if self._authorizations.get(origin) != used:
                return True
            authorization = await self._authorize(response, used)
            if authorization is None or authorization == used:
                return False
            self._authorizations[origin] = authorization
            return True

    async def _authorize(self, response: aiohttp.ClientResponse, used: str | None) -> str | None:
        """Return what the server wants to be shown; None if nobody gave us that."""
        challenges = read_challenges(response.headers)
        try:
            credentials = await self._find_credentials(response.url, used)
        except (InvalidDocumentError, ProgramError) as error:
            raise RefusedError(f"{FAILED}: {error}") from error
        bearers = [challenge for challenge in challenges if challenge.scheme == "bearer"]
        if bearers:
            bearer = next((one for one in bearers if one.parameters.get("realm")), bearers[0])
            scope = _scope(response.url)
            fetch = partial(fetch_token, self._requests, bearer, scope, credentials)
            return f"Bearer {await self._tries.repeat(fetch)}"
        if credentials is not None and any(one.scheme == "basic" for one in challenges):
            return credentials.header or None
        return None


def _scope(url: URL) -> str:
    """Ask for what the request needs, where the server doesn't say it."""
    repository = _REPOSITORY.fullmatch(url.raw_path)
    return f"repository:{repository[1]}:pull" if repository else ""


async def fetch_token(
    requests: Requests, challenge: Challenge, scope: str, credentials: Credentials | None
) -> str:
    """Get a token; `scope` counts where the challenge names none.

    Raises:
        TransferError: the token service could not be asked.
        RefusedError: it gives none, to these credentials; or the challenge doesn't say where it is.
    """
    what = f"{FAILED}: failed to fetch {'oauth' if credentials else 'anonymous'} token"
    if credentials is not None and credentials.identity_token:
        url = _realm_url(challenge)
        response = await _post(requests, url, challenge, scope, credentials.identity_token, what)
    else:
        url = _token_url(challenge, scope)
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


async def _post(
    requests: Requests, url: URL, challenge: Challenge, scope: str, identity_token: str, what: str
) -> aiohttp.ClientResponse:
    """Show the identity token to the realm, and to nobody it may point to."""
    form = {
        "grant_type": "refresh_token",
        "refresh_token": identity_token,
        "service": challenge.parameters.get("service", ""),
        "scope": challenge.parameters.get("scope") or scope,
        "client_id": CLIENT_ID,
    }
    response = await requests.send("POST", url, {}, what, form)
    try:
        target = redirect_target(response)
        if target is not None:
            raise RefusedError(
                f"{what}: {shown(url)} points to {shown(target)}, which is shown no identity token"
            )
    except RefusedError:
        response.release()
        raise
    return response


def _token_url(challenge: Challenge, scope: str) -> URL:
    """The realm byte for byte, and what is asked of it behind its own query."""
    url = _realm_url(challenge)
    wanted = [("scope", each) for each in (challenge.parameters.get("scope") or scope).split()]
    if service := challenge.parameters.get("service"):
        wanted.append(("service", service))
    mark = "?" if not url.raw_query_string else "&"
    return parse_url(f"{url}{mark if wanted else ''}{urlencode(wanted)}")


def _realm_url(challenge: Challenge) -> URL:
    realm = challenge.parameters.get("realm", "")
    if not realm:
        raise RefusedError(f"{FAILED}: the registry wants a token, but names no realm to ask")
    try:
        return parse_url(realm)
    except ValueError as error:
        raise RefusedError(
            f"{FAILED}: the registry's token realm '{shown(realm)[:200]}' can't be asked: {error}"
        ) from error


def read_challenges(headers: MultiMapping[str]) -> tuple[Challenge, ...]:
    """Return the challenges of an answer: of its first fields, and of none that is too long."""
    fields = headers.getall("WWW-Authenticate", [])[:MAX_CHALLENGE_FIELDS]
    return parse_challenges(field for field in fields if len(field) <= MAX_CHALLENGE_CHARS)


def parse_challenges(fields: Iterable[str]) -> tuple[Challenge, ...]:
    """Read every challenge in every field, in order. What is no challenge is passed over."""
    return tuple(challenge for text in fields for challenge in _parse_field(text))


def _parse_field(text: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while (position := _skip(text, position)) < len(text):
        if match := _PARAMETER.match(text, position):
            name, quoted, plain = match.groups()
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
            if found:
                found[-1][1].setdefault(name.lower(), value)
        elif match := _SCHEME.match(text, position):
            found.append((match[1].lower(), {}))
        else:
            match = _OTHER.match(text, position)
        position = match.end() if match else len(text)
    return [Challenge(scheme, MappingProxyType(parameters)) for scheme, parameters in found]


def _skip(text: str, position: int) -> int:
    between = _BETWEEN.match(text, position)
    return between.end() if between else position
