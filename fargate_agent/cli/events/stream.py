"""The control plane's stream of events: EventBridge envelopes, each once, whatever is restarted."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.session import Session
from yarl import URL

from fargate_agent.cli.clients.ecs import explain_no_answer, explain_no_key
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.failure import CliError, UnreachableError

CONNECT_TIMEOUT_S: Final = 5
SILENCE_TIMEOUT_S: Final = 60
"""The control plane says something every 15 s."""
RETRY_S: Final = 0.5
ATTEMPTS: Final = 3
"""How often in a row a stream that isn't followed may break off."""
POSITION_HEADER: Final = "X-Fargate-After"

Envelope = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events are wanted; None means all."""

    follow: bool = False
    since: datetime | None = None
    """With `follow`, None means those that are still to come."""
    cluster: str | None = None
    task: str | None = None
    """Id, or the beginning of one."""


async def read_events(
    connection: Connection, query: EventQuery, note: Callable[[str], None]
) -> AsyncIterator[Envelope]:
    """Yield events in their order; with `follow`, for ever.

    A stream that breaks off is opened again where it ended. While a follower waits for the control
    plane to come back, `note` is told so once.

    Raises:
        UnreachableError: it can't be reached; when following, only the first time.
        CliError: it refuses.
    """
    stream = _Stream(connection, query)
    async with aiohttp.ClientSession() as http:
        failures = 0
        while True:
            try:
                async for envelope in stream.read(http):
                    failures = 0
                    yield envelope
                if not query.follow:
                    return
                await asyncio.sleep(RETRY_S)  # it is being restarted
            except UnreachableError as error:
                failures += 1
                if not stream.was_open or (not query.follow and failures >= ATTEMPTS):
                    raise
                if failures == 1 and query.follow:
                    note(f"{error}; waiting for it")
                await asyncio.sleep(RETRY_S)


def parse_number(envelope: Envelope) -> int:
    """The number of an event, by which the control plane orders them.

    Example:
        >>> parse_number({"id": "00000000-0000-0000-0000-0000000000ff"})
        255
    """
    return int(str(envelope["id"]).rpartition("-")[2], 16)


class _Stream:
    """The place in the stream up to which events are known."""

    def __init__(self, connection: Connection, query: EventQuery) -> None:
        self._connection = connection
        self._query = query
        self._after = "latest" if query.follow and query.since is None else "0"
        self.was_open = False

    async def read(self, http: aiohttp.ClientSession) -> AsyncIterator[Envelope]:
        """Go on until the other side ends the stream."""
        async with self._open(http) as response:
            self.was_open = True
            self._after = response.headers.get(POSITION_HEADER, self._after)
            rest = b""
            async for chunk in response.content.iter_any():  # a line may be of any length
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    envelope = json.loads(line)
                    self._after = str(parse_number(envelope))
                    yield envelope

    @asynccontextmanager
    async def _open(self, http: aiohttp.ClientSession) -> AsyncIterator[aiohttp.ClientResponse]:
        endpoint = self._connection.endpoint
        query = urlencode(self._parameters(), quote_via=quote)  # signatures know no + for a space
        url = f"{endpoint.rstrip('/')}/events?{query}"
        _check_url(url, endpoint)
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S
        )
        headers = await asyncio.to_thread(_sign, self._connection, url)
        try:
            async with http.get(
                URL(url, encoded=True), headers=headers, timeout=timeout
            ) as response:
                if response.status != HTTPStatus.OK:
                    raise await _refusal(response)
                yield response
        except aiohttp.ClientConnectorError as error:
            raise explain_no_answer(endpoint) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnreachableError(
                f"control plane at {endpoint}: the connection is lost"
            ) from error
        except (ValueError, LookupError) as error:
            raise CliError(f"events at {endpoint}: not an event: {error}") from error

    def _parameters(self) -> Mapping[str, str]:
        query = self._query
        since = None if query.since is None else f"{query.since.timestamp():.3f}"
        wanted = {
            "after": self._after,
            "since": since,
            "cluster": query.cluster,
            "subject": query.task,
            "follow": "true" if query.follow else None,
        }
        return {name: value for name, value in wanted.items() if value is not None}


def _check_url(url: str, endpoint: str) -> None:
    try:
        parsed = URL(url, encoded=True)
    except ValueError:
        parsed = URL()
    if parsed.host is None or parsed.scheme not in {"http", "https"}:
        raise CliError(f"{endpoint}: not the URL of a control plane")


def _sign(connection: Connection, url: str) -> dict[str, str]:
    request = AWSRequest(method="GET", url=url)
    SigV4Auth(_find_credentials(connection), "ecs", connection.region).add_auth(request)
    return dict(request.headers.items())


def _find_credentials(connection: Connection) -> Any:  # noqa: ANN401 - botocore ships no types
    if connection.access_key_id and connection.secret_access_key:
        return Credentials(
            connection.access_key_id, connection.secret_access_key, connection.session_token
        )
    try:
        found = Session().get_credentials()
    except BotoCoreError as error:
        raise CliError(f"credentials: {error}") from error
    if found is None:
        raise explain_no_key(connection.endpoint)
    return found.get_frozen_credentials()


async def _refusal(response: aiohttp.ClientResponse) -> CliError:
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return UnreachableError(
            f"control plane at {response.url.origin()}: it answered {response.status}"
        )
    try:
        said = await response.json(content_type=None)
        text = f"{said['__type']}: {' '.join(said['message'].split())}"
    except (ValueError, LookupError, TypeError, AttributeError):
        text = f"{response.status} {response.reason}"
    return CliError(f"events: {text}")
