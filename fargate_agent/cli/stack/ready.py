"""Whether the programs of a stack do their work yet."""

import asyncio
from pathlib import Path
from typing import Final

from fargate_agent.cli.clients.agent import Agent
from fargate_agent.cli.clients.ecs import Ecs
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.failure import UnreachableError
from fargate_agent.cli.stack.ports import parse_listen

CONNECT_TIMEOUT_S: Final = 2


async def is_served(socket: Path) -> bool:
    """Whether somebody listens on a unix socket."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True


async def answers_calls(connection: Connection) -> bool:
    """Whether the control plane answers a signed call.

    Raises:
        CliError: it refuses the call.
    """
    host, port = parse_listen(connection.endpoint)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await asyncio.to_thread(Ecs(connection).check)
    except (OSError, UnreachableError):
        return False
    return True


async def is_connected(socket: Path) -> bool:
    """Whether the agent answers, and is connected to its control plane."""
    async with Agent(socket) as agent:
        try:
            return (await agent.health()).get("controlPlane") == "connected"
        except UnreachableError:
            return False
