"""What a logger says about itself, and where."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.local_copy import LocalCopy
from sending.reports import MAX_TOLD, Reports


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        sock.bind(str(tmp_path / "journal"))
        sock.setblocking(False)
        yield sock


def make_reports(directory: Path) -> tuple[Reports, LocalCopy]:
    copy = LocalCopy(str(directory / "web.log"), 10**9, 1)
    return Reports("splunk", "0123", copy, str(directory / "journal")), copy


def read_all(journal: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(journal.recv(65536).decode())
        except BlockingIOError:
            return found


def read_notes(directory: Path) -> list[str]:
    lines = (directory / "web.log").read_text().splitlines()
    return [json.loads(line)["log"] for line in lines]


def test_loss_is_an_error_of_one_line_in_the_journal_and_in_the_copy(
    journal: socket.socket, tmp_path: Path
) -> None:
    reports, copy = make_reports(tmp_path)

    reports.loss("refused:\nPRIORITY=0\nMESSAGE=x")
    copy.close()

    (entry,) = read_all(journal)
    assert entry == (
        "MESSAGE=splunk: refused: PRIORITY=0 MESSAGE=x\nPRIORITY=3\n"
        "SYSLOG_IDENTIFIER=shim-logger\nCONTAINER_ID=0123\n"
    )
    assert read_notes(tmp_path) == ["splunk: refused: PRIORITY=0 MESSAGE=x\n"]


def test_trouble_that_goes_on_is_told_once(journal: socket.socket, tmp_path: Path) -> None:
    reports, _ = make_reports(tmp_path)

    reports.trouble("no answer")
    reports.trouble("no answer")

    assert len(read_all(journal)) == 1


def test_journal_is_not_flooded_and_the_copy_has_everything(
    journal: socket.socket, tmp_path: Path
) -> None:
    reports, copy = make_reports(tmp_path)
    told = []

    for number in range(MAX_TOLD + 40):
        reports.loss(f"refused {number}")
        told += read_all(journal)
    copy.close()

    assert len(told) == MAX_TOLD
    assert len(read_notes(tmp_path)) == MAX_TOLD + 40
