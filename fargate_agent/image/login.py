"""What a pull shows to each server: nothing, a password or a token, as that server demands."""

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import Final

import aiohttp
from yarl import URL

from fargate_agent.egress.retry import Tries
from fargate_agent.egress.transport import RefusedError
from fargate_agent.egress.urls import Origin, origin_of
from fargate_agent.image.auth import Credentials
from fargate_agent.image.challenge import parse_challenges
from fargate_agent.image.document import InvalidDocumentError
from fargate_agent.image.requests import Requests
from fargate_agent.image.token import FAILED, fetch_token

FindCredentials = Callable[[URL], Credentials | None]
"""Returns what the operator gave for the host of a URL; raises `InvalidDocumentError`."""

_REPOSITORY: Final = re.compile(r"/v2/(.+)/(?:manifests|blobs)/[^/]+")


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
            authorization = await self._authorize(response)
            if authorization is None or authorization == used:
                return False
            self._authorizations[origin] = authorization
            return True

    async def _authorize(self, response: aiohttp.ClientResponse) -> str | None:
        """Return what the server wants to be shown; None if nobody gave us that."""
        challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
        try:
            credentials = self._find_credentials(response.url)
        except InvalidDocumentError as error:
            raise RefusedError(f"{FAILED}: {error}") from error
        bearers = [challenge for challenge in challenges if challenge.scheme == "bearer"]
        if bearers:
            bearer = next((one for one in bearers if one.parameters.get("realm")), bearers[0])
            scope = _scope(response.url)
            fetch = partial(fetch_token, self._requests, bearer, scope, credentials)
            return f"Bearer {await self._tries.repeat(fetch)}"
        if credentials is not None and any(one.scheme == "basic" for one in challenges):
            return credentials.header
        return None


def _scope(url: URL) -> str:
    """Ask for what the request needs, where the server doesn't say it."""
    repository = _REPOSITORY.fullmatch(url.raw_path)
    return f"repository:{repository[1]}:pull" if repository else ""
