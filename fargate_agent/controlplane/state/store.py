"""The database: SQLite or PostgreSQL, one writer at a time, on disk before anyone is answered.

SQLite has one writer by its nature. With PostgreSQL every transaction that writes takes the same
advisory lock first. So what a transaction has read stays true until it ends, with both alike: two
can't reserve the same room, nor hand out the same address, and none has to be tried again.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, insert, select, true, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from fargate_agent.controlplane.errors import NotNowError, StartError
from fargate_agent.controlplane.state import sqlite
from fargate_agent.controlplane.state.announcements import (
    CHANNEL,
    EVENTS,
    SECURITY_GROUPS,
    Announcements,
)
from fargate_agent.controlplane.state.batches import Batches, Item, Result, Work
from fargate_agent.controlplane.state.model import Event
from fargate_agent.controlplane.state.networks import GroupRow, RuleRow
from fargate_agent.controlplane.state.schema import ensure_schema
from fargate_agent.controlplane.state.session import Connections, Session
from fargate_agent.measures.histogram import Histogram
from fargate_agent.reserve import Reserve

IDLE_TIMEOUT_S: Final = 10
"""How long the end of this process waits for open transactions."""
RESERVE_BYTES: Final = 8 * 1024 * 1024
"""Twice what SQLite's log of changes grows to before it begins at its start again."""

_TOPICS: Final = "fargate_topics"
_EVENTS: Final = "fargate_events"
_RULES: Final = "fargate_rules"
_MEMBERS: Final = "fargate_members"


