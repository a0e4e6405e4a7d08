"""The front: HTTP in, JSON 1.1 out. Authenticates, authorizes, checks, dispatches.

Source: Smithy, "AWS JSON 1.1 protocol".
"""

import asyncio
import json
import logging
import time
from datetime import UTC, datetime
from typing import Final

from aiohttp import web
from sqlalchemy.exc import OperationalError

from fargate_agent.controlplane import (
    clusters,
    definitions,
    instances,
    reports,
    task_queries,
    tasks,
)
from fargate_agent.controlplane.auth import Authenticator, Caller, SignedRequest
from fargate_agent.controlplane.errors import ApiError, unsupported
from fargate_agent.controlplane.names import new_uuid
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.validate import TARGET_PREFIX, Json, parse_request, service_model

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 1 << 20
BODY_TIMEOUT_S: Final = 30
"""How long a client may take to send a body."""
CLOSE_TIMEOUT_S: Final = 2
"""How long an agent may take to agree that its connection ends."""

CONTENT_TYPE: Final = "application/x-amz-json-1.1"

FOR_ADMINS: Final = (
    clusters.OPERATIONS | definitions.OPERATIONS | tasks.OPERATIONS | task_queries.OPERATIONS
)
FOR_AGENTS: Final = instances.OPERATIONS | reports.OPERATIONS


class Front:
    """Answers what comes in over HTTP."""

    def __init__(self, plane: Plane, authenticator: Authenticator) -> None:
        self._plane = plane
        self._authenticator = authenticator

    def application(self) -> web.Application:
        """Return what an HTTP server serves."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.router.add_post("/", self._serve_operation)
        application.router.add_get("/ws", self._serve_websocket)
        return application

    async def _serve_operation(self, request: web.Request) -> web.Response:
        request_id, began = new_uuid(), time.monotonic()
        try:
            answer, status = await self._answer(request), 200
        except ApiError as error:
            answer, status = render_error(error), error.status
        except OperationalError as error:
            log.error("request %s: state can't be read or written: %s", request_id, error.orig)
            answer, status = render_error(_state_error(error, request_id)), 500
        except Exception:
            log.exception("request %s: unexpected error", request_id)
            answer, status = render_error(_server_error(request_id)), 500
        log.debug(
            "request %s: %s %d %s in %.0f ms",
            request_id,
            request.headers.get("X-Amz-Target"),
            status,
            answer.get("__type", ""),
            (time.monotonic() - began) * 1000,
        )
        return web.Response(
            body=json.dumps(answer).encode(),
            status=status,
            headers={"Content-Type": CONTENT_TYPE, "x-amzn-RequestId": request_id},
        )

    async def _answer(self, request: web.Request) -> Json:
        body = await _read_body(request)
        caller = self._authenticate(request, body)
        prefix, _, name = request.headers.get("X-Amz-Target", "").partition(".")
        if prefix != TARGET_PREFIX or name not in service_model().operation_names:
            raise ApiError("UnknownOperationException", f"There is no operation '{name[:64]}'.")
        operation = self._authorize(caller, name)
        call = Call(request=parse_request(name, body), caller=caller, host=request.host)
        return await operation(self._plane, call)

    async def _serve_websocket(self, request: web.Request) -> web.StreamResponse:
        try:
            caller = self._authenticate(request, b"")
            if caller.principal != "agent":
                raise self._denied(caller, "Poll")
            query = request.query
            cluster = self._plane.arns.parse_cluster(query.get("clusterArn", ""))
            async with self._plane.store.read() as session:
                instance = await instances.find_own_instance(
                    self._plane,
                    session,
                    query.get("containerInstanceArn", ""),
                    cluster or self._plane.settings.cluster,
                    caller.access_key_id,
                )
        except ApiError as error:
            return web.json_response(
                render_error(error), status=error.status, content_type=CONTENT_TYPE
            )
        socket = web.WebSocketResponse(
            timeout=CLOSE_TIMEOUT_S,
            receive_timeout=self._plane.settings.agent_read_timeout_s,
            max_msg_size=MAX_BODY_BYTES,
        )
        await socket.prepare(request)
        try:
            await self._plane.sessions.serve(socket, instance)
        finally:
            await socket.close(message=b"ConnectionExpired: Reconnect to continue")
        return socket

    def _authenticate(self, request: web.Request, body: bytes) -> Caller:
        headers = {name.lower(): ",".join(request.headers.getall(name)) for name in request.headers}
        signed = SignedRequest(
            method=request.method, target=request.raw_path, headers=headers, body=body
        )
        return self._authenticator.authenticate(signed, datetime.now(UTC))

    def _authorize(self, caller: Caller, name: str) -> Operation:
        allowed, denied = (
            (FOR_ADMINS, FOR_AGENTS) if caller.principal == "admin" else (FOR_AGENTS, FOR_ADMINS)
        )
        if name in allowed:
            return allowed[name]
        if name in denied or caller.principal != "admin":
            raise self._denied(caller, name)
        raise unsupported(f"{name} is not supported here.")

    def _denied(self, caller: Caller, name: str) -> ApiError:
        return ApiError(
            "AccessDeniedException",
            f"User: {self._plane.arns.user(caller.principal)} is not authorized to perform: "
            f"ecs:{name} on resource: *",
        )


def render_error(error: ApiError) -> Json:
    """Return the body that says what was wrong."""
    return {"__type": error.kind, "message": error.message, **error.members}


async def _read_body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise ApiError(
            "RequestEntityTooLargeException",
            f"The request body is longer than {MAX_BODY_BYTES} bytes.",
            status=413,
        ) from None
    except TimeoutError:
        raise ApiError(
            "RequestTimeoutException", "The request body did not arrive in time.", status=408
        ) from None


def _state_error(error: OperationalError, request_id: str) -> ApiError:
    """Say what SQLite says, e.g. that the disk is full: it names neither values nor paths."""
    text = f"The control plane's state: {error.orig}; request id {request_id}."
    return ApiError("ServerException", text, status=500)


def _server_error(request_id: str) -> ApiError:
    return ApiError("ServerException", f"Unexpected error; request id {request_id}.", status=500)
