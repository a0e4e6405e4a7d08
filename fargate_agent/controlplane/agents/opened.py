"""What is known of an agent's connection when it opens."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from fargate_agent.controlplane.state.model import ContainerInstance

Check = Callable[[], Awaitable[None]]
"""Raises `ApiError` once the agent's key is no longer good for the connection that it opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A connection that an agent has opened."""

    socket: web.WebSocketResponse
    instance: ContainerInstance
    check: Check
    lacks_credentials: bool
    """Whether it asks for the credentials of the tasks that it has (`sendCredentials`)."""
