"""The logger with the driver `journald`, in front of a socket, and of the real journal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.drivers import Driver, numbered, write_lines
from tests.fixtures.journal import PROGRAM, Journal, running_journal
from tests.fixtures.loggers import Logger, StartLogger
from tests.fixtures.machine import wait_for
from tests.fixtures.metadata import metadata_server
from tests.fixtures.sinks import DatagramSink, datagram_sink

DEADLINE_S = 15.0


class Journald(Driver):
    def __init__(self, start: StartLogger, directory: Path) -> None:
        super().__init__(start, directory, "journald")
        self.socket = directory / "socket"

    def start(self, **options: str) -> Logger:
        told = {"container-image-name": "busybox:1", "journald-socket": str(self.socket)}
        return self.run(told, options)


@pytest.fixture
def journald(start_logger: StartLogger, tmp_path: Path) -> Journald:
    return Journald(start_logger, tmp_path)


@pytest.fixture
def journal(journald: Journald) -> Iterator[DatagramSink]:
    with datagram_sink(journald.socket) as sink:
        yield sink


def read_fields(message: bytes) -> dict[str, bytes]:
    """Source: systemd.io, "Native Journal Protocol"."""
    fields = {}
    while message:
        line, _, message = message.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(message[:8], "little")
            value, message = message[8 : 8 + size], message[9 + size :]
        assert name.decode() not in fields
        fields[name.decode()] = value
    return fields


def read_messages(journal: DatagramSink) -> list[str]:
    return [read_fields(message)["MESSAGE"].decode() for message in journal.messages]


def test_entry_has_the_fields_of_docker(journald: Journald, journal: DatagramSink) -> None:
    logger = journald.start(
        tag="{{.Name}}\nof {{.ImageName}}",
        labels="com.example.tier,1st,_",
        container_labels='{"com.example.tier": "front", "1st": "x", "_": "y"}',
    )

    logger.write(b"x=\xff\0y\n")
    logger.write(b"trouble\n", to=logger.stderr)
    logger.finish()
    wait_for(lambda: len(journal.messages) == 2, "the entries", DEADLINE_S)

    first, second = sorted(map(read_fields, journal.messages), key=lambda entry: entry["MESSAGE"])[
        ::-1
    ]
    assert (second["MESSAGE"], second["PRIORITY"]) == (b"trouble", b"3")
    moment = first.pop("SYSLOG_TIMESTAMP").decode()
    assert moment[:17] == second["SYSLOG_TIMESTAMP"].decode()[:17]
    assert moment.endswith("Z")
    assert first == {
        "MESSAGE": b"x=\xff\0y",
        "PRIORITY": b"6",
        "CONTAINER_ID": b"0123456789ab",
        "CONTAINER_ID_FULL": b"0123456789abcdef0123456789abcdef",
        "CONTAINER_NAME": b"web",
        "CONTAINER_TAG": b"web\nof busybox:1",
        "SYSLOG_IDENTIFIER": b"web\nof busybox:1",
        "IMAGE_NAME": b"busybox:1",
        "COM_EXAMPLE_TIER": b"front",
        "ST": b"x",
    }


def test_pieces_of_a_long_line_say_so(journald: Journald, journal: DatagramSink) -> None:
    logger = journald.start()

    logger.write(b"x" * 40_000 + b"\nshort\n")
    logger.finish()
    wait_for(lambda: len(journal.messages) == 4, "the entries", DEADLINE_S)

    *pieces, short = map(read_fields, journal.messages)
    assert [len(piece["MESSAGE"]) for piece in pieces] == [16_384, 16_384, 7_232]
    assert [piece["CONTAINER_PARTIAL_ORDINAL"] for piece in pieces] == [b"1", b"2", b"3"]
    assert [piece["CONTAINER_PARTIAL_LAST"] for piece in pieces] == [b"false", b"false", b"true"]
    assert [piece.get("CONTAINER_PARTIAL_MESSAGE") for piece in pieces] == [b"true", b"true", None]
    assert len({piece["CONTAINER_PARTIAL_ID"] for piece in pieces}) == 1
    assert not any(name.startswith("CONTAINER_PARTIAL") for name in short)


def test_nothing_is_lost_while_the_journal_is_busy(
    journald: Journald, journal: DatagramSink
) -> None:
    journal.reads.clear()
    logger = journald.start(mode="blocking")
    write_lines(logger, numbered(5000))

    journal.reads.set()
    code = logger.finish()
    wait_for(lambda: len(journal.messages) >= 5000, "the entries", DEADLINE_S)

    assert code == 0
    assert read_messages(journal) == numbered(5000)  # sent 5,000, arrived 5,000, dropped 0
    assert journald.read_notes() == []


def test_nothing_is_lost_while_the_journal_is_gone(journald: Journald) -> None:
    with datagram_sink(journald.socket):
        logger = journald.start(mode="blocking")
    journald.socket.unlink()
    write_lines(logger, numbered(2000))
    wait_for(lambda: bool(journald.read_notes()), "the outage to be told", DEADLINE_S)

    with datagram_sink(journald.socket) as journal:
        code = logger.finish()
        wait_for(lambda: len(journal.messages) >= 2000, "the entries", DEADLINE_S)

        assert code == 0
        assert read_messages(journal) == numbered(2000)  # sent 2,000, arrived 2,000, dropped 0


def test_entry_that_is_too_long_for_a_datagram_comes_as_a_file(
    journald: Journald, journal: DatagramSink
) -> None:
    with metadata_server({"/env": {"env": {"LONG": "y" * 600_000}}}) as url:
        logger = journald.start(env="LONG", container_env_endpoint=url + "/env")

    write_lines(logger, ["x"])
    logger.finish()
    wait_for(lambda: bool(journal.files), "the file", DEADLINE_S)

    entry = read_fields(journal.files[0])
    assert (entry["MESSAGE"], entry["LONG"]) == (b"x", b"y" * 600_000)
    assert journald.read_notes() == []


def test_container_does_not_start_without_a_journal(journald: Journald) -> None:
    logger = journald.start()

    assert logger.ready == b""
    assert journald.fault.read_text() == "journald is not enabled on this host"


@pytest.fixture
def real_journal(journald: Journald) -> Iterator[Journal]:
    if not PROGRAM.exists():
        pytest.skip("this machine has no systemd")
    with running_journal() as journal:
        journald.socket = journal.socket
        yield journal


@pytest.mark.root
def test_every_line_is_in_the_journal_in_order(journald: Journald, real_journal: Journal) -> None:
    logger = journald.start(tag="{{.Name}}")

    write_lines(logger, numbered(20_000))
    logger.write(b"trouble\n", to=logger.stderr)
    logger.finish()
    wait_for(
        lambda: len(real_journal.read("SYSLOG_IDENTIFIER=web", "PRIORITY=6")) >= 20_000,
        "the entries",
        DEADLINE_S,
    )

    entries = real_journal.read("SYSLOG_IDENTIFIER=web", "PRIORITY=6")
    assert [entry["MESSAGE"] for entry in entries] == numbered(20_000)  # all arrived, 0 dropped
    errors = real_journal.read("CONTAINER_ID=0123456789ab", "PRIORITY=3")
    assert [entry["MESSAGE"] for entry in errors] == ["trouble"]


@pytest.mark.root
def test_journal_takes_an_entry_as_a_file(journald: Journald, real_journal: Journal) -> None:
    with metadata_server({"/env": {"env": {"LONG": "y" * 600_000}}}) as url:
        logger = journald.start(env="LONG", container_env_endpoint=url + "/env")

    logger.write(b"a\xffb\0c\n")
    logger.finish()
    wait_for(lambda: bool(real_journal.read("CONTAINER_NAME=web")), "the entry", DEADLINE_S)

    (entry,) = real_journal.read("CONTAINER_NAME=web")
    assert entry["MESSAGE"] == list(b"a\xffb\0c")
    assert entry["LONG"] is None
