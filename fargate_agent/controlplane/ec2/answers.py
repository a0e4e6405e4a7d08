"""From a query to its answer: ids, filters and pages, the same way for all kinds of things.

A call that changes something is one transaction.
"""

import asyncio
import base64
import binascii
import sys
from collections.abc import Mapping
from typing import Final

from fargate_agent.controlplane.ec2.changes import Change, missing
from fargate_agent.controlplane.ec2.filters import Filters
from fargate_agent.controlplane.ec2.kinds import CHANGES, KINDS, READS, Kind
from fargate_agent.controlplane.ec2.query import parse_action, parse_form, parse_request
from fargate_agent.controlplane.ec2.shapes import service_model
from fargate_agent.controlplane.ec2.xml import render_answer, render_error
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.validate import Json

CONTENT_TYPE: Final = "text/xml;charset=UTF-8"

FORBIDDEN: Final = 403
MIN_RESULTS: Final = 5
MAX_RESULTS: Final = 1000
"""Smallest and largest page. Source: EC2 API, DescribeNetworkInterfaces."""

_REFUSALS: Final[Mapping[str, tuple[str, int]]] = {
    "AccessDeniedException": ("UnauthorizedOperation", FORBIDDEN),
    "ExpiredTokenException": ("RequestExpired", 400),
    "IncompleteSignatureException": ("IncompleteSignature", 400),
    "InvalidSignatureException": ("AuthFailure", 401),
    "MissingAuthenticationTokenException": ("AuthFailure", 401),
    "RequestEntityTooLargeException": ("RequestEntityTooLarge", 413),
    "RequestTimeoutException": ("RequestTimeout", 408),
    "ServerException": ("InternalError", 500),
    "UnrecognizedClientException": ("AuthFailure", 401),
}
"""What EC2 calls an error that is found before a query is read.

Source: EC2 API reference, "Error codes".
"""


async def answer_query(plane: Plane, body: bytes, request_id: str) -> bytes:
    """Return the XML that answers a query.

    Raises:
        ApiError: it can't be answered; `render_refusal` writes that as EC2 does.
    """
    action = parse_action(body)
    if not any(action in known for known in (KINDS, READS, CHANGES)):
        raise ApiError(
            "InvalidAction", f"The action {action[:64]} is not valid for this web service."
        )
    operation = (await asyncio.to_thread(service_model)).operation_model(action)
    request = parse_request(parse_form(body), operation.input_shape)
    for member in operation.input_shape.required_members:
        if request.get(member) in (None, "", []):
            raise missing(member)
    if action in KINDS:
        answer = await _describe(plane, KINDS[action], request)
    elif action in READS:
        answer = await _read(plane, READS[action], request)
    else:
        answer = await _change(plane, CHANGES[action], request)
    return render_answer(action, answer, operation.output_shape, request_id)


def render_refusal(error: ApiError, request_id: str) -> tuple[int, bytes]:
    """Return HTTP status and XML of an error, whether it was found here or before."""
    code, status = _REFUSALS.get(error.kind, (error.kind, error.status))
    said = "You are not authorized to perform this operation. " if status == FORBIDDEN else ""
    return status, render_error(code, f"{said}{error.message}", request_id)


async def _change(plane: Plane, change: Change, request: Json) -> Json:
    """Do what a request asks for; of a dry run nothing is left."""
    async with plane.store.write() as session:
        answer = await change(plane, session, request)
        if request.get("DryRun"):
            raise _dry_run()
    return answer


async def _read(plane: Plane, read: Change, request: Json) -> Json:
    async with plane.store.read() as session:
        answer = await read(plane, session, request)
    if request.get("DryRun"):
        raise _dry_run()
    return answer


def _dry_run() -> ApiError:
    return ApiError(
        "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", status=412
    )


async def _describe(plane: Plane, kind: Kind, request: Json) -> Json:
    named = {by: set(request[by]) for by in kind.named_by if request.get(by)}
    size, after = _parse_page(request, named)
    filters = Filters(request.get("Filters") or request.get("Filter", []), kind.filters)
    if request.get("DryRun"):
        raise _dry_run()
    ids = next((named[by] for by in named if kind.named_by[by] == kind.id_member), None)
    found: list[Json] = []
    absent = {by: set(names) for by, names in named.items()}
    async with plane.store.read() as session:
        async for item in kind.read(plane, session, ids, after):
            names = {by: item[kind.named_by[by]] for by in named}
            for by, name in names.items():
                absent[by].discard(name)
            if all(name in named[by] for by, name in names.items()) and filters.pass_on(item):
                found.append(item)
            if len(found) > size:
                break
    if unknown := sorted(name for names in absent.values() for name in names):
        raise ApiError(kind.absent, kind.absent_text.format(unknown[0][:128]))
    answer: Json = {kind.member: found[:size]}
    if len(found) > size:
        last = str(found[size - 1][kind.id_member])
        answer["NextToken"] = base64.urlsafe_b64encode(last.encode()).decode()
    return answer


def _parse_page(request: Json, named: Mapping[str, object]) -> tuple[int, str]:
    """Return how many items are wanted at most, and the id behind which they begin."""
    size, token = request.get("MaxResults"), request.get("NextToken", "")
    if size is not None and named:
        raise ApiError(
            "InvalidParameterCombination",
            f"The parameter {next(iter(named))} cannot be used with the parameter MaxResults",
        )
    if size is not None and not MIN_RESULTS <= size <= MAX_RESULTS:
        raise ApiError(
            "InvalidParameterValue",
            f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value between "
            f"{MIN_RESULTS} and {MAX_RESULTS}.",
        )
    try:
        after = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise ApiError(
            "InvalidNextToken", "The specified parameter NextToken is not valid."
        ) from None
    return sys.maxsize if size is None else size, "" if named else after
