"""What clients and the log are told when a request fails, at every entrance."""

import asyncio
import http.client
import json
import logging
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import pytest
from sqlalchemy.exc import OperationalError

from fargate_agent.controlplane import api, ec2, error_answers
from fargate_agent.controlplane.agents import connections, instances
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.history import stream
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import DEADLINE_S, ControlPlane
from tests.fixtures.events import reading
from tests.fixtures.requests import sign, signed

pytestmark = pytest.mark.root

VALUE = "value-of-a-row"
FULL = OperationalError(
    f"INSERT INTO tasks VALUES ('{VALUE}')",
    {"message": VALUE},
    sqlite3.OperationalError("database or disk is full"),
)
AWAY = OperationalError(None, None, ConnectionRefusedError(111, "Connection refused"))


@dataclass
class Answer:
    status: int
    content_type: str
    request_id: str
    text: str

    def error(self) -> tuple[str, str]:
        """Return kind and text of the error, whichever protocol it is in."""
        if self.content_type == "application/x-amz-json-1.1":
            found = json.loads(self.text)
            return found["__type"], found["message"]
        assert self.content_type == "text/xml;charset=UTF-8"
        match = re.fullmatch(
            r'<\?xml version="1.0" encoding="UTF-8"\?>\n<Response><Errors><Error><Code>(.*)</Code>'
            r"<Message>(.*)</Message></Error></Errors><RequestID>(.*)</RequestID></Response>",
            self.text,
        )
        assert match is not None
        assert match[3] == self.request_id
        return match[1], match[2]


def send(
    plane: ControlPlane, method: str, path: str, body: bytes, headers: dict[str, str]
) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(plane.url).netloc, timeout=DEADLINE_S)
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        found = response.headers
        (request_id,) = found.get_all("x-amzn-RequestId", [])
        text = response.read().decode()
        return Answer(response.status, found["Content-Type"], request_id, text)
    finally:
        connection.close()


def get(plane: ControlPlane, path: str, principal: str = "admin", **parameters: str) -> Answer:
    url = f"{plane.url}{path}"
    headers = sign("GET", url, plane.keys[principal], params=parameters)
    return send(plane, "GET", f"{path}?{urlencode(parameters)}", b"", headers)


def send_operation(plane: ControlPlane) -> Answer:
    return send(plane, "POST", "/", b"{}", signed(plane, "ListClusters"))


def send_query(plane: ControlPlane) -> Answer:
    body = f"Action=DescribeVpcs&Version={ec2.shapes.API_VERSION}".encode()
    headers = {
        "Content-Type": ec2.FORM_CONTENT_TYPE,
        "Host": urlsplit(plane.url).netloc,
    }
    signed_headers = sign(
        "POST", plane.url, plane.keys["admin"], body=body, headers=headers, service="ec2"
    )
    return send(plane, "POST", "/", body, signed_headers)


def send_events(plane: ControlPlane) -> Answer:
    return get(plane, "/events")


def send_websocket(plane: ControlPlane) -> Answer:
    arn = f"arn:aws:ecs:us-east-1:000000000000:container-instance/default/{'0' * 32}"
    return get(plane, "/ws", "agent", clusterArn="default", containerInstanceArn=arn)


Send = Callable[[ControlPlane], Answer]
Break = Callable[[Exception], Send]


@pytest.fixture(params=["operation", "query", "events", "websocket"])
def break_entrance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Break:
    """Let one entrance fail with an error; give what sends a request to it."""

    def break_with(error: Exception) -> Send:
        def fail(*_: object) -> Any:
            raise error

        match request.param:
            case "operation":
                monkeypatch.setitem(api.OPERATIONS, "ListClusters", fail)
                return send_operation
            case "query":
                monkeypatch.setattr(ec2, "answer_query", fail)
                return send_query
            case "events":
                monkeypatch.setattr(stream, "find_targets", fail)
                return send_events
            case _:
                monkeypatch.setattr(instances, "find_own_instance", fail)
                return send_websocket

    return break_with


@pytest.fixture
def database() -> None:
    """Errors are made by hand: one database is as good as another."""


@pytest.fixture(autouse=True)
def all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, error_answers.__name__)


def said(caplog: pytest.LogCaptureFixture) -> str:
    """Return what was logged; there are no secrets and no values of rows in it."""
    text = "\n".join(
        record.getMessage() for record in caplog.records if record.name == error_answers.__name__
    )
    assert VALUE not in caplog.text
    return text


