"""Events for those who don't ask: a file gets each as a line, a webhook by POST.

How far a follower has been told stands in the database and moves on after it has been told. So an
event may come twice when a process was killed in between, and none is left out, as long as the
follower is not away for longer than events are kept. Of several processes on one database the one
that holds the follower's lease tells it.
"""

import asyncio
import json
import logging
import os
import re
import socket
import stat
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError
from yarl import URL

from fargate_agent.controlplane.history.events import render_envelope
from fargate_agent.controlplane.history.stream import EventQuery, read_newest, read_page
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.announcements import EVENTS
from fargate_agent.controlplane.state.model import Event, Follower
from fargate_agent.controlplane.state.store import Store
from fargate_agent.controlplane.validate import Json
from fargate_agent.files import sync

log = logging.getLogger(__name__)

LEASE_S: Final = 60.0
"""How long nobody else tells a follower. Longer than one page may take."""
PAGE_S: Final = 5.0
"""A webhook's position is written down this often."""
POST_TIMEOUT_S: Final = 10.0
FIRST_DELAY_S: Final = 0.5
MAX_DELAY_S: Final = 60.0
"""Also where a webhook asks for more by `Retry-After`: a lease lasts no longer."""

FILE: Final = "file"
WEBHOOK: Final = "webhook"

_ALL: Final = EventQuery()


@dataclass(frozen=True, slots=True)
class Told:
    """How many events of a page, from its beginning, have been told, and why no more."""

    count: int
    fault: str | None = None
    pause_s: float = 0.0
    """How long it wants to be left alone."""


class Sink(Protocol):
    """Somebody who is told."""

    name: str

    async def tell(self, envelopes: Sequence[Json]) -> Told:
        """Hand over events in their order, as many as can be."""
        ...


async def ensure_followers(settings: ControlPlaneSettings, store: Store) -> None:
    """Let followers that are new begin with what happens from now on.

    Raises:
        SQLAlchemyError: the database can't be used.
    """
    async with store.write() as session:
        for name in _configured(settings):
            if await session.get(Follower, name) is None:
                session.add(Follower(name=name, seq=await read_newest(session)))


def follow_events(plane: Plane) -> list[Coroutine[Any, Any, None]]:
    """Return what tells each follower, for ever; they must be there already."""
    told = {FILE: _tell_file, WEBHOOK: _tell_webhook}
    return [told[name](plane, target) for name, target in _configured(plane.settings).items()]


def _configured(settings: ControlPlaneSettings) -> dict[str, str]:
    targets = {FILE: settings.events_file, WEBHOOK: settings.events_webhook}
    return {name: str(target) for name, target in targets.items() if target is not None}


async def _tell_file(plane: Plane, path: str) -> None:
    await _Delivery(plane, FileSink(Path(path))).run()


