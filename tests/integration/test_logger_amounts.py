"""Loggers of containers that print nothing, one endless line, or a gigabyte; and a killed one."""

import fcntl
import json
import os
import signal
import socket
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.drivers import Driver
from tests.fixtures.hec import TOKEN, hec_server
from tests.fixtures.loggers import StartLogger
from tests.fixtures.machine import wait_for
from tests.fixtures.sinks import datagram_sink, stream_sink

DEADLINE_S = 30.0
LINE = (b"\0\xff\xc3\xa4" + b"x" * 96) * 100_000
MAX_ANONYMOUS_KB = 16 * 1024

Place = tuple[dict[str, str], Callable[[], list[bytes]]]
"""Flags that lead to a destination, and what has arrived there, in the order of arrival."""


@contextmanager
def splunk(_: Path) -> Iterator[Place]:
    with hec_server() as hec:
        flags = {"splunk-url": hec.url, "splunk-token": TOKEN}
        yield flags, lambda: [line.encode() for line in hec.lines()]


@contextmanager
def syslog(directory: Path) -> Iterator[Place]:
    place = directory / "syslog"
    with stream_sink(place) as sink:
        flags = {"syslog-address": f"unix://{place}", "syslog-format": "rfc5424"}
        yield flags, lambda: [text.partition(b" - ")[2] for text in sink.split(b"\n")]


@contextmanager
def gelf(_: Path) -> Iterator[Place]:
    with stream_sink() as sink:
        yield (
            {"gelf-address": f"tcp://127.0.0.1:{sink.port}"},
            lambda: [str(json.loads(text)["short_message"]).encode() for text in sink.split(b"\0")],
        )


@contextmanager
def journald(directory: Path) -> Iterator[Place]:
    place = directory / "journal"
    with datagram_sink(place) as sink:
        yield (
            {"journald-socket": str(place)},
            lambda: [text.partition(b"MESSAGE=")[2].partition(b"\n")[0] for text in sink.messages],
        )


@pytest.mark.parametrize("destination", [splunk, syslog, gelf, journald])
@pytest.mark.parametrize(
    ("printed", "arrives"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(LINE + b"\n", LINE, id="line-of-10-mb"),
    ],
)
def test_all_that_a_container_prints_arrives(
    start_logger: StartLogger, tmp_path: Path, destination: Any, printed: bytes, arrives: bytes
) -> None:
    with destination(tmp_path) as (flags, read):
        driver = Driver(start_logger, tmp_path, destination.__name__)
        logger = driver.run(flags, {"mode": "blocking"})

        logger.write(printed)
        logger.end()
        code = logger.wait(DEADLINE_S)
        texts = [arrives, arrives.decode(errors="replace").encode()]  # JSON has nothing but UTF-8
        wait_for(lambda: b"".join(read()) in texts, "all of it", DEADLINE_S)

        assert code == 0
        assert len(read()) == len(arrives) // (16 * 1024) + bool(arrives)
        assert driver.read_notes() == []


@dataclass
class Counter:
    """Counts lines by a mark that each has once."""

    mark: bytes
    lines: int = 0

    def take(self, listener: socket.socket) -> None:
        """Read what comes over one connection, or as datagrams until an empty one."""
        if listener.type == socket.SOCK_DGRAM:
            while data := listener.recv(1 << 16):
                self.lines += data.startswith(self.mark)
            return
        connection, _ = listener.accept()
        rest = b""
        with connection:
            while data := connection.recv(1 << 20):
                data = rest + data
                self.lines += data.count(self.mark)
                rest = data[len(data) - len(self.mark) + 1 :]


@contextmanager
def counting_socket(listener: socket.socket, mark: bytes) -> Iterator[Counter]:
    with listener:
        counter = Counter(mark)
        thread = threading.Thread(target=counter.take, args=(listener,))
        thread.start()
        yield counter
        if listener.type == socket.SOCK_DGRAM:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.connect(listener.getsockname())
                end.send(b"")
        thread.join(DEADLINE_S)


