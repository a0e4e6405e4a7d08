"""What only SQLite needs: how its connections are made, and a shorter way to them.

A connection has a thread of its own. aiosqlite goes there and back four times for a statement: for
the cursor, for the statement, for its rows, and to close the cursor. Here it is once.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from threading import Thread
from typing import Any, Final, Self
from weakref import WeakSet

import aiosqlite
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

WRITER_CACHE_KIB: Final = 16 * 1024
"""What the connection that writes has read stays true, because no other writes. The caches of those
that read are worth little: each commit empties them."""
_READER_CACHE_KIB: Final = 2 * 1024


class _Cursor:
    """A cursor, as SQLAlchemy wants it of aiosqlite."""

    arraysize = 1

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection
        self._rows: Sequence[Any] = ()
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        await self._connection.run(self._do, sqlite3.Cursor.execute, statement, parameters)

    async def executemany(self, statement: str, parameters: Sequence[Any]) -> None:
        await self._connection.run(self._do, sqlite3.Cursor.executemany, statement, parameters)

    async def fetchall(self) -> Sequence[Any]:
        return self._rows

    async def close(self) -> None:
        """Nothing is open."""

    def _do(self, method: Any, statement: str, parameters: Sequence[Any]) -> None:  # noqa: ANN401 - either of sqlite3's
        with closing(self._connection.opened.cursor()) as cursor:
            method(cursor, statement, parameters)
            self.description = cursor.description
            self.rowcount, self.lastrowid = cursor.rowcount, cursor.lastrowid
            self._rows = cursor.fetchall() if cursor.description else ()


class _Connection(aiosqlite.Connection):
    @property
    def opened(self) -> sqlite3.Connection:
        return self._conn

    async def run(self, function: Any, *arguments: Any) -> None:  # noqa: ANN401 - what is called
        await self._execute(function, *arguments)  # type: ignore[no-untyped-call]

    def cursor(self) -> _Cursor:  # type: ignore[override]
        return _Cursor(self)


def connect(database: str, **options: Any) -> aiosqlite.Connection:  # noqa: ANN401 - as sqlite3's
    """Return what opens a connection when it is awaited."""
    connection = _Connection(partial(sqlite3.connect, database, **options), iter_chunk_size=64)
    connection._thread.daemon = True  # as SQLAlchemy has it
    return connection


def prepare(
    engine: Engine, threads: WeakSet[Thread], *, cache_kib: int = _READER_CACHE_KIB
) -> None:
    """Set up the connections that an engine will make, and collect the threads they have."""

    def set_up(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own type
        """Leave transactions to the store, and make every commit wait for the disk."""
        threads.add(connection.driver_connection._thread)
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"cache_size = -{cache_kib}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "connect", set_up)
    event.listen(engine, "invalidate", _undo)


def _undo(connection: Any, _record: object, _error: object) -> None:  # noqa: ANN401 - the driver's own type
    """Undo what a cancelled job has begun, before its connection is closed."""
    with suppress(sqlite3.Error):
        connection.rollback()


def is_full(error: OperationalError) -> bool:
    """Whether SQLite could not write for want of space.

    Source: SQLite, "Result and Error Codes": a file that can't grow may be an I/O error too.
    """
    name: str = getattr(error.orig, "sqlite_errorname", "")
    return name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR")
