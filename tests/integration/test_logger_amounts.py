"""Loggers of containers that print nothing, one endless line, or a gigabyte."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.fixtures.drivers import Driver
from tests.fixtures.hec import TOKEN
from tests.fixtures.loggers import StartLogger
from tests.fixtures.machine import wait_for
from tests.fixtures.places import PLACES

DEADLINE_S = 30.0
LINE = (b"\0\xff\xc3\xa4" + b"x" * 96) * 100_000
MAX_ANONYMOUS_KB = 16 * 1024


@pytest.mark.parametrize("driver", ["splunk", "syslog", "gelf", "journald"])
@pytest.mark.parametrize(
    ("printed", "arrives"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(LINE + b"\n", LINE, id="line-of-10-mb"),
    ],
)
def test_all_that_a_container_prints_arrives(
    start_logger: StartLogger, tmp_path: Path, driver: str, printed: bytes, arrives: bytes
) -> None:
    with PLACES[driver](tmp_path, "") as place:
        loggers = Driver(start_logger, tmp_path, driver)
        logger = loggers.run(place.flags, {"mode": "blocking"})

        logger.write(printed)
        logger.end()
        code = logger.wait(DEADLINE_S)
        texts = [arrives, arrives.decode(errors="replace").encode()]  # JSON has nothing but UTF-8
        wait_for(lambda: b"".join(place.read()) in texts, "all of it", DEADLINE_S)

        assert code == 0
        assert len(place.read()) == len(arrives) // (16 * 1024) + bool(arrives)
        assert loggers.read_notes() == []


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


@pytest.mark.timeout(300)  # a gigabyte
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