def listen(place: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(str(place))
    if kind == socket.SOCK_STREAM:
        listener.listen()
    return listener


@contextmanager
def counting_server(mark: bytes) -> Iterator[tuple[str, Counter]]:
    """Take every request, and hand out keys."""
    counter = Counter(mark)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer is one packet: a second one would wait for the first

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            counter.lines += body.count(mark)
            self._answer(b"{}")

        def do_GET(self) -> None:
            self._answer(b'{"AccessKeyId": "a", "SecretAccessKey": "b"}')

        def do_OPTIONS(self) -> None:
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", counter
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def count_fluentd(directory: Path) -> Iterator[tuple[dict[str, str], Counter]]:
    with counting_socket(listen(directory / "socket"), b"\xa3log\xda") as counter:
        flags = {"fluentd-address": f"unix://{directory}/socket", "fluentd-request-ack": "false"}
        yield flags, counter


@contextmanager
def count_syslog(directory: Path) -> Iterator[tuple[dict[str, str], Counter]]:
    with counting_socket(listen(directory / "socket"), b"]: x") as counter:
        yield {"syslog-address": f"unix://{directory}/socket"}, counter


@contextmanager
def count_gelf(_: Path) -> Iterator[tuple[dict[str, str], Counter]]:
    listener = socket.create_server(("127.0.0.1", 0))
    with counting_socket(listener, b'"short_message":"x') as counter:
        yield {"gelf-address": f"tcp://127.0.0.1:{listener.getsockname()[1]}"}, counter


@contextmanager
def count_journald(directory: Path) -> Iterator[tuple[dict[str, str], Counter]]:
    place = directory / "socket"
    with counting_socket(listen(place, socket.SOCK_DGRAM), b"MESSAGE=x") as counter:
        yield {"journald-socket": str(place)}, counter


@contextmanager
def count_awslogs(_: Path) -> Iterator[tuple[dict[str, str], Counter]]:
    with counting_server(b'"message"') as (url, counter):
        names = {"awslogs-group": "g", "awslogs-stream": "s", "awslogs-region": "us-east-1"}
        keys = {"awslogs-credentials-endpoint": url + "/keys"}
        yield {**names, **keys, "awslogs-endpoint": url}, counter


@contextmanager
def count_splunk(_: Path) -> Iterator[tuple[dict[str, str], Counter]]:
    with counting_server(b'"line"') as (url, counter):
        yield {"splunk-url": url, "splunk-token": TOKEN}, counter


COUNTERS = {
    "awslogs": count_awslogs,
    "fluentd": count_fluentd,
    "gelf": count_gelf,
    "journald": count_journald,
    "splunk": count_splunk,
    "syslog": count_syslog,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("driver", COUNTERS)
def test_all_lines_of_1_gb_arrive_and_memory_stays_small(
    start_logger: StartLogger, tmp_path: Path, driver: str
) -> None:
    block = (b"x" * 1023 + b"\n") * 1024
    loggers = Driver(start_logger, tmp_path, driver)
    with COUNTERS[driver](tmp_path) as (flags, arrived):
        logger = loggers.run({**flags, "copy-max-size": "10m"}, {"mode": "blocking"})

        for _ in range(1024):
            logger.write(block)
        memory_kb = read_anonymous_kb(logger.process)
        logger.end()
        code = logger.wait(DEADLINE_S)

    assert code == 0
    assert arrived.lines == 1024 * 1024  # sent as many, dropped none
    assert loggers.read_notes() == []
    assert memory_kb < MAX_ANONYMOUS_KB


def read_anonymous_kb(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.partition("Anonymous:")[2].split()[0])


def test_logger_that_is_killed_loses_what_it_held_and_no_more(
    start_logger: StartLogger, tmp_path: Path
) -> None:
    with stream_sink(tmp_path / "syslog") as sink:
        sink.reads.clear()
        loggers = Driver(start_logger, tmp_path, "syslog")
        flags = {"syslog-address": f"unix://{tmp_path}/syslog", "syslog-format": "rfc5424"}
        logger = loggers.run({**flags, "max-buffer-size": "64k"}, {"mode": "blocking"})
        printed: list[bytes] = []

        def print_lines() -> None:
            with suppress(BrokenPipeError):
                for number in range(100_000):
                    logger.write(b"line %095d\n" % number)
                    printed.append(b"line %095d" % number)

        container = threading.Thread(target=print_lines)
        container.start()
        wait_for(lambda: read_waiting_bytes(logger.stdout) > 60_000, "a full pipe", DEADLINE_S)
        os.kill(logger.process, signal.SIGKILL)
        container.join(DEADLINE_S)
        sink.reads.set()
        held = 3 * 64 * 1024 // 101  # the pipe, what was read from it, and the buffer
        wait_for(lambda: len(sink.split(b"\n")) >= len(printed) - held, "the rest", DEADLINE_S)

        arrived = [text.partition(b" - ")[2] for text in sink.split(b"\n")]
        assert arrived == printed[: len(arrived)]
        assert 0 < len(printed) - len(arrived) <= held


def read_waiting_bytes(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
