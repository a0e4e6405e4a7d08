import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.loggers import (
    DEADLINE_S,
    StartLogger,
    read_records,
    read_text,
    running_loggers,
)
from tests.fixtures.machine import wait_for


@pytest.fixture
def start_logger() -> Iterator[StartLogger]:
    with running_loggers() as start:
        yield start


def test_logger_is_ready_with_one_byte_when_its_file_is_open(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    path = tmp_path / "a" / "b" / "web.log"

    logger = start_logger("--log-path", str(path))

    assert len(logger.ready) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    assert logger.finish() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--max-file", "2", "--max-size", "1k", "--log-path", "LOG"], id="any-order"),
        pytest.param(["--log-path=LOG", "--max-size=1k", "--max-file=2"], id="with-equals"),
        pytest.param(["--max-size", "", "--log-path", "LOG", ""], id="empty-arguments"),
        pytest.param(
            ["--container-name", "web", "--log-path", "LOG", "--container-id", "c-1"], id="names"
        ),
    ],
)
def test_logger_reads_its_flags(
    start_logger: StartLogger, tmp_path: Path, arguments: list[str]
) -> None:
    path = tmp_path / "web.log"

    logger = start_logger(*[argument.replace("LOG", str(path)) for argument in arguments])
    logger.write(b"hello\n")

    assert logger.finish() == 0
    assert read_text(path) == "hello\n"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--max-size", "10m"], id="no-path"),
        pytest.param(["--log-path", "LOG", "--what", "x"], id="unknown-flag"),
        pytest.param(["--log-path", "LOG", "--max-size", "ten"], id="size-is-no-number"),
        pytest.param(["--log-path", "LOG", "--max-file", "0"], id="no-file"),
        pytest.param(["--log-path", "/dev/null/web.log"], id="path-is-impossible"),
    ],
)
def test_logger_ends_with_an_error_and_is_never_ready_when_it_cannot_log(
    start_logger: StartLogger, tmp_path: Path, arguments: list[str]
) -> None:
    logger = start_logger(
        *[argument.replace("LOG", str(tmp_path / "web.log")) for argument in arguments]
    )

    assert logger.ready == b""
    assert logger.wait() != 0


