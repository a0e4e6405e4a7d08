"""What only PostgreSQL needs: announcements from one process to the others, by LISTEN/NOTIFY."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

import asyncpg
from sqlalchemy.engine import URL

from fargate_agent.controlplane.state.announcements import Announcements
from fargate_agent.controlplane.state.database import SQLALCHEMY_OPTION
from fargate_agent.controlplane.state.store import CHANNEL

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10
PING_EVERY_S: Final = 10
RETRY_S: Final = 2


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
