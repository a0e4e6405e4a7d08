"""A listening socket for each task, all served by this process.

Which task asks is decided by the socket that its connection came in through, never by what the
request says: that socket is bound to the interface that leads to this task and to nothing else.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final

from aiohttp import web

from fargate_agent.bad_requests import leave_out_bad_requests
from fargate_agent.drivers import MetadataEndpoint
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.metadata import PORT, TASK_ADDRESS
from fargate_agent.plan import TMDS_ADDRESS, TaskPlan
from fargate_agent.tmds.answers import TEXT, Answer
from fargate_agent.tmds.connection import Connection
from fargate_agent.tmds.handlers import Question, Sources, TaskAnswers
from fargate_agent.tmds.refusals import RefusedRequest

log = logging.getLogger(__name__)
leave_out_bad_requests(log)

TIMEOUT_S: Final = 5
"""For a request to come, and for its answer to be taken. Source: amazon-ecs-agent,
agent/handlers/task_server_setup.go, `readTimeout` and `writeTimeout`."""
MAX_CONNECTIONS: Final = 64
"""Of one task. The agent's file descriptors belong to all of them."""

MAX_BODY_BYTES: Final = 64 * 1024
"""Of the few requests that have one."""
OVERREAD_TIMEOUT_S: Final = 0.5
"""For a body that nobody asked for. Source: Go, net/http, `rstAvoidanceDelay`."""
_TAKES_BODIES: Final = "/api/"

BindListener = Callable[[Path], socket.socket]
"""Binds a socket to the metadata address, for the task of a network namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Endpoint:
    """What one task's requests come in through."""

    task: TaskPlan
    connections: set[Connection]
    listener: asyncio.Server


class TaskMetadata(MetadataEndpoint):
    """The task metadata endpoint of every task of this agent."""

    def __init__(
        self,
        sources: Sources,
        bind_listener: BindListener,
    ) -> None:
        """Listen nowhere yet."""
        self._sources = sources
        self._bind_listener = bind_listener
        self._endpoints: dict[str, _Endpoint] = {}

    async def __aexit__(self, *_: object) -> None:
        for endpoint in list(self._endpoints.values()):
            await self.release(endpoint.task)

    async def ensure(self, task: TaskPlan) -> None:
        if task.id in self._endpoints:
            return
        answers = TaskAnswers(self._sources, task.id)
        server = web.Server(
            partial(_answer, answers),
            handler_cancellation=True,
            access_log=None,
            logger=log,
            keepalive_timeout=TIMEOUT_S,
            lingering_time=0,
        )
        connections = set[Connection]()

        def is_welcome(connection: Connection, address: str) -> bool:
            if len(connections) >= MAX_CONNECTIONS or address != str(TASK_ADDRESS.ip):
                return False
            connections.add(connection)
            return True

        def connect() -> Connection:
            return Connection(answers, server, is_welcome, connections.discard, TIMEOUT_S)

        try:
            listener = await asyncio.get_running_loop().create_server(
                connect, sock=self._bind(task.netns)
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
        endpoint.listener.close()
        for connection in list(endpoint.connections):
            connection.abort()
        await asyncio.sleep(0)  # they end, and with them what would ask for the task again
        await self._sources.sampler.forget(task)
        await self._sources.storage.forget(task)

    def _bind(self, netns: Path) -> socket.socket:
        listener = self._bind_listener(netns)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TIMEOUT_S * 1000)
        return listener


async def _answer(answers: TaskAnswers, request: web.BaseRequest) -> web.StreamResponse:
    """Answer what `aiohttp` has read."""
    host, port = request.transport.get_extra_info("peername") if request.transport else ("", "")
    question = Question(
        method=request.method,
        path=request.rel_url.raw_path,
        query=request.rel_url.raw_query_string,
        forwarded_for=request.headers.get("X-Forwarded-For", ""),
        remote=f"{host}:{port}",
    )
    answer = answers.refuse_too_many(question)
    if answer is not None:
        return _carry(answer)
    takes_body, is_read, body = question.path.startswith(_TAKES_BODIES), True, b""
    try:
        body = await _read_body(request, TIMEOUT_S if takes_body else OVERREAD_TIMEOUT_S)
    except RefusedRequest as refused:
        if takes_body:
            return _end(_carry(refused.answer))
        is_read = False  # nobody asked for it
    found = await answers.answer(replace(question, body=body), request)
    response = _carry(found) if isinstance(found, Answer) else found
    return response if is_read else _end(response)


async def _read_body(request: web.BaseRequest, timeout_s: float) -> bytes:
    """Return the body.

    Raises:
        RefusedRequest: it doesn't come, is too large, or not coded as it says.
    """
    body = b""
    try:
        async with asyncio.timeout(timeout_s):
            async for part in request.content.iter_any():
                body += part
                if len(body) > MAX_BODY_BYTES:
                    raise _refuse_body(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    except TimeoutError as error:
        raise _refuse_body(HTTPStatus.REQUEST_TIMEOUT) from error
    except web.RequestPayloadError as error:
        raise _refuse_body(HTTPStatus.BAD_REQUEST) from error
    return body


def _refuse_body(status: HTTPStatus) -> RefusedRequest:
    text = f"{status} {status.phrase}\n"
    return RefusedRequest(Answer(status=status, content_type=TEXT, body=text.encode()))


def _end(response: web.StreamResponse) -> web.StreamResponse:
    """Read no more of the connection after this answer."""
    response.force_close()
    return response


def _carry(answer: Answer) -> web.Response:
    headers = {"Content-Type": answer.content_type, **answer.headers}
    return web.Response(status=answer.status, body=answer.body, headers=headers)