def test_logger_keeps_order_and_stream_of_every_line(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    path = tmp_path / "web.log"
    logger = start_logger("--log-path", str(path))

    for number in range(2000):
        logger.write(b"out %d\n" % number)
        logger.write(b"err %d\n" % number, logger.stderr)
    code = logger.finish()

    assert code == 0
    assert read_text(path) == "".join(f"out {n}\n" for n in range(2000))
    assert read_text(path, "stderr") == "".join(f"err {n}\n" for n in range(2000))
    times = [record["time"] for record in read_records(path)]
    assert times == sorted(times)
    assert {len(moment) for moment in times} == {len("2026-01-05T10:00:07.000000000Z")}


@pytest.mark.parametrize(
    ("written", "logged"),
    [
        pytest.param(b"\n\n\n", ["\n", "\n", "\n"], id="blank-lines"),
        pytest.param(b"a\nno end", ["a\n", "no end"], id="no-newline-at-the-end"),
        pytest.param(b"\xff\xfe ok\n", ["\ufffd\ufffd ok\n"], id="not-utf-8"),
        pytest.param(b'a\0\t\x1b"\\n\n', ['a\0\t\x1b"\\n\n'], id="nul-and-controls"),
        pytest.param("smörgås 🐟\r\n".encode(), ["smörgås 🐟\r\n"], id="utf-8"),
        pytest.param(b"x" * 16384 + b"\n", ["x" * 16384 + "\n"], id="longest-line"),
        pytest.param(b"x" * 16385 + b"\n", ["x" * 16384, "x\n"], id="one-byte-too-long"),
        pytest.param(b"x" * 40000, ["x" * 16384, "x" * 16384, "x" * 7232], id="long-without-end"),
        pytest.param(
            b"a\n" + "ö".encode() * 10000 + b"\nb\n",
            ["a\n", "ö" * 8192, "ö" * 1808 + "\n", "b\n"],
            id="long-between-short",
        ),
        pytest.param(
            b"x" + "ö".encode() * 8192 + b"\n",
            ["x" + "ö" * 8191, "ö\n"],
            id="no-cut-inside-a-character",
        ),
        pytest.param(b"\x80" * 16385 + b"\n", None, id="long-and-not-utf-8"),
    ],
)
def test_logger_writes_valid_records_whatever_the_container_prints(
    start_logger: StartLogger, tmp_path: Path, written: bytes, logged: list[str] | None
) -> None:
    path = tmp_path / "web.log"
    logger = start_logger("--log-path", str(path))

    logger.write(written)

    assert logger.finish() == 0
    if logged is None:
        assert read_text(path) == written.decode(errors="replace")
    else:
        assert [record["log"] for record in read_records(path)] == logged


def test_logger_writes_a_line_at_once(start_logger: StartLogger, tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    logger = start_logger("--log-path", str(path))

    logger.write(b"now\n")

    wait_for(lambda: path.stat().st_size > 0, "the line", DEADLINE_S)
    assert read_text(path) == "now\n"


def test_logger_keeps_so_many_files_of_such_a_size(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    path = tmp_path / "web.log"
    logger = start_logger("--log-path", str(path), "--max-size", "10k", "--max-file", "3")

    for number in range(1000):
        logger.write(b"line %d\n" % number)
    logger.finish()

    files = [tmp_path / name for name in ("web.log.2", "web.log.1", "web.log")]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(file.stat().st_size <= 10_000 for file in files)
    text = "".join(read_text(file) for file in files).splitlines()
    assert len(text) > 200
    assert text == [f"line {number}" for number in range(1000)][-len(text) :]


def test_logger_keeps_one_file_when_it_may_have_but_one(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    logger = start_logger("--log-path", str(tmp_path / "web.log"), "--max-size", "1k")

    for number in range(100):
        logger.write(b"line %d\n" % number)
    logger.finish()

    assert [path.name for path in tmp_path.iterdir()] == ["web.log"]
    assert read_text(tmp_path / "web.log").endswith("line 99\n")


def test_record_larger_than_a_file_is_kept_whole(start_logger: StartLogger, tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    logger = start_logger("--log-path", str(path), "--max-size", "100", "--max-file", "2")

    logger.write(b"x" * 5000 + b"\n")
    logger.finish()

    assert read_text(path) == "x" * 5000 + "\n"


def test_logger_reads_what_the_pipes_hold_when_sigterm_comes(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    path = tmp_path / "web.log"
    logger = start_logger("--log-path", str(path))
    os.kill(logger.process, signal.SIGSTOP)
    logger.write(b"x" * 60_000 + b"\n")
    logger.write(b"bye\n", logger.stderr)
    os.kill(logger.process, signal.SIGTERM)
    os.kill(logger.process, signal.SIGCONT)
    logger.write(b"one more\n")

    assert logger.finish() == 0
    assert read_text(path) == "x" * 60_000 + "\none more\n"
    assert read_text(path, "stderr") == "bye\n"


def test_logger_ends_soon_after_sigterm_when_a_pipe_stays_open(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    path = tmp_path / "web.log"
    logger = start_logger("--log-path", str(path))
    logger.write(b"begun")
    wait_for(logger.catches_sigterm, "the logger to be up", DEADLINE_S)
    began = time.monotonic()

    os.kill(logger.process, signal.SIGTERM)

    assert logger.wait() == 0
    assert time.monotonic() - began < 8
    assert read_text(path) == "begun"


def test_logger_ends_when_only_the_console_of_a_terminal_ends(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    logger = start_logger("--log-path", str(tmp_path / "web.log"))

    logger.end(logger.stdout)

    assert logger.wait() == 0


def test_logger_goes_on_when_only_the_stderr_of_a_terminal_ends(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    path = tmp_path / "web.log"
    logger = start_logger("--log-path", str(path))
    wait_for(logger.catches_sigterm, "the logger to be up", DEADLINE_S)

    logger.end(logger.stderr)
    with pytest.raises(pytest.fail.Exception):  # it would end after two seconds of silence
        wait_for(logger.has_ended, "the logger to end", 4)
    logger.write(b"still here\n")

    assert logger.finish() == 0
    assert read_text(path) == "still here\n"


def test_what_runc_says_is_written_without_paths_of_the_host(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    path = tmp_path / "web.log"
    flags = ["--log-path", str(path), "--fault-path", f"{tmp_path}/log-faults/web"]

    logger = start_logger(*flags)
    logger.write(f"runc create failed: mount {tmp_path}/etc:/etc\n".encode(), logger.stderr)

    assert logger.finish() == 0
    assert read_text(path, "stderr") == (
        "runc create failed: mount the task's directory/etc:/etc\n"
    )
