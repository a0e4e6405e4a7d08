"""What loggers ask of the agent: keys of the execution role, and the secret of an option.

They ask on a unix socket, so nothing of it is on a network that a container could listen to. Who
asks is what the kernel says of the other end, never what it says itself: a process is told what
belongs to a container if it is the logger of that container. No container has the socket in its
file system.
"""

import asyncio
import json
import logging
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from aiohttp import web

from fargate_agent.aws.errors import RoleError
from fargate_agent.bad_requests import leave_out_bad_requests
from fargate_agent.credentials.answers import render_keys, render_refusal
from fargate_agent.credentials.audit import Asked, Audit
from fargate_agent.drivers import LoggerUser
from fargate_agent.plan import ContainerPlan, RolePlan, TaskPlan
from fargate_agent.role_keys import RoleKeys

log = logging.getLogger(__name__)
leave_out_bad_requests(log)

CREDENTIALS: Final = "/credentials/"
SPLUNK_TOKEN: Final = "/splunk-token/"  # noqa: S105 - a path
"""What follows is the id of a container, which is no secret."""
WAIT_S: Final = 15.0
"""For keys that have not come yet. A logger that starts has 30 s for all it does."""
CONNECTION_S: Final = 30.0
"""How long a connection may last; loggers make one for each request."""
MAX_CONNECTIONS: Final = 1024
PEER: Final = struct.Struct("iII")
"""Process, user and group. Source: unix(7), `SO_PEERCRED`."""


class Credentials(Protocol):
    """Has the credentials of tasks' roles."""

    async def keys(self, task: TaskPlan, role: RolePlan, wait_s: float | None = None) -> RoleKeys:
        """Return credentials of a role of a task, which may have to come first.

        Raises:
            RoleError: none has come in time.
        """
        ...


class LogSecrets(Protocol):
    """Has the secrets of log options."""

    def take(self, task: TaskPlan, secrets_id: str, option: str) -> str | None:
        """Return a value, and forget it; None if that id isn't the task's, or has none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggerDesk:
    """Answers loggers."""

    path: Path
    """The socket. Its directory belongs to the desk alone."""
    user: LoggerUser | None
    """Whom loggers run as, if not as root."""
    find_container: Callable[[str], tuple[TaskPlan, ContainerPlan] | None]
    """By id; None if it isn't there."""
    find_logger: Callable[[ContainerPlan], int | None]
    """Says which process the logger of a container is; blocks. May raise OSError."""
    credentials: Credentials
    log_secrets: LogSecrets
    audit: Audit

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Listen while the body runs.

        Raises:
            OSError: the socket can't be made there.
        """
        connections = web.Server(
            self._answer, access_log=None, logger=log, keepalive_timeout=0, lingering_time=0
        )
        listener = await asyncio.to_thread(self._listen)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(
            lambda: _Doorkeeper(connections, self._users()), sock=listener
        )
        try:
            yield
        finally:
            server.close()
            await connections.shutdown(0)
            await asyncio.to_thread(self.path.unlink, missing_ok=True)

    def _users(self) -> frozenset[int]:
        return frozenset({0} if self.user is None else {0, self.user.uid})

    def _listen(self) -> socket.socket:
        """Make the socket anew. A logger may hold the directory, so that stays."""
        directory, gid = self.path.parent, 0 if self.user is None else self.user.gid
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(handle, 0, gid)
            os.fchmod(handle, 0o710)
            name = f"/proc/self/fd/{handle}/{self.path.name}"  # a socket's has 107 bytes at most
            Path(name).unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                listener.bind(name)
                os.chown(self.path.name, 0, gid, dir_fd=handle, follow_symlinks=False)
                Path(name).chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IWGRP)
            except OSError:
                listener.close()
                raise
        finally:
            os.close(handle)
        return listener

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        path = request.path
        for begin, answer in (
            (CREDENTIALS, self._give_keys),
            (SPLUNK_TOKEN, self._give_token),
        ):
            if request.method == "GET" and path.startswith(begin):
                found = await self._identify(request, path.removeprefix(begin))
                if found is None:
                    return _refuse(403, "AccessDenied", "that is no container of this logger")
                return await answer(*found, request)
        return _refuse(404, "NotFound", "loggers ask for credentials and for tokens here")

    async def _identify(
        self, request: web.BaseRequest, container_id: str
    ) -> tuple[TaskPlan, ContainerPlan] | None:
        """Return the container, if the other end is its logger."""
        found = self.find_container(container_id)
        pid, uid = _read_peer(request)
        if found is None:
            log.warning("process %d of user %d asked for an unknown container", pid, uid)
            return None
        task, container = found
        try:
            logger = await asyncio.to_thread(self.find_logger, container)
        except OSError as error:
            log.warning("the logger of container %s can't be found: %s", container.name, error)
            return None
        if logger != pid:
            log.warning(
                "process %d of user %d, which is not the logger of container %s, asked for what "
                "belongs to that",
                *(pid, uid, container.name),
                extra={"task": task.id},
            )
            return None
        return task, container

    async def _give_keys(
        self, task: TaskPlan, container: ContainerPlan, request: web.BaseRequest
    ) -> web.Response:
        role = task.execution_role
        status, body = await self._find_keys(task, role)
        client = f"logger of {container.name}"
        place = CREDENTIALS.rstrip("/")
        self.audit.note(Asked.EXECUTION_ROLE, status, place, client, task, role)
        return _json(status, body)

    async def _find_keys(self, task: TaskPlan, role: RolePlan | None) -> tuple[int, dict[str, Any]]:
        if role is None:
            text = "the task has no execution role"
            return 404, render_refusal(404, "InvalidIdInRequest", text)
        try:
            return 200, render_keys(role, await self.credentials.keys(task, role, WAIT_S))
        except RoleError as error:
            return 503, render_refusal(503, "CredentialsUninitialized", str(error))

    async def _give_token(
        self, task: TaskPlan, container: ContainerPlan, _: web.BaseRequest
    ) -> web.Response:
        token = self.log_secrets.take(task, container.log.secrets_id, "splunk-token")
        if token is None:
            return _refuse(404, "NotFound", "there is no splunk token, or it was taken before")
        return _json(200, {"token": token})


class _Doorkeeper(asyncio.Protocol):
    """Hands a connection on to the server, unless it is somebody else's, and ends it in time."""

    def __init__(self, connections: web.Server, users: frozenset[int]) -> None:
        self._connections = connections
        self._users = users

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            return
        _, uid, _ = _read_credentials(transport)
        if uid not in self._users or len(self._connections.connections) >= MAX_CONNECTIONS:
            transport.abort()
            return
        asyncio.get_running_loop().call_later(CONNECTION_S, transport.abort)
        handler = self._connections()
        transport.set_protocol(handler)
        handler.connection_made(transport)


def _read_credentials(transport: asyncio.BaseTransport) -> tuple[int, int, int]:
    sock = transport.get_extra_info("socket")
    pid, uid, gid = PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    return pid, uid, gid


def _read_peer(request: web.BaseRequest) -> tuple[int, int]:
    """Return the process at the other end, as it was when it connected, and its user."""
    if request.transport is None:
        return 0, -1
    pid, uid, _ = _read_credentials(request.transport)
    return pid, uid


def _refuse(status: int, code: str, message: str) -> web.Response:
    return _json(status, render_refusal(status, code, message))


def _json(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(
        status=status, body=json.dumps(body).encode(), content_type="application/json"
    )
