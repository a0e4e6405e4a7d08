import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fargate_agent.controlplane.history.events import render_envelope, render_time
from fargate_agent.controlplane.history.followers import (
    FileSink,
    Told,
    WebhookSink,
    parse_retry_after,
)
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.state.model import Event
from tests.fixtures.events import Hook

ARNS = Arns("us-east-1", "000000000000")
EVENTS = [{"id": str(number), "detail": {"text": "ü"}} for number in range(3)]


def test_envelope_is_that_of_eventbridge() -> None:
    arn = ARNS.task("default", "0" * 32)
    event = Event(
        seq=258, at=1579802278.123, cluster="default", kind="ECS Task State Change",
        subject="0" * 32, detail={"taskArn": arn},
    )  # fmt: skip

    assert render_envelope(event, ARNS) == {
        "version": "0",
        "id": "00000000-0000-0000-0000-000000000102",
        "detail-type": "ECS Task State Change",
        "source": "aws.ecs",
        "account": "000000000000",
        "time": "2020-01-23T17:57:58Z",
        "region": "us-east-1",
        "resources": [arn],
        "detail": {"taskArn": arn},
    }


def test_times_of_details_have_milliseconds() -> None:
    assert render_time(1579802278.123) == "2020-01-23T17:57:58.123Z"


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_file_gets_a_line_for_each_event_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = FileSink(path)

    told = [await sink.tell(EVENTS[:2]), await sink.tell(EVENTS[2:])]

    assert told == [Told(2), Told(1)]
    assert read_lines(path) == EVENTS
    assert path.stat().st_mode & 0o777 == 0o600


async def test_file_that_was_moved_away_is_made_again(tmp_path: Path) -> None:
    path, old = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1"
    sink = FileSink(path)
    await sink.tell(EVENTS[:1])

    path.rename(old)
    await sink.tell(EVENTS[1:])

    assert read_lines(old) == EVENTS[:1]
    assert read_lines(path) == EVENTS[1:]


async def test_line_that_a_crash_has_torn_is_ended_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"id": "0", "det')

    await FileSink(path).tell(EVENTS)

    torn, *whole = path.read_text().splitlines()
    assert torn == '{"id": "0", "det'
    assert [json.loads(line) for line in whole] == EVENTS


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("none/events.jsonl", "No such file or directory", id="no directory"),
        pytest.param(".", "Is a directory", id="directory"),
        pytest.param("/dev/null", "is not a file", id="device"),
    ],
)
async def test_file_that_can_not_be_written_is_a_fault(
    tmp_path: Path, path: str, said: str
) -> None:
    told = await FileSink(tmp_path / path).tell(EVENTS)

    assert told == Told(0, f"{tmp_path / path}: {said}")


@pytest.fixture
async def sink(hook: Hook) -> AsyncIterator[WebhookSink]:
    async with aiohttp.ClientSession() as http:
        yield WebhookSink(http, hook.url)


async def test_webhook_gets_one_event_after_the_other(hook: Hook, sink: WebhookSink) -> None:
    told = await sink.tell(EVENTS)

    assert told == Told(3)
    assert hook.bodies == EVENTS
    assert set(hook.kinds) == {"application/json"}


@pytest.mark.parametrize("status", [429, 500, 503, 302])
async def test_webhook_that_can_not_now_keeps_the_order(
    hook: Hook, sink: WebhookSink, status: int
) -> None:
    hook.answers = [
        web.Response,
        lambda: web.Response(status=status, headers={"Location": "/hook"}),
    ]

    told = await sink.tell(EVENTS)

    assert told == Told(1, f"the webhook answers with status {status}")
    assert hook.bodies == EVENTS[:2]


async def test_webhook_says_how_long_it_wants_to_be_left_alone(
    hook: Hook, sink: WebhookSink
) -> None:
    hook.answers = [lambda: web.Response(status=503, headers={"Retry-After": "7"})]

    told = await sink.tell(EVENTS)

    assert told == Told(0, "the webhook answers with status 503", 7.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("120", 120.0, id="seconds"),
        pytest.param("Sun, 22 Nov 2026 10:00:30 GMT", 30.0, id="date"),
        pytest.param("Sun, 22 Nov 2026 10:00:30 -0000", 30.0, id="date without a zone"),
        pytest.param("Sun, 22 Nov 2026 09:00:00 GMT", 0.0, id="date that has passed"),
        pytest.param("", 0.0, id="missing"),
        pytest.param(" ", 0.0, id="blank"),
        pytest.param("soon", 0.0, id="no sense"),
        pytest.param("-5", 0.0, id="negative"),
        pytest.param("9" * 4000, 0.0, id="too long"),
    ],
)
def test_retry_after_is_read_in_both_forms(text: str, seconds: float) -> None:
    now = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)

    assert parse_retry_after(text, now) == seconds


async def test_event_that_the_webhook_refuses_is_passed_over(
    hook: Hook, sink: WebhookSink, caplog: pytest.LogCaptureFixture
) -> None:
    hook.answers = [web.Response, lambda: web.Response(status=400)]

    told = await sink.tell(EVENTS)

    assert told == Told(3)
    assert hook.bodies == EVENTS
    assert "event 1: the webhook refuses it with status 400" in caplog.text


async def test_webhook_that_is_away_is_a_fault_that_names_no_secret() -> None:
    listener = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()

    async with aiohttp.ClientSession() as http:
        told = await WebhookSink(http, f"http://u:secret@127.0.0.1:{port}/t0ken").tell(EVENTS)

    assert told == Told(0, "not posted to 127.0.0.1: ClientConnectorError")
