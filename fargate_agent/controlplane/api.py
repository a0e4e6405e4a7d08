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
from aiohttp.typedefs import Middleware
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from fargate_agent.controlplane import account_settings, definitions, ec2, services, tags
from fargate_agent.controlplane.access.auth import Authenticator, Caller, Service, SignedRequest
from fargate_agent.controlplane.access.permissions import (
    ANYTHING,
    Asked,
    check_permission,
    find_targets,
)
from fargate_agent.controlplane.agents import fleet, instances, reports
from fargate_agent.controlplane.agents.acs import Sessions
from fargate_agent.controlplane.agents.served import render_served
from fargate_agent.controlplane.clusters import clusters, providers
from fargate_agent.controlplane.errors import ApiError, unsupported
from fargate_agent.controlplane.history import stream
from fargate_agent.controlplane.names import new_uuid
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.rules.task import definition_too_long
from fargate_agent.controlplane.tasks import protection, queries, running
from fargate_agent.controlplane.validate import TARGET_PREFIX, Json, parse_request, service_model

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 1 << 20
BODY_TIMEOUT_S: Final = 30
"""How long a client may take to send a body."""
CLOSE_TIMEOUT_S: Final = 2
"""How long an agent may take to agree that its connection ends."""

CONTENT_TYPE: Final = "application/x-amz-json-1.1"

OPERATIONS: Final[dict[str, Operation]] = {
    name: operation
    for module in (
        account_settings,
        clusters,
        definitions,
        fleet,
        instances,
        protection,
        providers,
        queries,
        reports,
        running,
        services,
        tags,
    )
    for name, operation in module.OPERATIONS.items()
}
"""What is supported. Who may call it, the caller's policy says."""

ON_FULL_DISK: Final = frozenset(
    {
        "DeleteService",
        "DeregisterContainerInstance",
        "RegisterContainerInstance",
        "StopTask",
        "SubmitTaskStateChange",
        "UpdateContainerInstancesState",
        "UpdateService",
    }
)
"""What ends tasks, and how agents report that they have ended: these may take the reserve of the
disk. Each is one transaction, so it can be done again."""


class Front:
    """Answers what comes in over HTTP."""

    def __init__(self, plane: Plane, sessions: Sessions, authenticator: Authenticator) -> None:
        self._plane = plane
        self._sessions = sessions
        self._authenticator = authenticator
        self._streams = stream.EventStreams(plane)

    def application(self, *middlewares: Middleware) -> web.Application:
        """Return what an HTTP server serves."""
        application = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=middlewares)
        application.router.add_post("/", self._serve_operation)
        application.router.add_get("/ws", self._serve_websocket)
        application.router.add_get("/events", self._serve_events)
        application.on_shutdown.append(self._end_streams)
        application.router.add_route("*", "/{path:.*}", self._serve_nothing)
        return application

    async def _serve_operation(self, request: web.Request) -> web.Response:
        if request.content_type == ec2.FORM_CONTENT_TYPE:
            return await self._serve_query(request)
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
        return _respond(answer, status, request_id)

    async def _serve_query(self, request: web.Request) -> web.Response:
        """Answer in EC2's protocol."""
        request_id = new_uuid()
        try:
            status, answer = 200, await self._answer_query(request, request_id)
        except ApiError as error:
            status, answer = ec2.render_refusal(error, request_id)
        except OperationalError as error:
            log.error("request %s: state can't be read: %s", request_id, error.orig)
            status, answer = ec2.render_refusal(_state_error(error, request_id), request_id)
        except Exception:
            log.exception("request %s: unexpected error", request_id)
            status, answer = ec2.render_refusal(_server_error(request_id), request_id)
        return web.Response(
            body=answer,
            status=status,
            headers={"Content-Type": ec2.CONTENT_TYPE, "x-amzn-RequestId": request_id},
        )

    async def _answer_query(self, request: web.Request, request_id: str) -> bytes:
        body = await _read_body(request)
        caller = await self._authenticate(request, body, "ec2")
        action = f"ec2:{ec2.parse_action(body)}"
        check_permission(caller, action, ANYTHING, self._plane.arns)
        return await ec2.answer_query(self._plane, body, request_id)

    async def _serve_nothing(self, _: web.Request) -> web.Response:
        """Answer another method or path. Unverified: AWS's kind and status, from recollection."""
        error = ApiError("UnknownOperationException", "There is nothing here.", status=404)
        return _respond(render_error(error), error.status, new_uuid())

    async def _answer(self, request: web.Request) -> Json:
        body = await _read_body(request)
        caller = await self._authenticate(request, body)
        name = _find_operation(request)
        operation = OPERATIONS.get(name)
        if operation is None:
            raise unsupported(f"{name} is not supported here.")
        parsed = parse_request(name, body)
        self._authorize(caller, name, parsed)
        call = Call(request=parsed, caller=caller, host=request.host)
        if name in ON_FULL_DISK:
            return await self._plane.store.insist(lambda: operation(self._plane, call))
        return await operation(self._plane, call)

    async def _serve_websocket(self, request: web.Request) -> web.StreamResponse:
        try:
            caller = await self._authenticate(request, b"")
            query = request.query
            cluster = self._plane.arns.parse_cluster(query.get("clusterArn", ""))
            arn = query.get("containerInstanceArn", "")
            asked = {"cluster": cluster, "containerInstance": arn}
            self._authorize(caller, "Poll", asked)
            async with self._plane.store.read() as session:
                instance = await instances.find_own_instance(
                    self._plane,
                    session,
                    arn,
                    cluster or self._plane.settings.cluster,
                    caller.access_key_id,
                )
            registered = render_served(instance)
            self._authorize(caller, "RegisterContainerInstance", registered)
        except ApiError as error:
            return _respond(render_error(error), error.status, new_uuid())

        async def check() -> None:
            again = await self._authenticator.look_again(caller, datetime.now(UTC))
            self._authorize(again, "Poll", asked)
            self._authorize(again, "RegisterContainerInstance", registered)

        socket = web.WebSocketResponse(
            timeout=CLOSE_TIMEOUT_S,
            receive_timeout=self._plane.settings.agent_read_timeout_s,
            max_msg_size=MAX_BODY_BYTES,
        )
        await socket.prepare(request)
        try:
            await self._sessions.serve(socket, instance, check)
        finally:
            await socket.close(message=b"ConnectionExpired: Reconnect to continue")
        return socket

    async def _serve_events(self, request: web.Request) -> web.StreamResponse:
        request_id = new_uuid()
        try:
            caller = await self._authenticate(request, b"")
            query = stream.parse_query(request.query, self._plane)
            targets = stream.find_targets(query, self._plane)
            check_permission(caller, stream.ACTION, targets, self._plane.arns)

            async def look_again() -> Caller:
                again = await self._authenticator.look_again(caller, datetime.now(UTC))
                check_permission(again, stream.ACTION, targets, self._plane.arns)
                return again

            return await self._streams.serve(request, query, look_again)
        except ApiError as error:
            refusal = error
        except OperationalError as error:
            log.error("request %s: events can't be read: %s", request_id, error.orig)
            refusal = _state_error(error, request_id)
        except SQLAlchemyError:
            log.exception("request %s: unexpected error", request_id)
            refusal = _server_error(request_id)
        return _respond(render_error(refusal), refusal.status, request_id)

    async def _end_streams(self, _: web.Application) -> None:
        self._streams.close()

    async def _authenticate(
        self, request: web.Request, body: bytes, service: Service = "ecs"
    ) -> Caller:
        headers = {name.lower(): ",".join(request.headers.getall(name)) for name in request.headers}
        signed = SignedRequest(
            method=request.method, target=request.raw_path, headers=headers, body=body
        )
        return await self._authenticator.authenticate(signed, datetime.now(UTC), service)

    def _authorize(self, caller: Caller, operation: str, request: Json) -> None:
        arns = self._plane.arns
        asked = Asked(request, arns, self._plane.settings.cluster)
        check_permission(caller, f"ecs:{operation}", find_targets(operation, asked), arns)


