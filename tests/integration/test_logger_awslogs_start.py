"""The driver awslogs: how it starts, the keys it signs with, and what it makes of answers."""

from typing import Any

import pytest
from botocore.credentials import Credentials

from tests.fixtures.awslogs import (
    GROUP,
    KEYS,
    STREAM,
    Awslogs,
)
from tests.fixtures.cloudwatch import CloudWatch, key_answer
from tests.fixtures.loggers import DEADLINE_S, StartLogger, read_text
from tests.fixtures.machine import wait_for

SENT = [f"line {number:06}" for number in range(20_000)]
OTHER_KEYS = Credentials("ASIATWO", "se/cret+two", "tok/en==two")


def wait_for_puts(cloudwatch: CloudWatch, count: int) -> None:
    wait_for(lambda: cloudwatch.count("PutLogEvents") >= count, "requests", DEADLINE_S)


def test_container_does_not_start_when_the_service_is_absent(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_logger: StartLogger
) -> None:
    with cloudwatch.away():
        logger = awslogs.start(start_logger)

        assert logger.ready == b""
        assert logger.wait() == 1
    place = cloudwatch.url.removeprefix("http://")
    assert awslogs.fault.read_text() == (
        "create stream has been retried 2 times: failed to create Cloudwatch log stream: "
        f'RequestError: send request failed caused by: Post "{cloudwatch.url}/": '
        f"dial tcp {place}: connect: connection refused"
    )


def test_container_does_not_start_when_the_service_hangs(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_hasty: StartLogger
) -> None:
    cloudwatch.answering.clear()

    logger = awslogs.start(start_hasty)

    assert logger.ready == b""
    assert logger.wait() == 1
    assert "failed to create Cloudwatch log stream: RequestError" in awslogs.fault.read_text()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param((400, "ThrottlingException", "Rate exceeded"), id="throttled"),
        pytest.param((429, "TooManyRequests", ""), id="429"),
        pytest.param((500, "InternalFailure", ""), id="500"),
        pytest.param((503, "ServiceUnavailableException", ""), id="503"),
    ],
)
def test_container_starts_although_the_service_is_busy(
    cloudwatch: CloudWatch,
    awslogs: Awslogs,
    start_logger: StartLogger,
    fault: tuple[int, str, str],
) -> None:
    cloudwatch.start_faults = [fault] * 2

    logger = awslogs.start(start_logger)

    assert logger.ready != b""
    assert logger.finish() == 0


@pytest.mark.parametrize(
    ("status", "answer", "text"),
    [
        pytest.param(500, {}, "answered 500", id="500"),
        pytest.param(500, {"message": "why: no"}, "answered 500: why: no", id="message"),
        pytest.param(500, {"message": ["no"]}, "answered 500", id="no-text"),
        pytest.param(200, {}, "gave no keys", id="no-keys"),
    ],
)
def test_container_does_not_start_without_keys(
    awslogs: Awslogs, start_logger: StartLogger, status: int, answer: dict[str, Any], text: str
) -> None:
    awslogs.key_server.answers[:] = [(status, answer)]

    logger = awslogs.start(start_logger)

    assert logger.ready == b""
    assert awslogs.fault.read_text() == (
        "create stream has been retried 2 times: failed to create Cloudwatch log stream: "
        "CredentialsEndpointError: failed to load credentials caused by: "
        f"{awslogs.key_server.url} {text}"
    )


@pytest.mark.parametrize(
    ("message", "token"),
    [
        pytest.param("The next expected sequenceToken is: 495", "495", id="token"),
        pytest.param("The next expected sequenceToken is: null", None, id="none"),
    ],
)
def test_sequence_token_is_the_one_that_the_service_expects(
    cloudwatch: CloudWatch,
    awslogs: Awslogs,
    start_logger: StartLogger,
    message: str,
    token: str | None,
) -> None:
    cloudwatch.faults = [(400, "InvalidSequenceTokenException", message)]
    logger = awslogs.start(start_logger)

    logger.write(b"test-e2e-log\n")

    assert logger.finish() == 0
    assert [body.get("sequenceToken") for body in cloudwatch.puts()] == [token]


def test_events_that_were_accepted_already_are_not_sent_again(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_logger: StartLogger
) -> None:
    cloudwatch.faults = [(400, "DataAlreadyAcceptedException", "The given batch …")]
    logger = awslogs.start(start_logger)

    logger.write(b"test-e2e-log\n")

    assert logger.finish() == 0
    assert cloudwatch.count("PutLogEvents") == 1


@pytest.mark.parametrize(
    ("expires_in_s", "requests"),
    [pytest.param(60, 3, id="soon"), pytest.param(3600, 1, id="not-soon")],
)
def test_keys_are_asked_for_again_before_they_end(
    cloudwatch: CloudWatch,
    awslogs: Awslogs,
    start_impatient: StartLogger,
    expires_in_s: float,
    requests: int,
) -> None:
    awslogs.key_server.answers[:] = [(200, key_answer(KEYS, expires_in_s))]
    logger = awslogs.start(start_impatient)

    for number in (1, 2):
        logger.write(b"%d\n" % number)
        wait_for_puts(cloudwatch, number)

    assert logger.finish() == 0
    assert awslogs.key_server.paths == ["/v2/credentials/x"] * requests


def test_keys_that_are_about_to_end_are_used_when_no_others_can_be_had(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_logger: StartLogger
) -> None:
    awslogs.key_server.answers[:] = [(200, key_answer(KEYS, 60)), (500, {})]
    logger = awslogs.start(start_logger)

    logger.write(b"test-e2e-log\n")

    assert logger.finish() == 0
    assert cloudwatch.texts(GROUP, STREAM) == ["test-e2e-log"]


def test_nothing_is_lost_when_keys_end_midway(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_impatient: StartLogger
) -> None:
    logger = awslogs.start(start_impatient)
    cloudwatch.keys = {OTHER_KEYS.access_key: OTHER_KEYS}
    logger.write("\n".join(SENT[:10_000]).encode() + b"\n")
    wait_for(lambda: len(awslogs.key_server.paths) > 1, "a request for keys", DEADLINE_S)

    awslogs.key_server.answers[:] = [(200, key_answer(OTHER_KEYS))]
    logger.write("\n".join(SENT[10_000:]).encode())

    assert logger.finish() == 0
    assert cloudwatch.texts(GROUP, STREAM) == SENT
    assert "ExpiredTokenException" in read_text(awslogs.copy, "stderr")
