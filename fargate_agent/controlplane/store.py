"""The database: SQLite, one writer at a time, on disk before anyone is answered."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from fargate_agent.controlplane.errors import NotNowError, StartError
from fargate_agent.controlplane.model import SCHEMA_VERSION, Base

BUSY_TIMEOUT_S: Final = 10
"""How long a writer waits for another before it gives up."""

_WRITES: Final = "fargate_writes"


class Store:
    """Transactions over the tables of `model`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._readers = engine
        self._writers = engine.execution_options(**{_WRITES: True})

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Give one consistent view of the data."""
        async with AsyncSession(self._readers, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Give the only writer; what it did is on disk when the body ends, or undone if it fails.

        Rows stay readable afterwards.
        """
        async with (
            AsyncSession(self._writers, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session


@asynccontextmanager
async def open_store(path: Path) -> AsyncIterator[Store]:
    """Open the database, make it if it isn't there, and close it at the end.

    Raises:
        StartError: it can't be opened, or is of another version.
    """
    engine = await asyncio.to_thread(
        create_async_engine,
        f"sqlite+aiosqlite:///{path}",
        connect_args={"timeout": BUSY_TIMEOUT_S},
        hide_parameters=True,  # errors are logged, and the parameters may hold secrets
    )
    event.listen(engine.sync_engine, "connect", _prepare_connection)
    event.listen(engine.sync_engine, "begin", _begin)
    try:
        try:
            await _ensure_schema(engine, path)
        except (SQLAlchemyError, sqlite3.Error) as error:
            cause = getattr(error, "orig", None) or error
            raise NotNowError(f"{path}: {cause}") from error
        yield Store(engine)
    finally:
        await engine.dispose()


async def _ensure_schema(engine: AsyncEngine, path: Path) -> None:
    async with engine.execution_options(**{_WRITES: True}).begin() as connection:
        version = (await connection.execute(text("PRAGMA user_version"))).scalar_one()
        if version == SCHEMA_VERSION:
            return
        if version != 0:
            raise StartError(f"{path}: schema version {version}, this program knows only 1")
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text(f"PRAGMA user_version = {SCHEMA_VERSION}"))


def _prepare_connection(connection: Any, record: object) -> None:  # noqa: ANN401 - the driver's own type
    """Leave transactions to `_begin`, and make every commit wait for the disk."""
    del record
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    """Take the write lock at once: a transaction that reads and then writes can't be too late."""
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
