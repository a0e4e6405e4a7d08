"""What has happened, read back: pages of events, and the stream of them that `GET /events` is.

The stream is newline-delimited JSON, an envelope of EventBridge per line; an empty line says that
the connection lives. Whoever reconnects asks for what comes after the last event they have seen.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

from aiohttp import web
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import SQLAlchemyError

from fargate_agent.controlplane.access.auth import Caller
from fargate_agent.controlplane.access.permissions import ANYTHING, Asked, Target, Targets
from fargate_agent.controlplane.access.policy import Decision
from fargate_agent.controlplane.errors import ApiError, cluster_not_found, invalid_parameter
from fargate_agent.controlplane.history.events import render_envelope
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.pages import parse_since
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.announcements import EVENTS
from fargate_agent.controlplane.state.model import Cluster, Event
from fargate_agent.controlplane.state.session import Session

log = logging.getLogger(__name__)

ACTION: Final = "fargate:ListEvents"
"""What a policy allows to whoever may read the stream; ECS has no such action."""
POSITION_HEADER: Final = "X-Fargate-After"
"""Of the answer: the number of the event after which the stream begins."""

PAGE_ROWS: Final = 500
HEARTBEAT_S: Final = 15.0
SEND_TIMEOUT_S: Final = 30
"""How long a reader may leave a page unread before its connection is given up."""

LookAgain = Callable[[], Awaitable[Caller]]
"""Gives the reader as the keys have it by now; raises `ApiError` if it may read no longer."""

_SUBJECT_CHARS: Final = 32
"""A subject of this length is a whole id; a shorter one is the beginning of one."""
_MAX_SEQ: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events are asked for."""

    after: int | None = 0
    """Number of an event; None: only those that are still to come."""
    since: float = 0.0
    """Seconds since 1970."""
    cluster: str | None = None
    """Its name."""
    subject: str | None = None
    """Id of a task, or the beginning of one."""
    follow: bool = False
    """Go on with what happens later."""


def parse_query(parameters: Mapping[str, str], arns: Arns) -> EventQuery:
    """Read the parameters of `GET /events`.

    Raises:
        ApiError: one is unknown or makes no sense.
    """
    if unknown := sorted(parameters.keys() - {"after", "since", "cluster", "subject", "follow"}):
        raise invalid_parameter(f"Unknown parameter: {unknown[0]}.")
    after, cluster = parameters.get("after", "0"), parameters.get("cluster")
    follow = parameters.get("follow", "false")
    if follow not in {"true", "false"}:
        raise invalid_parameter("follow must be true or false.")
    return EventQuery(
        after=None if after == "latest" else _parse_number(after),
        since=parse_since(parameters.get("since", "0")),
        cluster=arns.parse_cluster(cluster) if cluster else None,
        subject=parameters.get("subject") or None,
        follow=follow == "true",
    )


def find_targets(query: EventQuery, arns: Arns, settings: ControlPlaneSettings) -> Targets:
    """Return what the caller needs permission for: everything, or what happens in one cluster."""
    if query.cluster is None:
        return ANYTHING
    asked = Asked({"cluster": query.cluster}, arns, settings.cluster)
    return [Target("*", asked.in_cluster())]


def may_read(caller: Caller, arns: Arns, settings: ControlPlaneSettings, cluster: str) -> bool:
    """Whether a caller may know what happens in a cluster: a policy may leave out some."""
    context = Asked({"cluster": cluster}, arns, settings.cluster).in_cluster()
    context = {**context, "aws:username": caller.principal}
    return caller.policy.decide(ACTION, "*", context) is Decision.ALLOWED


async def read_page(session: Session, query: EventQuery, after: int) -> tuple[Sequence[Event], int]:
    """Return the next events, at most `PAGE_ROWS`, and after which number to go on."""
    newest = await read_newest(session)
    wanted = select(Event).where(Event.seq > after, *_conditions(query))
    events = (await session.scalars(wanted.order_by(Event.seq).limit(PAGE_ROWS))).all()
    if len(events) == PAGE_ROWS:
        return events, events[-1].seq
    return events, max(after, newest)  # what doesn't match isn't looked at again


