"""What systemd and the journal are sent, read at the other end of the socket."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fargate_agent.systemd import (
    MAX_VALUE_BYTES,
    JournalHandler,
    Notifier,
    complain,
    stderr_is_journal,
)

DEADLINE_S = 5.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The end of the socket that systemd would have."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.bind(str(tmp_path / "notify"))
        opened.settimeout(DEADLINE_S)
        yield opened


def address(manager: socket.socket) -> str:
    return str(manager.getsockname())


def received(manager: socket.socket) -> list[str]:
    return manager.recv(65536).decode().split("\n")


def test_life_of_a_service_is_told(manager: socket.socket) -> None:
    notifier = Notifier(address=address(manager))

    notifier.status("waiting")
    notifier.status("waiting")
    notifier.ready()
    notifier.reloading()
    notifier.stopping()

    assert received(manager) == ["STATUS=waiting"]
    assert received(manager) == ["READY=1"]
    reloading, monotonic = received(manager)
    assert reloading == "RELOADING=1"
    assert monotonic.startswith("MONOTONIC_USEC=")
    assert monotonic.partition("=")[2].isdecimal()
    assert received(manager) == ["STOPPING=1"]


def test_watchdog_waits_longer_for_a_program_that_loads_itself_again(
    manager: socket.socket,
) -> None:
    notifier = Notifier(address=address(manager), watchdog_s=30)

    notifier.reloading()
    notifier.ready()

    assert received(manager)[2:] == ["WATCHDOG_USEC=120000000", "WATCHDOG=1"]
    assert received(manager) == ["READY=1", "WATCHDOG_USEC=30000000", "WATCHDOG=1"]


def test_abstract_socket_is_found() -> None:
    name = f"test-notify-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(DEADLINE_S)

        Notifier(address=f"@{name}").ready()

        assert received(manager) == ["READY=1"]


def test_nobody_is_told_where_there_is_no_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)

    notifier = Notifier.from_environment()
    notifier.ready()

    assert (notifier.address, notifier.watchdog_s) == (None, None)


def test_socket_that_has_gone_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier(address=str(tmp_path / "gone")).ready()

    assert "systemd can't be told READY=1" in caplog.text


@pytest.mark.parametrize(
    ("pid", "seconds"),
    [
        pytest.param(None, 30.0, id="for whoever asks"),
        pytest.param(str(os.getpid()), 30.0, id="for us"),
        pytest.param("1", None, id="for another process"),
    ],
)
def test_watchdog_of_the_environment(
    pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)

    assert Notifier.from_environment().watchdog_s == seconds


async def test_start_that_waits_is_given_time_and_is_alive(manager: socket.socket) -> None:
    notifier = Notifier(address=address(manager), watchdog_s=0.03)

    async def never_asked() -> str | None:
        raise AssertionError("nothing is checked before the program is ready")

    job = asyncio.create_task(notifier.keep_alive(never_asked))
    try:
        for _ in range(2):
            beat = await asyncio.to_thread(received, manager)
            assert beat[0] == "WATCHDOG=1"
            assert beat[1].startswith("EXTEND_TIMEOUT_USEC=")
    finally:
        job.cancel()


async def test_watchdog_is_fed_only_while_the_check_finds_nothing(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    faults = iter([None, "it is broken", "it is broken", None])
    asked: list[str | None] = []
    done = asyncio.Event()

    async def check() -> str | None:
        fault = next(faults, None)
        asked.append(fault)
        if len(asked) == 5:
            done.set()
        return fault

    notifier = Notifier(address=address(manager), watchdog_s=0.03, is_ready=True)
    job = asyncio.create_task(notifier.keep_alive(check))
    async with asyncio.timeout(DEADLINE_S):
        await done.wait()
    job.cancel()

    manager.setblocking(False)
    beats = 0
    while True:
        try:
            assert received(manager) == ["WATCHDOG=1"]
        except BlockingIOError:
            break
        beats += 1
    assert asked[1:3] == ["it is broken"] * 2
    assert beats in (len(asked) - 2, len(asked) - 3)  # the last one may have been cut off
    assert caplog.text.count("it is broken") == 1
    assert "systemd restarts this program" in caplog.text


def parse_entry(data: bytes) -> dict[str, str]:
    """Read an entry of the journal's own protocol."""
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + length], rest[8 + length + 1 :]
            assert rest[8 + length : 9 + length] == b"\n"
        else:
            data = rest
        fields[name.decode()] = value.decode()
    return fields


@pytest.fixture
def journal(manager: socket.socket) -> Iterator[logging.Logger]:
    """A log that goes to the journal, of which the test has the other end."""
    handler = JournalHandler(
        "program",
        lambda record: {"FARGATE_TASK": getattr(record, "task", "")},
        Path(address(manager)),
    )
    logger = logging.getLogger(f"test.{secrets.token_hex(4)}")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_line_of_the_log_has_fields(journal: logging.Logger, manager: socket.socket) -> None:
    journal.warning("container %s ended", "web", extra={"task": "0123"})
    journal.info("nothing about a task")

    entry, other = (parse_entry(manager.recv(65536)) for _ in range(2))
    assert entry["MESSAGE"] == "container web ended"
    assert entry["PRIORITY"] == "4"
    assert entry["SYSLOG_IDENTIFIER"] == "program"
    assert entry["FARGATE_TASK"] == "0123"
    assert entry["CODE_FUNC"] == "test_line_of_the_log_has_fields"
    assert other["PRIORITY"] == "6"
    assert "FARGATE_TASK" not in other


def test_traceback_is_one_entry(journal: logging.Logger, manager: socket.socket) -> None:
    try:
        raise ValueError("first\nsecond = 2")
    except ValueError:
        journal.exception("it failed")

    message = parse_entry(manager.recv(65536))["MESSAGE"]
    assert message.startswith("it failed\nTraceback")
    assert message.endswith("second = 2")


def test_long_message_is_cut(journal: logging.Logger, manager: socket.socket) -> None:
    journal.info("x" * 10 * MAX_VALUE_BYTES)

    assert parse_entry(manager.recv(1 << 20))["MESSAGE"] == "x" * MAX_VALUE_BYTES


def test_line_goes_to_stderr_when_the_journal_takes_none(
    journal: logging.Logger, manager: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(address(manager)).unlink()

    journal.info("where to?")

    assert capsys.readouterr().err == "where to?\n"


@pytest.mark.parametrize("value", ["", "1:2", "nonsense"])
def test_stderr_is_no_journal_unless_systemd_says_so(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", value)

    assert not stderr_is_journal()


def test_stderr_that_systemd_names_is_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")

    assert stderr_is_journal()


def test_complaint_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)

    complain("program", "no such file")

    assert capsys.readouterr().err == "program: no such file\n"
