"""What surrounds every request: its id, a line in the log, and an answer if it fails.

Handlers raise. One middleware turns what they raise into an answer in the protocol of the request:
EC2's XML for a query, JSON 1.1 for everything else. Source: Smithy, "AWS JSON 1.1 protocol".
"""

import json
import logging
import time
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler
from sqlalchemy.exc import OperationalError

from fargate_agent.controlplane import ec2
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.names import new_uuid
from fargate_agent.controlplane.validate import Json

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "application/x-amz-json-1.1"
REQUEST_ID: Final = web.RequestKey("request_id", str)

_BEGUN: Final = web.RequestKey("begun", web.StreamResponse)
"""The response whose headers are sent."""
_NAME_CHARS: Final = 128
"""Longest name of a request in the log: the client chooses it."""


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give a request its id, answer it whatever its handler raises, and log how long that took."""
    request_id, began = new_uuid(), time.monotonic()
    request[REQUEST_ID] = request_id
    response, kind = await _answer(request, handler)
    log.debug(
        "request %s: %s %d %s in %.0f ms",
        request_id,
        _name_request(request),
        response.status,
        kind,
        (time.monotonic() - began) * 1000,
    )
    return response


async def mark_response(  # noqa: RUF029 - a signal of aiohttp
    request: web.Request, response: web.StreamResponse
) -> None:
    """Put the request's id into the headers, which are about to be sent.

    A request that aiohttp refuses before the middleware has none.
    """
    if REQUEST_ID in request:
        response.headers["x-amzn-RequestId"] = request[REQUEST_ID]
    request[_BEGUN] = response


def is_query(request: web.Request) -> bool:
    """Whether a request is in EC2's query protocol."""
    return (
        request.method == "POST"
        and request.path == "/"
        and request.content_type == ec2.FORM_CONTENT_TYPE
    )


def respond(answer: Json, status: int = 200) -> web.Response:
    """Return an answer in JSON 1.1."""
    return web.Response(
        body=json.dumps(answer).encode(), status=status, headers={"Content-Type": CONTENT_TYPE}
    )


async def _answer(request: web.Request, handler: Handler) -> tuple[web.StreamResponse, str]:
    """Return the response, and the kind of its error; empty if there was none."""
    request_id = request[REQUEST_ID]
    try:
        return await handler(request), ""
    except web.HTTPException as refusal:  # aiohttp's, of a handshake that makes no sense
        return web.Response(status=refusal.status, text=refusal.text), ""
    except ApiError as refused:
        error = refused
    except OperationalError as failure:
        log.error("request %s: state can't be read or written: %s", request_id, failure.orig)
        error = _state_error(failure, request_id)
    except Exception as failure:
        if isinstance(failure, ConnectionError) and _is_gone(request):
            return request.get(_BEGUN) or web.Response(), type(failure).__name__
        log.exception("request %s: unexpected error", request_id)
        error = _server_error(request_id)
    return _refuse(request, error), error.kind


def _refuse(request: web.Request, error: ApiError) -> web.StreamResponse:
    """Return the answer that says what was wrong; a response that has begun is broken off."""
    begun: web.StreamResponse | None = request.get(_BEGUN)
    if begun is not None:
        log.error("request %s: broken off: %s", request[REQUEST_ID], error)
        if request.transport is not None:
            request.transport.abort()
        return begun
    if is_query(request):
        status, body = ec2.render_refusal(error, request[REQUEST_ID])
        return web.Response(body=body, status=status, headers={"Content-Type": ec2.CONTENT_TYPE})
    return respond({"__type": error.kind, "message": error.message, **error.members}, error.status)


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _name_request(request: web.Request) -> str:
    """Return the operation, or method and path: a query may have a signature."""
    path = f"{request.method} {request.rel_url.raw_path}"
    return request.headers.get("X-Amz-Target", path)[:_NAME_CHARS]


def _state_error(error: OperationalError, request_id: str) -> ApiError:
    """Say what the database says, e.g. that the disk is full: it names neither values nor paths."""
    text = f"The control plane's state: {error.orig}; request id {request_id}."
    return ApiError("ServerException", text, status=500)


def _server_error(request_id: str) -> ApiError:
    return ApiError("ServerException", f"Unexpected error; request id {request_id}.", status=500)
