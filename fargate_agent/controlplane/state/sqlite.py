"""SQLite: its calls block, so each of two threads of ours does all of those that write, or read.

A commit waits for the disk, and who reads needn't wait for it.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, create_engine, event, orm
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from fargate_agent.controlplane.state.session import Connections, Session

BUSY_TIMEOUT_S: Final = 10
"""How long a writer waits for one of another process before it gives up."""
MAX_READERS: Final = 15
"""Sessions that read at a time; each has a connection."""
WRITER_CACHE_KIB: Final = 16 * 1024
"""What the connection that writes has read stays true, because no other writes. The caches of those
that read are worth little: each commit empties them."""
READER_CACHE_KIB: Final = 2 * 1024


class SqliteConnections(Connections):
    """Connections to one file that a thread uses, one after the other."""

    def __init__(self, url: URL, *, begin: str, cache_kib: int, most: int) -> None:
        """`begin` is the statement with which each transaction begins.

        Raises:
            sqlalchemy.exc.ArgumentError: the URL is none of SQLite's.
        """
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._places = asyncio.Semaphore(most)
        self._engine = create_engine(
            url.set(drivername="sqlite+pysqlite"),
            # the thread must never wait for a place in the pool: who has it needs the thread
            max_overflow=-1,
            hide_parameters=True,  # errors are logged; values may be secret
            connect_args={"timeout": BUSY_TIMEOUT_S},
        )
        event.listen(self._engine, "connect", partial(_set_up, cache_kib=cache_kib))
        event.listen(self._engine, "begin", partial(_begin, statement=begin))

    async def connect(self) -> Session:
        await self._places.acquire()
        try:
            connection: Connection = await self._run(self._engine.connect)
        except BaseException:
            self._places.release()
            raise

        async def release() -> None:
            try:
                await self._run(connection.close)
            finally:
                self._places.release()

        return Session(orm.Session(connection, expire_on_commit=False), self._run, release)

    async def begin(self, work: Callable[[Connection], None]) -> None:
        def do() -> None:
            with self._engine.begin() as connection:
                work(connection)

        await self._run(do)

    async def close(self) -> None:
        await self._run(self._engine.dispose)
        await asyncio.to_thread(self._thread.shutdown)

    async def _run(self, function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:  # noqa: ANN401 - as the function has them
        """Call a function on the thread. Cancelled, it is done to its end all the same."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(function, *arguments, **more))


def _set_up(connection: sqlite3.Connection, _record: object, *, cache_kib: int) -> None:
    """Leave transactions to us, and make every commit wait for the disk."""
    connection.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"cache_size = -{cache_kib}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection, *, statement: str) -> None:
    connection.exec_driver_sql(statement)


def is_full(error: OperationalError) -> bool:
    """Whether SQLite could not write for want of space.

    Source: SQLite, "Result and Error Codes": a file that can't grow may be an I/O error too.
    """
    name: str = getattr(error.orig, "sqlite_errorname", "")
    return name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR")