class Store:
    """Transactions over the tables of `model`."""

    def __init__(
        self,
        readers: Connections,
        writer: Connections,
        announcements: Announcements,
        reserve: Reserve | None,
    ) -> None:
        """`reserve` is on the disk that has the database; None: that disk is another machine's."""
        self.reserve = reserve
        self._readers = readers
        self._writer = writer
        self._shared = reserve is None
        """Whether other processes use the database too."""
        self._announcements = announcements
        self._turn = asyncio.Lock()
        """Writers of this process queue here. SQLite makes them try again and again, in no order,
        until some have waited too long; with PostgreSQL each would hold a connection."""
        self._batches: dict[Work[Any, Any], Batches[Any, Any]] = {}
        self.times = {"read": Histogram(), "write": Histogram()}
        """How long transactions are open, in seconds."""
        self.waiting = 0
        """Writers of this process that wait for their turn."""
        self._open = 0
        """Transactions that have begun and not ended."""
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Session]:
        """Give one consistent view of the data."""
        with self.times["read"].time():
            async with self._session(self._readers) as session:
                yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Session]:
        """Give the only writer; what it did is on disk when the body ends, or undone if it fails.

        Rows stay readable afterwards. What was given to `announce` is told then.
        """
        async with self._next_turn(), self._session(self._writer) as session:
            yield session
            await _to_the_end(self._commit(session))

    async def write_together(self, work: Work[Item, Result], item: Item) -> Result:
        """Do `work` for an item, in one transaction with the items of others who wait for it.

        Returns the item's result.

        Raises:
            Exception: the item's error.
            SQLAlchemyError: the database could not do it.
        """
        if work not in self._batches:
            self._batches[work] = Batches(self.write, work)
        result: Result = await self._batches[work].do(item)
        return result

    async def insist(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Return what `work` returns; if the disk is full, it is done again with the reserve.

        For what ends tasks, or is told by agents, which must not wait for the disk.
        """
        try:
            return await work()
        except OperationalError as error:
            if self.reserve is None or not sqlite.is_full(error):
                raise
            await asyncio.to_thread(self.reserve.give_up)  # somebody else may have just now
            return await work()

    async def wait_idle(self) -> None:
        """Return when no transaction is open: some end later than what has begun them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                await self._idle.wait()

    @asynccontextmanager
    async def _next_turn(self) -> AsyncIterator[None]:
        """Be the only one of this process that writes while the body runs."""
        self.waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self.waiting -= 1
        try:
            with self.times["write"].time():
                yield
        finally:
            self._turn.release()

    @asynccontextmanager
    async def _session(self, connections: Connections) -> AsyncIterator[Session]:
        """Give a session of its own connection; what isn't committed is undone."""
        self._open += 1
        self._idle.clear()
        try:
            session = await _connect(connections)
            session.info.update({_TOPICS: set[str](), _EVENTS: []})
            session.info.update({_RULES: set[str](), _MEMBERS: set[str]()})
            try:
                yield session
            finally:
                await _to_the_end(session.close())
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()

    async def _commit(self, session: Session) -> None:
        if events := session.info[_EVENTS]:
            await session.execute(insert(Event), events)
        await _move_versions(session)
        if self._shared:
            for topic in sorted(session.info[_TOPICS]):
                await session.execute(select(func.pg_notify(CHANNEL, topic)))
        await session.commit()
        self._announcements.tell(session.info[_TOPICS])


async def _connect(connections: Connections) -> Session:
    """Return a session.

    Raises:
        SQLAlchemyError: there is none to be had; a server that is away is an `OperationalError`, as
            whatever else a database says.
    """
    making = asyncio.create_task(connections.connect())
    is_cancelled = await _finish(making)
    try:
        session = making.result()
    except OSError as error:  # asyncpg's is passed on as it is
        raise OperationalError(None, None, error) from error
    if is_cancelled:
        await _to_the_end(session.close())  # nobody else knows of it
        raise asyncio.CancelledError
    return session


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do the work to its end; whoever is cancelled meanwhile is cancelled after it."""
    job = asyncio.create_task(work)
    is_cancelled = await _finish(job)
    job.result()
    if is_cancelled:
        raise asyncio.CancelledError


async def _finish(job: asyncio.Task[Any]) -> bool:
    """Wait until a job is over; return whether the caller was cancelled meanwhile, once or more."""
    is_cancelled = False
    while not job.done():
        try:
            await asyncio.wait([job])
        except asyncio.CancelledError:
            is_cancelled = True
    return is_cancelled


def announce(session: Session, topic: str) -> None:
    """Tell a topic when the transaction is committed, in every process that uses the database."""
    session.info[_TOPICS].add(topic)


def add_event(session: Session, event: Event) -> None:
    """Write an event down with all others of the transaction, in one statement at its end.

    Were it added to the session, SQLite would be asked for each event alone, for its number.
    """
    members = ("at", "cluster", "kind", "subject", "detail")
    session.info[_EVENTS].append({member: getattr(event, member) for member in members})
    announce(session, EVENTS)


def note_rules(session: Session, group_ids: Iterable[str]) -> None:
    """Have agents told of security groups whose rules this transaction changes."""
    session.info[_RULES].update(group_ids)


def note_members(session: Session, group_ids: Iterable[str]) -> None:
    """Have agents told of security groups whose members this transaction changes.

    Only those that a rule names are of interest.
    """
    session.info[_MEMBERS].update(group_ids)


async def _move_versions(session: Session) -> None:
    rules, members = session.info[_RULES], session.info[_MEMBERS] - session.info[_RULES]
    moved = 0
    for groups, condition in (
        (rules, true()),
        (members, GroupRow.id.in_(select(RuleRow.source_group))),
    ):
        if groups:
            changed = update(GroupRow).where(GroupRow.id.in_(sorted(groups)), condition)
            moved += (
                await session.execute(
                    changed.values(version=GroupRow.version + 1).execution_options(
                        synchronize_session=False
                    )
                )
            ).rowcount
    if moved:
        announce(session, SECURITY_GROUPS)


@asynccontextmanager
async def open_store(url: URL, announcements: Announcements) -> AsyncIterator[Store]:
    """Open the database, bring its tables up to date, and close it at the end.

    Raises:
        StartError: it can't be opened, or is of a later version.
    """
    shown = url.database if url.get_backend_name() == "sqlite" else url.render_as_string()
    readers, writer = await asyncio.to_thread(_make_connections, url)
    try:
        try:
            await writer.begin(ensure_schema)
        except StartError as error:
            raise type(error)(f"{shown}: {error}") from error
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            cause = getattr(error, "orig", None) or error
            raise NotNowError(f"{shown}: {cause}") from error
        store = Store(readers, writer, announcements, _find_reserve(url))
        try:
            yield store
        finally:
            await store.wait_idle()
    finally:
        await readers.close()
        await writer.close()


def _make_connections(url: URL) -> tuple[Connections, Connections]:
    """Return those that read, and the one that writes; blocks.

    It takes the write lock at once: a transaction that reads and then writes can't be too late.
    """
    if url.get_backend_name() == "sqlite":
        return (
            sqlite.SqliteConnections(
                url, begin="BEGIN", cache_kib=sqlite.READER_CACHE_KIB, most=sqlite.MAX_READERS
            ),
            sqlite.SqliteConnections(
                url, begin="BEGIN IMMEDIATE", cache_kib=sqlite.WRITER_CACHE_KIB, most=1
            ),
        )
    # many modules, which a control plane with SQLite doesn't need
    from fargate_agent.controlplane.state import postgres

    return (
        postgres.PostgresConnections(
            url, begin=None, most=postgres.MAX_READERS, isolation_level="REPEATABLE READ"
        ),
        postgres.PostgresConnections(url, begin=postgres.WRITE, most=1),
    )


def _find_reserve(url: URL) -> Reserve | None:
    """Return the reserve of a database that is a file here, beside it."""
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    file = Path(url.database)
    return Reserve(file.with_name(f"{file.name}.reserve"), RESERVE_BYTES)