def render_error(error: ApiError) -> Json:
    """Return the body that says what was wrong."""
    return {"__type": error.kind, "message": error.message, **error.members}


def _respond(answer: Json, status: int, request_id: str) -> web.Response:
    return web.Response(
        body=json.dumps(answer).encode(),
        status=status,
        headers={"Content-Type": CONTENT_TYPE, "x-amzn-RequestId": request_id},
    )


def _find_operation(request: web.Request) -> str:
    """Return the name of the operation that is asked for, which ECS has.

    Raises:
        ApiError: it has none of that name, or the request is not in this protocol.
    """
    if request.content_type != CONTENT_TYPE:
        # unverified: that AWS answers so is recollection
        raise ApiError(
            "UnknownOperationException", f"The Content-Type of a request must be {CONTENT_TYPE}."
        )
    prefix, _, name = request.headers.get("X-Amz-Target", "").partition(".")
    if prefix != TARGET_PREFIX or name not in service_model().operation_names:
        raise ApiError("UnknownOperationException", f"There is no operation '{name[:64]}'.")
    return name


async def _read_body(request: web.Request) -> bytes:
    """Return the body of a request.

    Raises:
        ApiError: it is too long, comes too slowly, breaks off, or isn't coded as its headers say.
    """
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _too_long(request)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_long(request) from None
    except (web.RequestPayloadError, ConnectionError):
        raise ApiError("SerializationException", "The request body can't be read.") from None
    except TimeoutError:
        raise ApiError(
            "RequestTimeoutException", "The request body did not arrive in time.", status=408
        ) from None


def _too_long(request: web.Request) -> ApiError:
    target, length = request.headers.get("X-Amz-Target"), request.content_length
    if length is not None and target == f"{TARGET_PREFIX}.RegisterTaskDefinition":
        return definition_too_long(length)
    return ApiError(
        "RequestEntityTooLargeException",
        f"The request body is longer than {MAX_BODY_BYTES} bytes.",
        status=413,
    )


def _state_error(error: OperationalError, request_id: str) -> ApiError:
    """Say what SQLite says, e.g. that the disk is full: it names neither values nor paths."""
    text = f"The control plane's state: {error.orig}; request id {request_id}."
    return ApiError("ServerException", text, status=500)


def _server_error(request_id: str) -> ApiError:
    return ApiError("ServerException", f"Unexpected error; request id {request_id}.", status=500)