@pytest.mark.parametrize(
    "error", [pytest.param(FULL, id="disk is full"), pytest.param(AWAY, id="database is away")]
)
def test_state_that_can_not_be_had_is_named(
    error: OperationalError,
    break_entrance: Break,
    control_plane: ControlPlane,
    caplog: pytest.LogCaptureFixture,
) -> None:
    send_request = break_entrance(error)

    answer = send_request(control_plane)

    kind, text = answer.error()
    assert (answer.status, kind) in {(500, "ServerException"), (500, "InternalError")}
    assert text == f"The control plane's state: {error.orig}; request id {answer.request_id}."
    assert f"request {answer.request_id}: state can't be read or written: {error.orig}" in said(
        caplog
    )


def test_what_nobody_foresaw_is_in_the_log_alone(
    break_entrance: Break, control_plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    send_request = break_entrance(RuntimeError("a fault of ours"))

    answer = send_request(control_plane)

    kind, text = answer.error()
    assert (answer.status, kind) in {(500, "ServerException"), (500, "InternalError")}
    assert text == f"Unexpected error; request id {answer.request_id}."
    assert f"request {answer.request_id}: unexpected error" in said(caplog)
    assert "RuntimeError: a fault of ours" in caplog.text
    for secret in (secret for _, secret in control_plane.keys.values()):
        assert secret not in caplog.text


def test_refusal_is_answered_as_it_is_and_no_error_in_the_log(
    break_entrance: Break, control_plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    send_request = break_entrance(ApiError("ClientException", "No <more>.", status=409))

    answer = send_request(control_plane)

    kind, text = answer.error()
    assert (answer.status, kind) == (409, "ClientException")
    assert text.replace("&lt;", "<").replace("&gt;", ">") == "No <more>."
    line = said(caplog)
    assert re.fullmatch(
        rf"request {answer.request_id}: \S.* 409 ClientException in \d+ ms", line
    ), line


def test_members_of_an_error_stand_beside_its_text(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise ApiError("ConflictException", "Twice.", resourceIds=["a"])

    monkeypatch.setitem(api.OPERATIONS, "ListClusters", fail)

    answer = send_operation(control_plane)

    assert json.loads(answer.text) == {
        "__type": "ConflictException",
        "message": "Twice.",
        "resourceIds": ["a"],
    }


@pytest.mark.parametrize(
    ("method", "path", "content_type"),
    [
        pytest.param("GET", "/", "application/x-amz-json-1.1", id="another method"),
        pytest.param("POST", "/events", "application/x-amz-json-1.1", id="another at the stream"),
        pytest.param("DELETE", "/ws", "application/x-amz-json-1.1", id="another at the websocket"),
        pytest.param("POST", "/tasks", "application/x-amz-json-1.1", id="another path"),
        pytest.param("POST", "/tasks", ec2.FORM_CONTENT_TYPE, id="a query elsewhere"),
    ],
)
def test_there_is_nothing_else(
    method: str,
    path: str,
    content_type: str,
    control_plane: ControlPlane,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = send(control_plane, method, path, b"", {"Content-Type": content_type})

    assert answer.status == 404
    assert answer.error() == ("UnknownOperationException", "There is nothing here.")
    assert f"request {answer.request_id}: {method} {path} 404 UnknownOperationException in" in said(
        caplog
    )


def test_request_is_logged_without_its_query(
    control_plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    answer = get(control_plane, "/events", subject="X-Amz-Signature")

    assert answer.status == 200
    assert f"request {answer.request_id}: GET /events 200  in" in said(caplog)
    assert "X-Amz-Signature" not in caplog.text


async def test_stream_that_has_begun_is_broken_off(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(stream, "read_page", fail)

    async with reading(control_plane) as reader:
        with pytest.raises(aiohttp.ClientError):
            await reader.response.content.read()

    request_id = reader.response.headers["x-amzn-RequestId"]
    assert f"request {request_id}: unexpected error" in said(caplog)
    assert f"request {request_id}: broken off: Unexpected error; request id" in said(caplog)


async def test_websocket_that_has_begun_is_ended(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(connections, "note_connected", fail)

    async with SimulatedAgent(control_plane) as agent:
        await agent.wait_closed()

    async with asyncio.timeout(DEADLINE_S):
        while "broken off" not in said(caplog):
            await asyncio.sleep(0.02)
    assert re.search(r"^request \S+: unexpected error$", said(caplog), re.MULTILINE)


async def test_handshake_that_makes_no_sense_is_refused_in_words_of_http(
    control_plane: ControlPlane, simulated_agent: SimulatedAgent
) -> None:
    answer = get(
        control_plane,
        "/ws",
        "agent",
        clusterArn="default",
        containerInstanceArn=simulated_agent.instance_arn,
    )

    assert (answer.status, answer.content_type) == (400, "text/plain; charset=utf-8")
    assert answer.text.startswith("No WebSocket UPGRADE hdr")
