"""The driver awslogs before a service that works: shim-loggers-for-containerd's own cases, and
what its tests leave out."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.awslogs import (
    GROUP,
    KEYS,
    STREAM,
    Awslogs,
    make_program,
    prepared_awslogs,
)
from tests.fixtures.cloudwatch import CloudWatch
from tests.fixtures.hec import make_certificate
from tests.fixtures.loggers import (
    DEADLINE_S,
    LOGGER,
    StartLogger,
    read_text,
    running_loggers,
)
from tests.fixtures.machine import wait_for

MULTILINE = {"awslogs_multiline_pattern": "^TEST"}
DATETIME = {"awslogs_datetime_format": r"\[%b %d, %Y %H:%M:%S\]"}
DATED = [f"[May 0{day}, 2026 10:00:0{day}] {day}\n" for day in (1, 2, 3)]
NO_PENDING = {"awslogs_flush_pending_multiline": "false"}


@pytest.mark.parametrize(
    ("flags", "printed", "arrived"),
    [
        pytest.param({}, "test-e2e-log", ["test-e2e-log"], id="1-defaults"),
        pytest.param(
            MULTILINE | NO_PENDING,
            "TESTA\nTESTB\nTEST",
            ["TESTA\n", "TESTB\n"],
            id="2-multiline-as-upstream",
        ),
        pytest.param(
            MULTILINE, "TESTA\nTESTB\nTEST", ["TESTA\n", "TESTB\n", "TEST"], id="2-multiline"
        ),
        pytest.param(
            DATETIME | NO_PENDING, "".join(DATED), DATED[:2], id="3-datetime-format-as-upstream"
        ),
        pytest.param(DATETIME, "".join(DATED), DATED, id="3-datetime-format"),
        pytest.param(
            {"awslogs_create_group": "false", "awslogs_create_stream": "true"},
            "test-e2e-log",
            ["test-e2e-log"],
            id="4-stream-is-created",
        ),
    ],
)
def test_events_arrive_in_a_stream_that_was_not_there(
    cloudwatch: CloudWatch,
    awslogs: Awslogs,
    start_logger: StartLogger,
    flags: dict[str, str],
    printed: str,
    arrived: list[str],
) -> None:
    logger = awslogs.start(start_logger, **flags)
    logger.write(printed.encode())

    assert logger.finish() == 0
    assert cloudwatch.texts(GROUP, STREAM) == arrived
    assert read_text(awslogs.copy) == printed


def test_container_does_not_start_without_a_group(
    awslogs: Awslogs, start_logger: StartLogger
) -> None:  # 5
    logger = awslogs.start(start_logger, awslogs_group="absent", awslogs_create_group="false")

    assert logger.ready == b""
    assert logger.wait() == 1
    assert awslogs.fault.read_text() == (
        "create stream has been retried 1 times: failed to create Cloudwatch log stream: "
        "ResourceNotFoundException: The specified log group does not exist."
    )


def test_container_runs_without_a_stream_that_is_not_to_be_created(
    cloudwatch: CloudWatch, awslogs: Awslogs, tmp_path: Path
) -> None:  # 6
    with running_loggers(
        make_program(tmp_path / "logger", {"reading.pump.END_S": 1})
    ) as start_logger:
        logger = awslogs.start(start_logger, awslogs_create_stream="false")
        logger.write(b"test-e2e-log\n")

        assert logger.ready != b""
        assert logger.finish() == 0
    assert cloudwatch.streams(GROUP) == []
    assert "1 lines not delivered in time" in read_text(awslogs.copy, "stderr")


def test_group_and_stream_are_created(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_logger: StartLogger
) -> None:  # 7
    logger = awslogs.start(
        start_logger,
        awslogs_group="new",
        awslogs_create_group="true",
        awslogs_create_stream="true",
    )
    logger.write(b"test-e2e-log\n")

    assert logger.finish() == 0
    assert cloudwatch.texts("new", STREAM) == ["test-e2e-log"]


@pytest.mark.parametrize("create", ["true", "false"])
def test_stream_that_is_there_is_used(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_logger: StartLogger, create: str
) -> None:  # 8
    cloudwatch.logs.create_log_stream(logGroupName=GROUP, logStreamName=STREAM)

    logger = awslogs.start(start_logger, awslogs_create_group=create, awslogs_create_stream=create)
    logger.write(b"test-e2e-log\n")

    assert logger.finish() == 0
    assert cloudwatch.texts(GROUP, STREAM) == ["test-e2e-log"]


def test_group_that_others_create_at_the_same_time_is_used(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_logger: StartLogger
) -> None:
    cloudwatch.start_faults = [
        (400, "ResourceNotFoundException", "The specified log group does not exist."),
        (400, "ResourceAlreadyExistsException", "The specified log group already exists"),
    ]

    logger = awslogs.start(start_logger, awslogs_create_group="true")
    logger.write(b"test-e2e-log\n")

    assert logger.finish() == 0
    assert cloudwatch.texts(GROUP, STREAM) == ["test-e2e-log"]


def test_format_is_announced_with_every_request(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_logger: StartLogger
) -> None:  # 9
    cloudwatch.sink = True

    logger = awslogs.start(start_logger, awslogs_format="json/emf")
    logger.write(b'{"_aws":{}}\n')

    assert logger.finish() == 0
    assert [request.operation for request in cloudwatch.requests] == [
        "CreateLogStream",
        "PutLogEvents",
    ]
    formats = {request.headers.get("x-amzn-logs-format") for request in cloudwatch.requests}
    assert formats == {"json/emf"}


@pytest.mark.root
@pytest.mark.parametrize("user", [{}, {"uid": "65534", "gid": "65534"}], ids=["root", "nobody"])
def test_keys_of_root_are_used_without_a_credentials_endpoint(
    cloudwatch: CloudWatch, awslogs: Awslogs, tmp_path: Path, user: dict[str, str]
) -> None:  # 10
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True, mode=0o700)
    (home / ".aws" / "credentials").write_text(
        "[other]\naws_access_key_id = x\n[default]\n"
        f"aws_access_key_id = {KEYS.access_key}\naws_secret_access_key={KEYS.secret_key}\n"
        f"aws_session_token = {KEYS.token}\n"
    )
    (home / ".aws" / "credentials").chmod(0o600)
    program = tmp_path / "logger"
    mount = f'/bin/mount --bind {home} /root && exec {LOGGER} "$@"'
    program.write_text(f"#!/bin/sh\nexec /usr/bin/unshare -m /bin/sh -c '{mount}' - \"$@\"\n")
    program.chmod(0o755)

    with running_loggers(program) as start_logger:
        logger = awslogs.start(start_logger, awslogs_credentials_endpoint="", **user)
        logger.write(b"test-e2e-log\n")

        assert logger.finish() == 0
    assert cloudwatch.texts(GROUP, STREAM) == ["test-e2e-log"]


@pytest.mark.parametrize(
    ("printed", "arrived"),
    [
        pytest.param(b"", [], id="nothing-at-all"),
        pytest.param(b"\n\n", [], id="only-blank-lines"),
        pytest.param(b"a\n\nb\n", ["a", "b"], id="blank-lines"),
        pytest.param(b"\xff\xfe ok\n", ["\ufffd\ufffd ok"], id="not-utf-8"),
        pytest.param(b'a\0\t\x1b"\\n\r\n', ['a\0\t\x1b"\\n\r'], id="nul-and-controls"),
        pytest.param("smörgås 🐟\n".encode(), ["smörgås 🐟"], id="utf-8"),
        pytest.param(b"x" * 262_118 + b"\ny\n", ["x" * 262_118, "y"], id="longest-event"),
        pytest.param(b"x" * 262_119 + b"\ny\n", ["x" * 262_118, "x", "y"], id="one-byte-more"),
        pytest.param(
            b"x" * 10_000_000 + b"\n",
            [*["x" * 262_118] * 38, "x" * (10_000_000 - 38 * 262_118)],
            id="line-of-10-mb",
        ),
    ],
)
def test_whatever_a_container_prints_arrives(
    cloudwatch: CloudWatch,
    awslogs: Awslogs,
    start_logger: StartLogger,
    printed: bytes,
    arrived: list[str],
) -> None:
    logger = awslogs.start(start_logger)
    logger.write(printed)

    assert logger.finish() == 0
    assert cloudwatch.texts(GROUP, STREAM) == arrived


def batch_size(body: dict[str, Any]) -> int:
    return sum(len(event["message"].encode()) + 26 for event in body["logEvents"])


@pytest.mark.parametrize(
    "line", [b"%07d\n", b"%07d " + b"x" * 92 + b"\n"], ids=["8-bytes", "100-bytes"]
)
def test_many_lines_arrive_in_order_and_in_batches_that_keep_the_limits(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_logger: StartLogger, line: bytes
) -> None:
    sent = [line % number for number in range(30_000)]
    logger = awslogs.start(start_logger, mode="non-blocking", max_buffer_size="32m")

    logger.write(b"".join(sent))

    assert logger.finish() == 0
    bodies = cloudwatch.puts()
    arrived = [event["message"] for body in bodies for event in body["logEvents"]]
    assert arrived == [text.decode().strip("\n") for text in sent]
    assert all(len(body["logEvents"]) <= 10_000 for body in bodies)
    assert all(batch_size(body) <= 1_048_576 for body in bodies)
    assert len(cloudwatch.texts(GROUP, STREAM)) == len(sent)


def test_both_streams_arrive_in_the_order_of_their_times(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_logger: StartLogger
) -> None:
    logger = awslogs.start(start_logger)

    for number in range(500):
        logger.write(b"out %d\n" % number)
        logger.write(b"err %d\n" % number, logger.stderr)

    assert logger.finish() == 0
    arrived = [event["message"] for body in cloudwatch.puts() for event in body["logEvents"]]
    moments = [event["timestamp"] for body in cloudwatch.puts() for event in body["logEvents"]]
    assert [text for text in arrived if text[0] == "o"] == [f"out {n}" for n in range(500)]
    assert [text for text in arrived if text[0] == "e"] == [f"err {n}" for n in range(500)]
    assert moments == sorted(moments)


def test_line_arrives_while_the_container_runs(
    cloudwatch: CloudWatch, awslogs: Awslogs, tmp_path: Path
) -> None:
    program = make_program(tmp_path / "logger", {"destinations.to_awslogs.AwsLogs.linger_s": 0.1})
    with running_loggers(program) as start_logger:
        logger = awslogs.start(start_logger)

        logger.write(b"now\n")

        wait_for(lambda: cloudwatch.count("PutLogEvents") == 1, "the line", DEADLINE_S)
        assert cloudwatch.texts(GROUP, STREAM) == ["now"]


def test_container_with_a_small_buffer_does_not_wait_for_full_batches(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_logger: StartLogger
) -> None:
    cloudwatch.sink = True
    logger = awslogs.start(start_logger, max_buffer_size="64k")

    for number in range(2000):
        logger.write(b"%d\n" % number)  # each read alone, if the logger is quick

    assert logger.finish() == 0
    arrived = [event["message"] for body in cloudwatch.puts() for event in body["logEvents"]]
    assert arrived == [str(number) for number in range(2000)]


def test_event_of_many_lines_is_whole_although_lines_come_late(
    cloudwatch: CloudWatch, awslogs: Awslogs, tmp_path: Path
) -> None:
    program = make_program(
        tmp_path / "logger",
        {"destinations.to_awslogs.AwsLogs.linger_s": 0.2, "destinations.multiline.PENDING_S": 30},
    )
    with running_loggers(program) as start_logger:
        logger = awslogs.start(start_logger, awslogs_multiline_pattern="^TEST")

        logger.write(b"TEST 1\nTEST 2\n")
        wait_for(lambda: cloudwatch.count("PutLogEvents") == 1, "the first event", DEADLINE_S)
        logger.write(b"  goes on\nTEST 3\n")
        assert logger.finish() == 0

    texts = cloudwatch.texts(GROUP, STREAM)
    assert texts == ["TEST 1\n", "TEST 2\n  goes on\n", "TEST 3\n"]


def test_event_that_waits_for_another_line_is_sent_after_a_while(
    cloudwatch: CloudWatch, awslogs: Awslogs, tmp_path: Path
) -> None:
    program = make_program(
        tmp_path / "logger",
        {"destinations.to_awslogs.AwsLogs.linger_s": 0.2, "destinations.multiline.PENDING_S": 0.3},
    )
    with running_loggers(program) as start_logger:
        logger = awslogs.start(start_logger, awslogs_multiline_pattern="^TEST")

        logger.write(b"TEST 1\n  goes on\n")

        wait_for(lambda: cloudwatch.count("PutLogEvents") == 1, "the event", DEADLINE_S)
        assert cloudwatch.texts(GROUP, STREAM) == ["TEST 1\n  goes on\n"]


@pytest.mark.parametrize("is_trusted", [True, False], ids=["trusted", "not-trusted"])
def test_service_is_asked_for_its_certificate(moto: str, tmp_path: Path, is_trusted: bool) -> None:
    certificate, tls = make_certificate(tmp_path)
    trusted = certificate if is_trusted else Path("/dev/null")
    program = make_program(tmp_path / "logger", {}, trusted)
    with (
        prepared_awslogs(moto, tmp_path, tls) as awslogs,
        running_loggers(program) as start_logger,
    ):
        logger = awslogs.start(start_logger)
        if is_trusted:
            logger.write(b"test-e2e-log\n")

            assert logger.finish() == 0
            assert awslogs.cloudwatch.texts(GROUP, STREAM) == ["test-e2e-log"]
        else:
            assert logger.ready == b""
            assert "certificate verify failed" in awslogs.fault.read_text()


def test_keys_are_nowhere_to_be_seen(
    cloudwatch: CloudWatch, awslogs: Awslogs, start_logger: StartLogger
) -> None:
    cloudwatch.faults = [(400, "AccessDeniedException", "not authorized")]
    logger = awslogs.start(start_logger)
    logger.write(b"test-e2e-log\n")

    command = Path(f"/proc/{logger.process}/cmdline").read_bytes()
    environment = Path(f"/proc/{logger.process}/environ").read_bytes()
    logger.finish()

    for secret in (KEYS.secret_key, KEYS.token or ""):
        assert secret.encode() not in command + environment
        assert secret not in awslogs.copy.read_text()
        assert not any(secret.encode() in request.body for request in cloudwatch.requests)
    assert "AccessDeniedException: not authorized; trying again" in read_text(
        awslogs.copy, "stderr"
    )
    assert json.loads(cloudwatch.requests[-1].body)["logGroupName"] == GROUP