async def read_newest(session: Session) -> int:
    """Return the number of the newest event; 0 if there is none."""
    return await session.scalar(select(func.max(Event.seq))) or 0


class EventStreams:
    """Serves `GET /events` to whoever follows."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._ending = False

    def close(self) -> None:
        """Let the streams that would go on for ever end."""
        self._ending = True
        self._plane.announcements.tell([EVENTS])

    async def serve(
        self, request: web.Request, query: EventQuery, look_again: LookAgain
    ) -> web.StreamResponse:
        """Send what is asked for, as far and as long as the caller may read it.

        Raises:
            ApiError: there is no such cluster.
            SQLAlchemyError: nothing was sent: the events can't be read.
        """
        after = await self._find_start(query)
        response = web.StreamResponse(
            headers={"Content-Type": "application/x-ndjson", POSITION_HEADER: str(after)}
        )
        await response.prepare(request)
        try:
            await self._send(response, query, after, look_again)
        except (ConnectionError, TimeoutError):
            _break_off(request)  # it has gone, or doesn't read
        except ApiError as error:
            log.info("a reader of events is cut off: %s", error)
            _break_off(request)
        except SQLAlchemyError as error:
            log.error("events can't be read: %s", error)
            _break_off(request)
        return response

    async def _find_start(self, query: EventQuery) -> int:
        async with self._plane.store.read() as session:
            if query.cluster is not None and await session.get(Cluster, query.cluster) is None:
                raise cluster_not_found()
            return await read_newest(session) if query.after is None else query.after

    async def _send(
        self,
        response: web.StreamResponse,
        query: EventQuery,
        after: int,
        look_again: LookAgain,
    ) -> None:
        arns, settings = self._plane.arns, self._plane.settings
        with self._plane.announcements.listening(EVENTS) as news:
            while not (self._ending and query.follow):
                news.clear()
                may_read_of = cache(partial(may_read, await look_again(), arns, settings))
                async with self._plane.store.read() as session:
                    events, after = await read_page(session, query, after)
                await _write(response, self._render(e for e in events if may_read_of(e.cluster)))
                if len(events) == PAGE_ROWS:
                    continue
                if not query.follow:
                    return
                await self._wait(response, news, look_again)

    async def _wait(
        self, response: web.StreamResponse, news: asyncio.Event, look_again: LookAgain
    ) -> None:
        """Return when there may be more; say meanwhile that the connection lives."""
        while not (news.is_set() or self._ending):
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await news.wait()
            if not news.is_set():
                await look_again()
                await _write(response, b"\n")

    def _render(self, events: Iterable[Event]) -> bytes:
        arns = self._plane.arns
        return b"".join(json.dumps(render_envelope(e, arns)).encode() + b"\n" for e in events)


def _break_off(request: web.Request) -> None:
    """Close the connection in a way that isn't taken for the end of what was asked for."""
    if request.transport is not None:
        request.transport.abort()


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Return when the reader has room for more.

    Raises:
        ConnectionError: it has gone.
        TimeoutError: it reads nothing.
    """
    if data:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await response.write(data)


def _conditions(query: EventQuery) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if query.since:
        found.append(Event.at >= query.since)
    if query.cluster is not None:
        found.append(Event.cluster == query.cluster)
    if query.subject is not None:
        found.append(
            Event.subject == query.subject
            if len(query.subject) >= _SUBJECT_CHARS
            else Event.subject.startswith(query.subject, autoescape=True)
        )
    return found


def _parse_number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text[:20]) <= _MAX_SEQ):
        raise invalid_parameter("after must be the number of an event, or latest.")
    return int(text)
