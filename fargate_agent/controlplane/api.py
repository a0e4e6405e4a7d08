"""The HTTP server: authenticates, authorizes, checks, dispatches."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

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
from fargate_agent.controlplane.agents.opened import Opened
from fargate_agent.controlplane.agents.served import render_served
from fargate_agent.controlplane.cloudmap import operations as cloud_map
from fargate_agent.controlplane.clusters import clusters, providers
from fargate_agent.controlplane.error_answers import (
    CONTENT_TYPE,
    REQUEST_ID,
    answer_errors,
    is_query,
    mark_response,
    respond,
)
from fargate_agent.controlplane.errors import ApiError, unsupported
from fargate_agent.controlplane.history import stream
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.rules.task import definition_too_long
from fargate_agent.controlplane.tasks import protection, queries, running
from fargate_agent.controlplane.telemetry import task_metrics
from fargate_agent.controlplane.telemetry.figures import OPERATION
from fargate_agent.controlplane.telemetry.trace_header import find_trace
from fargate_agent.controlplane.validate import TARGET_PREFIX, Json, parse_request, service_model

MAX_BODY_BYTES: Final = 1 << 20
BODY_TIMEOUT_S: Final = 30
"""How long a client may take to send a body."""
CLOSE_TIMEOUT_S: Final = 2
"""How long an agent may take to agree that its connection ends."""

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


class ApiServer:
    """Answers what comes in over HTTP."""

    def __init__(self, plane: Plane, sessions: Sessions, authenticator: Authenticator) -> None:
        self._plane = plane
        self._sessions = sessions
        self._authenticator = authenticator
        self._streams = stream.EventStreams(plane)

    def application(self, *middlewares: Middleware) -> web.Application:
        """Return what an HTTP server serves; `middlewares` are around that of errors."""
        application = web.Application(
            client_max_size=MAX_BODY_BYTES, middlewares=[*middlewares, answer_errors]
        )
        application.on_response_prepare.append(mark_response)
        application.on_shutdown.append(self._end_streams)
        application.router.add_post("/", self._serve_call)
        application.router.add_get("/ws", self._serve_websocket)
        application.router.add_get("/events", self._serve_events)
        application.router.add_get("/metrics/tasks", self._serve_task_metrics)
        application.router.add_route("*", "/{path:.*}", _serve_nothing)
        return application

    async def _serve_call(self, request: web.Request) -> web.Response:
        """Answer a request of one of the two APIs."""
        body = await _read_body(request)
        if is_query(request):
            return await self._serve_query(request, body)
        if request.headers.get("X-Amz-Target", "").startswith(f"{cloud_map.TARGET_PREFIX}."):
            return respond(await self._answer_cloud_map(request, body))
        return respond(await self._answer_operation(request, body))

    async def _answer_cloud_map(self, request: web.Request, body: bytes) -> Json:
        caller = await self._authenticate(request, body, "servicediscovery")
        name = request.headers["X-Amz-Target"].partition(".")[2]
        _check_content_type(request)
        parsed = await cloud_map.parse(name, body)
        request[OPERATION] = action = f"servicediscovery:{name}"
        arns = self._plane.arns
        check_permission(caller, action, cloud_map.find_targets(name, parsed, arns), arns)
        call = Call(request=parsed, caller=caller, host=request.host)
        return await cloud_map.answer(self._plane, name, call)

    async def _serve_query(self, request: web.Request, body: bytes) -> web.Response:
        """Answer in EC2's protocol."""
        caller = await self._authenticate(request, body, "ec2")
        action = f"ec2:{ec2.parse_action(body)}"
        check_permission(caller, action, ANYTHING, self._plane.arns)
        answer = await ec2.answer_query(self._plane, body, request[REQUEST_ID])
        request[OPERATION] = action
        return web.Response(body=answer, headers={"Content-Type": ec2.CONTENT_TYPE})

    async def _answer_operation(self, request: web.Request, body: bytes) -> Json:
        caller = await self._authenticate(request, body)
        name = _find_operation(request)
        operation = OPERATIONS.get(name)
        if operation is None:
            raise unsupported(f"{name} is not supported here.")
        request[OPERATION] = name
        parsed = parse_request(name, body)
        self._authorize(caller, name, parsed)
        call = Call(
            request=parsed,
            caller=caller,
            host=request.host,
            traceparent=find_trace(request.headers.get("traceparent", "")),
        )
        if name in ON_FULL_DISK:
            return await self._plane.store.insist(lambda: operation(self._plane, call))
        return await operation(self._plane, call)

    async def _serve_websocket(self, request: web.Request) -> web.StreamResponse:
        caller = await self._authenticate(request, b"")
        request[OPERATION] = "Poll"
        query = request.query
        cluster = self._plane.arns.parse_cluster(query.get("clusterArn", ""))
        arn = query.get("containerInstanceArn", "")
        asked = {"cluster": cluster, "containerInstance": arn}
        self._authorize(caller, "Poll", asked)
        async with self._plane.store.read() as session:
            instance = await instances.find_own_instance(
                self._plane.arns,
                session,
                arn,
                cluster or self._plane.settings.cluster,
                caller.access_key_id,
            )
        registered = render_served(instance)
        self._authorize(caller, "RegisterContainerInstance", registered)

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
            await self._sessions.serve(
                Opened(
                    socket=socket,
                    instance=instance,
                    check=check,
                    lacks_credentials=query.get("sendCredentials") == "true",
                )
            )
        finally:
            await socket.close(message=b"ConnectionExpired: Reconnect to continue")
        return socket

    async def _serve_events(self, request: web.Request) -> web.StreamResponse:
        arns = self._plane.arns
        caller = await self._authenticate(request, b"")
        request[OPERATION] = "ListEvents"
        query = stream.parse_query(request.query, arns)
        targets = stream.find_targets(query, arns, self._plane.settings)
        check_permission(caller, stream.ACTION, targets, arns)

        async def look_again() -> Caller:
            again = await self._authenticator.look_again(caller, datetime.now(UTC))
            check_permission(again, stream.ACTION, targets, arns)
            return again

        return await self._streams.serve(request, query, look_again)

    async def _serve_task_metrics(self, request: web.Request) -> web.Response:
        caller = await self._authenticate(request, b"")
        request[OPERATION] = "GetTaskMetrics"
        query = task_metrics.parse_query(request.query, self._plane, time.time())
        targets = task_metrics.find_targets(query, self._plane)
        check_permission(caller, task_metrics.ACTION, targets, self._plane.arns)
        return web.json_response(await task_metrics.answer(self._plane, query))

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


async def _serve_nothing(_: web.Request) -> web.Response:  # noqa: RUF029 - a handler
    """Refuse another method or path. Unverified: AWS's kind and status, from recollection."""
    raise ApiError("UnknownOperationException", "There is nothing here.", status=404)


def _find_operation(request: web.Request) -> str:
    """Return the name of the operation that is asked for, which ECS has.

    Raises:
        ApiError: it has none of that name, or the request is not in this protocol.
    """
    _check_content_type(request)
    prefix, _, name = request.headers.get("X-Amz-Target", "").partition(".")
    if prefix != TARGET_PREFIX or name not in service_model().operation_names:
        raise ApiError("UnknownOperationException", f"There is no operation '{name[:64]}'.")
    return name


def _check_content_type(request: web.Request) -> None:
    if request.content_type != CONTENT_TYPE:
        # unverified: that AWS answers so is recollection
        raise ApiError(
            "UnknownOperationException", f"The Content-Type of a request must be {CONTENT_TYPE}."
        )


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
