"""The database: SQLite or PostgreSQL, one writer at a time, on disk before anyone is answered.

SQLite has one writer by its nature. With PostgreSQL every transaction that writes takes the same
advisory lock first. So what a transaction has read stays true until it ends, with both alike: two
can't reserve the same room, nor hand out the same address, and none has to be tried again.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from threading import Thread
from typing import Any, Final
from weakref import WeakSet

from sqlalchemy import Connection, event, func, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    create_async_engine,
)

from fargate_agent.controlplane.errors import NotNowError, StartError
from fargate_agent.controlplane.state.announcements import Announcements
from fargate_agent.controlplane.state.schema import ensure_schema

BUSY_TIMEOUT_S: Final = 10
"""How long a writer waits for another before it gives up."""
STATEMENT_TIMEOUT_S: Final = 30
POOL_SIZE: Final = 10
"""Connections to PostgreSQL of one process."""

CHANNEL: Final = "fargate"
"""Where PostgreSQL carries announcements from one process to the others."""

_LOCK: Final = 0x66617267617465
"""The advisory lock of whoever writes: `fargate` in hexadecimal."""
_WRITES: Final = "fargate_writes"
_TOPICS: Final = "fargate_topics"


class Store:
    """Transactions over the tables of `model`."""

    def __init__(self, engine: AsyncEngine, announcements: Announcements) -> None:
        self._readers = engine.execution_options(**_READ_OPTIONS[engine.dialect.name])
        self._writers = engine.execution_options(**{_WRITES: True})
        self._shared = engine.dialect.name == "postgresql"
        self._announcements = announcements
        self._turn = asyncio.Lock()
        """Writers of this process queue here. SQLite makes them try again and again, in no order,
        until some have waited too long; with PostgreSQL each would hold a connection."""

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Give one consistent view of the data."""
        async with _session(self._readers) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Give the only writer; what it did is on disk when the body ends, or undone if it fails.

        Rows stay readable afterwards. What was given to `announce` is told then.
        """
        async with self._turn, _session(self._writers) as session:
            yield session
            await _to_the_end(self._commit(session))
            topics = session.info[_TOPICS]
        self._announcements.tell(topics)

    async def _commit(self, session: AsyncSession) -> None:
        if self._shared:
            for topic in sorted(session.info[_TOPICS]):
                await session.execute(select(func.pg_notify(CHANNEL, topic)))
        await session.commit()


@asynccontextmanager
async def _session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """Give a session of its own connection; what isn't committed is undone."""
    connection = await _connect(engine)
    session = AsyncSession(connection, expire_on_commit=False, info={_TOPICS: set[str]()})
    try:
        yield session
    finally:
        await _to_the_end(_close(session, connection))


async def _connect(engine: AsyncEngine) -> AsyncConnection:
    """Return a connection.

    Raises:
        SQLAlchemyError: there is none to be had; a server that is away is an `OperationalError`, as
            whatever else a database says.
    """
    making = asyncio.create_task(engine.connect().start())
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        await (await making).close()  # nobody else knows of it: its thread would stay for good
        raise
    except OSError as error:  # asyncpg's is passed on as it is
        raise OperationalError(None, None, error) from error


async def _close(session: AsyncSession, connection: AsyncConnection) -> None:
    await session.close()
    await connection.close()


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Do the work to its end; whoever is cancelled meanwhile is cancelled after it."""
    job = asyncio.create_task(work)
    try:
        await asyncio.shield(job)
    except asyncio.CancelledError:
        await job
        raise


def announce(session: AsyncSession, topic: str) -> None:
    """Tell a topic when the transaction is committed, in every process that uses the database."""
    session.info[_TOPICS].add(topic)


@asynccontextmanager
async def open_store(url: URL, announcements: Announcements) -> AsyncIterator[Store]:
    """Open the database, bring its tables up to date, and close it at the end.

    Raises:
        StartError: it can't be opened, or is of a later version.
    """
    shown = url.database if url.get_backend_name() == "sqlite" else url.render_as_string()
    engine = await asyncio.to_thread(_make_engine, url)
    threads: WeakSet[Thread] = WeakSet()
    if url.get_backend_name() == "sqlite":
        event.listen(engine.sync_engine, "connect", partial(_prepare_sqlite, threads))
        event.listen(engine.sync_engine, "invalidate", _undo)
    try:
        try:
            async with engine.execution_options(**{_WRITES: True}).begin() as connection:
                await connection.run_sync(ensure_schema)
        except StartError as error:
            raise type(error)(f"{shown}: {error}") from error
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            cause = getattr(error, "orig", None) or error
            raise NotNowError(f"{shown}: {cause}") from error
        yield Store(engine, announcements)
    finally:
        await engine.dispose()
        for thread in threads:  # one that was cancelled in its work still has an answer to give
            await asyncio.to_thread(thread.join, BUSY_TIMEOUT_S)


_READ_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "sqlite": {},
    "postgresql": {"isolation_level": "REPEATABLE READ"},
}


def _make_engine(url: URL) -> AsyncEngine:
    backend = url.get_backend_name()
    options: dict[str, Any] = {"hide_parameters": True}  # errors are logged; values may be secret
    if backend == "sqlite":
        options["connect_args"] = {"timeout": BUSY_TIMEOUT_S}
    else:
        options |= {
            "pool_size": POOL_SIZE,
            "pool_pre_ping": True,
            "connect_args": {
                "timeout": BUSY_TIMEOUT_S,
                "command_timeout": STATEMENT_TIMEOUT_S,
                "server_settings": {
                    "application_name": "fargate-control-plane",
                    "lock_timeout": f"{BUSY_TIMEOUT_S}s",
                    "idle_in_transaction_session_timeout": f"{STATEMENT_TIMEOUT_S}s",
                },
            },
        }
    engine = create_async_engine(url, **options)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _prepare_sqlite(threads: WeakSet[Thread], connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own type
    """Leave transactions to `_begin`, and make every commit wait for the disk."""
    threads.add(connection.driver_connection._thread)
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _undo(connection: Any, _record: object, _error: object) -> None:  # noqa: ANN401 - the driver's own type
    """Undo what a cancelled job has begun, before its connection is closed.

    SQLite keeps the locks of one that is closed while somebody still holds one of its cursors.
    """
    with suppress(sqlite3.Error):
        connection.rollback()


def _begin(connection: Connection) -> None:
    """Take the write lock at once: a transaction that reads and then writes can't be too late."""
    writes = connection.get_execution_options().get(_WRITES)
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
    elif writes:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