async def _tell_webhook(plane: Plane, url: str) -> None:
    timeout = aiohttp.ClientTimeout(total=POST_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        await _Delivery(plane, WebhookSink(http, url)).run()


class _Delivery:
    """Tells one follower."""

    def __init__(self, plane: Plane, sink: Sink) -> None:
        self._plane = plane
        self._sink = sink
        # the same after a restart, which then needn't wait for its own lease
        self._holder = f"{socket.gethostname()}:{plane.settings.state_dir.absolute()}"
        self._delays = _delays_s()

    async def run(self) -> None:
        with self._plane.announcements.listening(EVENTS) as news:
            while True:
                news.clear()
                try:
                    told = await self._tell_page()
                except SQLAlchemyError as error:
                    told = Told(0, f"the database can't be used: {error}")
                await self._pause(told, news)

    async def _pause(self, told: Told, news: asyncio.Event) -> None:
        if told.count or told.fault is None:
            self._delays = _delays_s()
        if told.fault is not None:
            delay_s = max(next(self._delays), min(told.pause_s, MAX_DELAY_S))
            name = self._sink.name
            log.warning("events for %s: %s; again in %g s", name, told.fault, delay_s)
            await asyncio.sleep(delay_s)
        elif not told.count:
            with suppress(TimeoutError):
                async with asyncio.timeout(LEASE_S):  # somebody else's may have run out
                    await news.wait()

    async def _tell_page(self) -> Told:
        events = await self._find_page()
        told = Told(0)
        if events:
            arns = self._plane.arns
            told = await self._sink.tell([render_envelope(event, arns) for event in events])
        if told.count:
            await self._note(events[told.count - 1].seq)
        return told

    async def _find_page(self) -> Sequence[Event]:
        """Return what is to be told next; nothing if somebody else tells it."""
        async with self._plane.store.read() as session:
            follower = await session.get_one(Follower, self._sink.name)
            events, _ = await read_page(session, _ALL, follower.seq)
        if not events or self._is_others(follower):
            return []
        if follower.holder == self._holder and follower.held_until > time.time() + LEASE_S / 2:
            return events
        async with self._plane.store.write() as session:
            follower = await session.get_one(Follower, self._sink.name)
            if self._is_others(follower):
                return []
            follower.holder, follower.held_until = self._holder, time.time() + LEASE_S
        return [event for event in events if event.seq > follower.seq]

    def _is_others(self, follower: Follower) -> bool:
        """Whether another process tells it. A lease that is too long is of a wrong clock."""
        left_s = follower.held_until - time.time()
        return follower.holder != self._holder and 0 < left_s <= 2 * LEASE_S

    async def _note(self, seq: int) -> None:
        """Write down how far the follower has been told, unless another does that now."""
        async with self._plane.store.write() as session:
            await session.execute(
                update(Follower)
                .where(
                    Follower.name == self._sink.name,
                    Follower.holder == self._holder,
                    Follower.seq < seq,
                )
                .values(seq=seq, held_until=time.time() + LEASE_S)
            )


class FileSink(Sink):
    """Appends to a file, which is made again when it was moved away."""

    name = FILE

    def __init__(self, path: Path) -> None:
        self._path = path

    async def tell(self, envelopes: Sequence[Json]) -> Told:
        text = b"".join(json.dumps(envelope).encode() + b"\n" for envelope in envelopes)
        try:
            await asyncio.to_thread(_append, self._path, text)
        except OSError as error:
            return Told(0, f"{self._path}: {error.strerror}")
        return Told(len(envelopes))


class WebhookSink(Sink):
    """Posts one event after the other."""

    name = WEBHOOK

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def tell(self, envelopes: Sequence[Json]) -> Told:
        end = time.monotonic() + PAGE_S
        for count, envelope in enumerate(envelopes):
            if count and time.monotonic() > end:
                return Told(count)
            fault, pause_s = await self._post(envelope)
            if fault is not None:
                return Told(count, fault, pause_s)
        return Told(len(envelopes))

    async def _post(self, envelope: Json) -> tuple[str | None, float]:
        """Return why the event has to be posted again, if so, and not before how many seconds."""
        try:
            async with self._http.post(self._url, json=envelope, allow_redirects=False) as response:
                status, retry_after = response.status, response.headers.get("Retry-After", "")
        except TimeoutError:
            return f"no answer within {POST_TIMEOUT_S:g} s", 0.0
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return f"not posted to {URL(self._url).host}: {type(error).__name__}", 0.0
        if 400 <= status < 500 and status != 429:
            # not said where: a URL may hold a secret
            log.error("event %s: the webhook refuses it with status %d", envelope["id"], status)
            return None, 0.0
        if 200 <= status < 300:
            return None, 0.0
        return f"the webhook answers with status {status}", parse_retry_after(
            retry_after, datetime.now(UTC)
        )


def parse_retry_after(text: str, now: datetime) -> float:
    """Return how many seconds the header asks to wait; 0 if it is missing or makes no sense.

    Source: RFC 9110, section 10.2.3: seconds, or a date.
    """
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max((moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds(), 0.0)


def _append(path: Path, text: bytes) -> None:
    """Add whole lines to a file; they are on disk afterwards. Blocks."""
    is_new = not path.exists()
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "is not a file")
        size = status.st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            text = b"\n" + text  # a line that was torn by a crash comes again, whole
        _write_all(descriptor, text, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        sync(path.parent)


def _write_all(descriptor: int, text: bytes, size: int) -> None:
    """Write all, or leave the file as it was, as when the disk is full."""
    rest = memoryview(text)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _delays_s() -> Iterator[float]:
    delay_s = FIRST_DELAY_S
    while True:
        yield delay_s
        delay_s = min(2 * delay_s, MAX_DELAY_S)
