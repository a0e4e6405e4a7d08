"""PostgreSQL: connections that don't block, and announcements from one process to the others."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from fargate_agent.controlplane.state.announcements import CHANNEL, Announcements
from fargate_agent.controlplane.state.database import SQLALCHEMY_OPTION
from fargate_agent.controlplane.state.session import Connections, Session

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10
LOCK_TIMEOUT_S: Final = 10
"""How long a writer waits for another before it gives up."""
STATEMENT_TIMEOUT_S: Final = 30
MAX_READERS: Final = 10
"""Connections of one process that are kept for readers; SQLAlchemy opens up to ten more."""
WRITE: Final = f"SELECT pg_advisory_xact_lock({0x66617267617465})"
"""With what a transaction begins that writes: `fargate` in hexadecimal is the lock of all."""
PING_EVERY_S: Final = 10
RETRY_S: Final = 2


class PostgresConnections(Connections):
    """Connections of a pool, on the event loop."""

    def __init__(self, url: URL, *, begin: str | None, most: int, **options: Any) -> None:  # noqa: ANN401 - as SQLAlchemy has them
        """`begin` is a statement with which each transaction begins. Blocks."""
        self._engine = create_async_engine(
            url,
            pool_size=most,
            pool_pre_ping=True,
            hide_parameters=True,  # errors are logged; values may be secret
            connect_args={
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": STATEMENT_TIMEOUT_S,
                "server_settings": {
                    "application_name": "fargate-control-plane",
                    "lock_timeout": f"{LOCK_TIMEOUT_S}s",
                    "idle_in_transaction_session_timeout": f"{STATEMENT_TIMEOUT_S}s",
                },
            },
            **options,
        )
        if begin is not None:
            statement = begin

            def lock(connection: Connection) -> None:
                connection.exec_driver_sql(statement)

            event.listen(self._engine.sync_engine, "begin", lock)

    async def connect(self) -> Session:
        connection = await self._engine.connect()
        session = AsyncSession(connection, expire_on_commit=False)

        async def run(function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:  # noqa: ANN401 - as the function has them
            return await session.run_sync(lambda _: function(*arguments, **more))

        return Session(session.sync_session, run, connection.close)

    async def begin(self, work: Callable[[Connection], None]) -> None:
        async with self._engine.begin() as connection:
            await connection.run_sync(work)

    async def close(self) -> None:
        await self._engine.dispose()


async def relay_announcements(url: URL, announcements: Announcements) -> None:
    """Pass on what the other processes announce, over a connection of its own, for ever."""
    # as SQLAlchemy connects: in a URL, asyncpg knows options such as `ssl` by other names
    _, options = url.get_dialect()().create_connect_args(url)
    options.pop(SQLALCHEMY_OPTION, None)
    while True:
        try:
            await _listen(options, announcements)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            log.warning("announcements of other control planes don't arrive: %r", error)
        await asyncio.sleep(RETRY_S)


async def _listen(options: Mapping[str, Any], announcements: Announcements) -> None:
    """Return or raise when the connection is lost."""

    def pass_on(_connection: Any, _process_id: int, _channel: str, topic: object) -> None:  # noqa: ANN401 - asyncpg's type
        announcements.tell([str(topic)])

    limits = {"timeout": CONNECT_TIMEOUT_S, "command_timeout": CONNECT_TIMEOUT_S}
    connection = await asyncpg.connect(**{**options, **limits})
    try:
        await connection.add_listener(CHANNEL, pass_on)
        announcements.tell_all()  # what came while nobody listened
        while True:
            await asyncio.sleep(PING_EVERY_S)
            await connection.execute("SELECT 1")  # finds out when the server has gone
    finally:
        connection.terminate()
