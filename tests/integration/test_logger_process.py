"""`logger` as containerd's shim starts it: what holds for every driver that has a destination."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.forward import ForwardServer, forward_server, start_to
from tests.fixtures.loggers import (
    DEADLINE_S,
    LOGGER,
    SHIM_WAITS_S,
    StartLogger,
    read_records,
    read_text,
    render_flags,
    running_loggers,
)
from tests.fixtures.machine import wait_for
from tests.fixtures.sinks import stream_sink

NOBODY = 65534


@pytest.fixture
def forward() -> Iterator[ForwardServer]:
    with forward_server() as server:
        yield server


def sum_lost(path: Path) -> dict[str, int]:
    """What the logger told about losses at its end."""
    found = re.search(
        r"fluentd: (?P<late>\d+) lines not delivered in time, (?P<room>\d+) dropped for want of "
        r"room, (?P<refused>\d+) refused by the destination\n$",
        read_text(path, "stderr"),
    )
    assert found is not None
    return {name: int(number) for name, number in found.groupdict().items()}


def test_logger_is_ready_with_one_byte_when_it_has_connected(
    start_logger: StartLogger, forward: ForwardServer
) -> None:
    logger = start_to(start_logger, forward)

    wait_for(lambda: forward.connections == 1, "the connection", DEADLINE_S)
    assert logger.finish() == 0


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        pytest.param(["--container-id", ""], "container-id is required", id="no-id"),
        pytest.param(["--container-name", ""], "container-name is required", id="no-name"),
        pytest.param(["--log-driver", ""], "log-driver is required", id="no-driver"),
        pytest.param(["--log-driver", "x"], "unknown log driver: x", id="unknown-driver"),
        pytest.param(["--mode", "maybe"], "unknown mode type: maybe", id="unknown-mode"),
        pytest.param(["--max-buffer-size", "3q"], "invalid size: '3q'", id="size"),
        pytest.param(
            ["--max-buffer-size", "9" * 16], "invalid size: '9999999999999999'", id="endless"
        ),
        pytest.param(["--uid", "0"], "uid and gid can't be 0", id="root"),
        pytest.param(["--what", "x"], "unknown flag: --what", id="unknown-flag"),
        pytest.param(
            ["--netns", "/nowhere"],
            "[Errno 2] No such file or directory: '/nowhere'",
            id="no-network-namespace",
        ),
        pytest.param(
            ["--netns", "/proc/self/ns/uts"],
            "can't enter /proc/self/ns/uts",
            id="another-kind-of-namespace",
        ),
        pytest.param(
            ["--fluentd-address", "tcp://127.0.0.1:9"],
            "dial tcp 127.0.0.1:9: connect: connection refused",
            id="nobody-listens",
        ),
        pytest.param(
            ["--fluentd-address", "unix:///nowhere/fluent.sock"],
            "dial unix /nowhere/fluent.sock: connect: no such file or directory",
            id="no-socket",
        ),
    ],
)
def test_logger_says_why_and_is_never_ready_when_it_cannot_be_set_up(
    start_logger: StartLogger, tmp_path: Path, flags: list[str], text: str
) -> None:
    given = render_flags(log_driver="fluentd", fault_path=tmp_path / "fault")
    asked = dict(zip(flags[::2], flags[1::2], strict=True))
    arguments = dict(zip(given[::2], given[1::2], strict=True)) | asked

    logger = start_logger(*(part for pair in arguments.items() for part in pair))

    assert logger.ready == b""
    assert logger.wait() == 1
    fault = tmp_path / "fault"
    assert fault.read_text() == text
    assert fault.stat().st_mode & 0o777 == 0o600


def test_what_another_user_links_is_not_written_to(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    precious, fault = tmp_path / "precious", tmp_path / "fault"
    precious.write_text("precious")
    fault.symlink_to(precious)

    logger = start_logger(*render_flags(log_driver="bogus", fault_path=fault))

    assert logger.wait() == 1
    assert precious.read_text() == "precious"
    assert fault.read_text() == "unknown log driver: bogus"


def test_no_fault_is_written_when_nothing_is_wrong(
    start_logger: StartLogger, forward: ForwardServer, tmp_path: Path
) -> None:
    logger = start_to(start_logger, forward, fault_path=tmp_path / "fault")

    assert logger.finish() == 0
    assert not (tmp_path / "fault").exists()


@pytest.mark.parametrize(
    ("written", "arrived"),
    [
        pytest.param(b"", [], id="nothing-at-all"),
        pytest.param(b"a\n\nb\n", ["a", "", "b"], id="lines"),
        pytest.param(b"no newline", ["no newline"], id="no-newline-at-the-end"),
        pytest.param(b"\xff\xfe\n", ["\udcff\udcfe"], id="not-utf-8"),
        pytest.param(b"a\0b\n\0\n", ["a\0b", "\0"], id="nul"),
    ],
)
def test_what_a_container_prints_arrives_as_it_is(
    start_logger: StartLogger, forward: ForwardServer, written: bytes, arrived: list[str]
) -> None:
    logger = start_to(start_logger, forward)

    logger.write(written)
    took_s = logger.delete()

    forward.drain()
    assert forward.logs() == arrived
    assert took_s < 3


def test_line_of_10_mb_arrives_in_pieces(start_logger: StartLogger, forward: ForwardServer) -> None:
    line = "".join(f"{number:09d}," for number in range(1_000_000))
    logger = start_to(start_logger, forward)

    logger.write(line.encode() + b"\n")
    logger.delete()

    forward.drain()
    records = [entry.record for entry in forward.entries]
    assert "".join(forward.logs()) == line
    assert {len(record["log"]) for record in records[:-1]} == {16 * 1024}
    assert [int(record["partial_ordinal"]) for record in records] == [*range(1, len(records) + 1)]
    assert len({record["partial_id"] for record in records}) == 1
    assert [record["partial_last"] for record in records] == (
        ["false"] * (len(records) - 1) + ["true"]
    )


def test_100_mb_arrive_in_order_in_blocking_mode(
    start_logger: StartLogger, forward: ForwardServer, tmp_path: Path
) -> None:
    logger = start_to(
        start_logger, forward, log_path=tmp_path / "web.log", copy_max_size="1m", copy_max_file=2
    )
    sent = 100_000
    filling = b"x" * 992

    for number in range(0, sent, 100):
        logger.write(b"".join(b"%07d%b\n" % (n, filling) for n in range(number, number + 100)))
    logger.delete()

    forward.drain()
    arrived = [int(entry.record["log"][:7]) for entry in forward.entries]
    assert arrived == [*range(sent)]
    assert "dropped" not in read_text(tmp_path / "web.log", "stderr")


def test_both_streams_are_told_apart(start_logger: StartLogger, forward: ForwardServer) -> None:
    logger = start_to(start_logger, forward)

    for number in range(500):
        logger.write(b"out %d\n" % number)
        logger.write(b"err %d\n" % number, logger.stderr)
    logger.delete()

    forward.drain()
    for source, word in (("stdout", "out"), ("stderr", "err")):
        logs = [
            entry.record["log"] for entry in forward.entries if entry.record["source"] == source
        ]
        assert logs == [f"{word} {number}" for number in range(500)]


def test_local_copy_holds_what_the_destination_gets(
    start_logger: StartLogger, forward: ForwardServer, tmp_path: Path
) -> None:
    logger = start_to(start_logger, forward, log_path=tmp_path / "web.log")

    logger.write(b"one\ntwo\n")
    logger.delete()

    assert [record["log"] for record in read_records(tmp_path / "web.log")] == ["one\n", "two\n"]


@pytest.mark.parametrize("terminal", [False, True], ids=["sigterm", "terminal-without-sigterm"])
def test_logger_ends_before_the_shim_kills_it_and_tells_the_loss_when_the_destination_hangs(
    start_logger: StartLogger, tmp_path: Path, terminal: bool
) -> None:
    with forward_server(hangs=True) as server:
        logger = start_to(
            start_logger, server, log_path=tmp_path / "web.log", fluentd_request_ack="true"
        )
        container = subprocess.Popen(["yes", "y" * 99], stdout=logger.stdout)
        copy = tmp_path / "web.log"
        wait_for(lambda: copy.stat().st_size > 1_000_000, "the copy", DEADLINE_S)

        container.kill()
        container.wait()
        began = time.monotonic()
        logger.end(*([logger.stdout] if terminal else []))
        if not terminal:
            os.kill(logger.process, signal.SIGTERM)
        code = logger.wait(SHIM_WAITS_S)

        took_s = time.monotonic() - began
        printed = len([one for one in read_records(copy) if one["stream"] == "stdout"])
        assert code == 0
        assert took_s < SHIM_WAITS_S
        assert server.entries == []
        assert sum_lost(copy) == {"late": printed, "room": 0, "refused": 0}


def test_lines_are_dropped_counted_and_told_in_the_stream_in_non_blocking_mode(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    with forward_server(hangs=True) as server:
        logger = start_to(
            start_logger,
            server,
            mode="non-blocking",
            max_buffer_size="256k",
            log_path=tmp_path / "web.log",
            fluentd_request_ack="true",
        )
        sent = 50_000

        for number in range(sent):
            logger.write(b"%099d\n" % number)  # is never blocked
        server.hangs = False
        logger.write(b"after\n")
        logger.delete()

        server.drain()
        logs = server.logs()
        told = [int(log.split()[1]) for log in logs if log.startswith("shim-logger: ")]
        arrived = [log for log in logs if not log.startswith("shim-logger: ")]
        assert 0 < len(arrived) < sent
        assert len(arrived) + sum(told) == sent + 1
        assert sum_lost(tmp_path / "web.log") == {"late": 0, "room": sum(told), "refused": 0}
        assert arrived[-1] == "after" or told[-1] > 0
        assert len(read_records(tmp_path / "web.log")) == sent + 2


@pytest.mark.root
def test_logger_becomes_another_user_without_supplementary_groups(
    start_logger: StartLogger, forward: ForwardServer, tmp_path: Path
) -> None:
    groups = os.getgroups()
    os.setgroups([0, 4, 27])
    try:
        logger = start_to(start_logger, forward, uid=NOBODY, gid=NOBODY)
    finally:
        os.setgroups(groups)

    status = Path(f"/proc/{logger.process}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    assert fields["Uid"].split() == fields["Gid"].split() == [str(NOBODY)] * 4
    assert fields["Groups"].split() == []
    assert int(fields["CapEff"], 16) == 0
    logger.write(b"hello\n")
    logger.delete()
    forward.drain()
    assert forward.logs() == ["hello"]


@pytest.mark.root
def test_other_user_can_say_why_and_its_copy_stays_bounded(
    start_logger: StartLogger, forward: ForwardServer, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    owned = closed / "owned"
    owned.mkdir(parents=True)
    closed.chmod(0o700)
    os.chown(owned, NOBODY, NOBODY)
    user = {"uid": NOBODY, "gid": NOBODY}

    failed = start_logger(
        *render_flags(
            log_driver="fluentd",
            fluentd_address="127.0.0.1:9",
            fault_path=owned / "fault",
            **user,
        )
    )
    logger = start_to(
        start_logger, forward, log_path=closed / "web.log", copy_max_size="10k", **user
    )
    logger.write(b"".join(b"%099d\n" % number for number in range(1000)))
    logger.delete()

    assert failed.wait() == 1
    assert "connection refused" in (owned / "fault").read_text()
    assert (closed / "web.log").stat().st_size <= 10_000
    assert int(read_records(closed / "web.log")[-1]["log"]) == 999


@pytest.mark.root
def test_other_user_need_not_get_where_the_program_lies(tmp_path: Path) -> None:
    program = tmp_path / "closed" / "shim-loggers" / LOGGER.name
    shutil.copytree(LOGGER.parent, program.parent)
    program.parent.parent.chmod(0o700)

    with stream_sink() as sink, running_loggers(program) as start:
        logger = start(
            *render_flags(
                log_driver="gelf",
                gelf_address=f"tcp://localhost:{sink.port}",
                dns_servers="127.0.0.1",
                labels="tier",
                container_labels='{"tier": "front"}',
                uid=NOBODY,
                gid=NOBODY,
            )
        )
        logger.write(b"hello\n")
        logger.delete()
        wait_for(lambda: len(sink.split(b"\0")) == 1, "the message", DEADLINE_S)

    messages = [json.loads(message) for message in sink.split(b"\0")]
    assert [(message["short_message"], message["_tier"]) for message in messages] == [
        ("hello", "front")
    ]


@pytest.fixture
def netns() -> Iterator[Path]:
    name = f"logger-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Path("/run/netns") / name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.root
def test_logger_runs_in_the_network_namespace_of_the_task(
    start_logger: StartLogger, tmp_path: Path, netns: Path
) -> None:
    with forward_server(place=tmp_path / "fluent.sock") as server:
        logger = start_to(start_logger, server, netns=netns)

        inside = Path(f"/proc/{logger.process}/ns/net").stat()
        assert inside.st_ino == netns.stat().st_ino != Path("/proc/self/ns/net").stat().st_ino
        assert logger.finish() == 0


@pytest.mark.root
def test_value_that_looks_like_a_flag_chooses_no_namespace(
    start_logger: StartLogger, tmp_path: Path, netns: Path
) -> None:
    with forward_server(place=tmp_path / "fluent.sock") as server:
        logger = start_to(start_logger, server, fluentd_tag=f"--netns={netns}")

        inside = Path(f"/proc/{logger.process}/ns/net").stat()
        assert inside.st_ino == Path("/proc/self/ns/net").stat().st_ino
        assert logger.finish() == 0
