"""A listening socket for each task, all served by this process.

Which task asks is decided by the socket that its connection came in through, never by what the
request says: that socket is bound to the interface that leads to this task and to nothing else.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from fargate_agent.bad_requests import leave_out_bad_requests
from fargate_agent.drivers import MetadataEndpoint
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.metadata import PORT, TASK_ADDRESS
from fargate_agent.plan import TMDS_ADDRESS, TaskPlan
from fargate_agent.tmds.confidential import Confidential
from fargate_agent.tmds.handlers import FindTask, Handlers
from fargate_agent.tmds.stats import ReadLinkStats, ReadUsage, StatsSampler

log = logging.getLogger(__name__)
leave_out_bad_requests(log)

TIMEOUT_S: Final = 5
"""For a request to come, and for its answer to be taken. Source: amazon-ecs-agent,
agent/handlers/task_server_setup.go, `readTimeout` and `writeTimeout`."""
MAX_CONNECTIONS: Final = 64
"""Of one task. The agent's file descriptors belong to all of them."""

BindListener = Callable[[Path], socket.socket]
"""Binds a socket to the metadata address, for the task of a network namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Endpoint:
    """What one task's requests come in through."""

    task: TaskPlan
    connections: web.Server
    listener: asyncio.Server


class TaskMetadata(MetadataEndpoint):
    """The task metadata endpoint of every task of this agent."""

    def __init__(
        self,
        *,
        find_task: FindTask,
        bind_listener: BindListener,
        read_usage: ReadUsage,
        read_link_stats: ReadLinkStats,
        snapshotter: str,
        confidential: Confidential,
    ) -> None:
        """Listen nowhere yet; `find_task` knows the tasks by their ids."""
        self._bind_listener = bind_listener
        self._stats = StatsSampler(read_usage, read_link_stats)
        self._handlers = Handlers(find_task, self._stats, snapshotter, confidential)
        self._endpoints: dict[str, _Endpoint] = {}

    async def __aexit__(self, *_: object) -> None:
        for endpoint in list(self._endpoints.values()):
            await self.release(endpoint.task)

    async def ensure(self, task: TaskPlan) -> None:
        if task.id in self._endpoints:
            return
        connections = web.Server(
            partial(self._handlers.answer, task.id),
            handler_cancellation=True,
            access_log=None,
            logger=log,
            keepalive_timeout=TIMEOUT_S,
            lingering_time=TIMEOUT_S,
        )
        try:
            listener = await asyncio.get_running_loop().create_server(
                partial(_Doorkeeper, connections), sock=self._bind(task.netns)
            )
        except OSError as error:
            raise ResourceInitializationError(
                f"task metadata endpoint {TMDS_ADDRESS}:{PORT}: {error.strerror}"
            ) from error
        self._endpoints[task.id] = _Endpoint(task=task, connections=connections, listener=listener)

    async def release(self, task: TaskPlan) -> None:
        endpoint = self._endpoints.pop(task.id, None)
        if endpoint is None:
            return
        self._stats.forget(task.containers)
        endpoint.listener.close()
        for connection in endpoint.connections.connections:
            if connection.transport is not None:
                connection.transport.abort()

    def _bind(self, netns: Path) -> socket.socket:
        listener = self._bind_listener(netns)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TIMEOUT_S * 1000)
        return listener


class _Doorkeeper(asyncio.Protocol):
    """Hands a connection on to the server, unless it is one too many or not from the task."""

    def __init__(self, connections: web.Server) -> None:
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            return
        address, _ = transport.get_extra_info("peername")
        full = len(self._connections.connections) >= MAX_CONNECTIONS
        if full or address != str(TASK_ADDRESS.ip):
            transport.abort()
            return
        handler = self._connections()
        transport.set_protocol(handler)
        handler.connection_made(transport)
