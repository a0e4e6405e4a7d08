"""The least that a destination can do: take what comes, and count the lines in it.

    python -m bench.sinks KIND PLACE COUNTS [CERTIFICATE]

KIND is `tcp`, `forward` (fluentd's protocol), `unix` (the same there) or `http`, or for datagrams
`unixgram` or `udp`, which may be compressed: there each counts as a line. PLACE is the path of a
unix socket. CERTIFICATE is a file that has its key too: streams are then those of TLS. What has
come is counted in the file COUNTS, which whoever has started this maps too.
Real destinations do more for a line than a logger does, so they would be what is measured.
"""

import mmap
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MARK = b"~#~"
"""Stands in each line once, and nowhere else."""
READ_BYTES = 1024 * 1024
BUFFER_BYTES = 8 * 1024 * 1024
ASKS = re.compile(rb"\xa5chunk\xb8(.{24})", re.DOTALL)
"""How a message of fluentd's protocol asks to be acknowledged; 24 characters say which it is."""
ASK_BYTES = 31
KEYS = b'{"AccessKeyId":"bench","SecretAccessKey":"bench","Token":"bench"}'
"""What the endpoint of credentials answers, which is the same server."""


@dataclass
class Sink:
    """A running one, in a process of its own."""

    process: subprocess.Popen[str]
    counts: memoryview
    port: int
    path: Path

    @property
    def lines(self) -> int:
        """How many lines have come."""
        return int(self.counts[0])

    @property
    def last_s(self) -> float:
        """When the last one did, as `time.monotonic` has it."""
        return int(self.counts[1]) / 1e9

    def forget(self) -> None:
        """Count anew."""
        self.counts[0] = 0

    def wait_for(self, lines: int, within_s: float) -> float:
        """Wait for so many lines; return when the last one came.

        Raises:
            TimeoutError: some didn't come.
        """
        deadline_s = time.monotonic() + within_s
        while self.lines < lines:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{self.lines} of {lines} lines came")
            time.sleep(0.002)
        return self.last_s

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Take nothing meanwhile."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def running_sink(
    kind: str, root: Path, path: Path | None = None, certificate: Path | None = None
) -> Iterator[Sink]:
    """Start a sink; a unix socket is made at `path`."""
    place = path or root / (f"{kind}.sock" if certificate is None else f"{kind}-tls.sock")
    counts = root / f"{kind}-{place.name}.counts"
    counts.write_bytes(bytes(16))
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.sinks", kind, place, counts, *filter(None, [certificate])],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    try:
        if process.stdout is None or not (port := process.stdout.readline()):
            raise RuntimeError(f"the sink {kind} did not start")
        yield Sink(process, _map(counts), int(port), place)
    finally:
        process.kill()
        process.wait(30)


def _map(path: Path) -> memoryview:
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 16)).cast("Q")


class Counter:
    """Counts lines in what comes in pieces."""

    def __init__(self, counts: memoryview) -> None:
        self._counts = counts
        self._lock = threading.Lock()

    def take(self, data: bytes | bytearray) -> None:
        """Count what is in it."""
        self.add(data.count(MARK))

    def add(self, lines: int) -> None:
        """So many have come."""
        if lines:
            with self._lock:
                self._counts[0] += lines
                self._counts[1] = time.monotonic_ns()


def _read_stream(sock: socket.socket, counter: Counter) -> None:
    rest = b""
    while data := sock.recv(READ_BYTES):
        data = rest + data
        counter.take(data)
        rest = data[1 - len(MARK) :]  # too short to be counted twice


def _read_forward(sock: socket.socket, counter: Counter) -> None:
    counted, asked = b"", b""
    while data := sock.recv(READ_BYTES):
        counter.take(counted + data)
        counted = (counted + data)[1 - len(MARK) :]
        data = asked + data
        end = 0
        for ask in ASKS.finditer(data):
            sock.sendall(b"\x81\xa3ack\xb8" + ask[1])
            end = ask.end()
        asked = data[max(end, len(data) - ASK_BYTES + 1) :]


def _read_datagrams(sock: socket.socket, counter: Counter) -> None:
    while True:
        counter.take(sock.recv(READ_BYTES))


def _count_datagrams(sock: socket.socket, counter: Counter) -> None:
    while sock.recv(READ_BYTES):
        counter.add(1)


def _serve_http(sock: socket.socket, counter: Counter) -> None:
    data = bytearray()
    while True:
        while (end := data.find(b"\r\n\r\n") + 4) < 4:
            if not (more := sock.recv(READ_BYTES)):
                return
            data += more
        head = bytes(data[:end]).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        size = end + int(length or b"0")
        while len(data) < size:
            data += sock.recv(READ_BYTES)
        counter.take(data[:size])
        del data[:size]
        answer = KEYS if head.startswith(b"get ") else b"{}"
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))


SERVES = {
    "tcp": _read_stream,
    "forward": _read_forward,
    "unix": _read_forward,
    "http": _serve_http,
}


def _main(kind: str, place: str, counts: str, certificate: str = "") -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
    if tls is not None:
        tls.load_cert_chain(certificate)
    counter = Counter(_map(Path(counts)))
    is_stream, is_unix = kind in SERVES, kind.startswith("unix")
    sock = socket.socket(
        socket.AF_UNIX if is_unix else socket.AF_INET,
        socket.SOCK_STREAM if is_stream else socket.SOCK_DGRAM,
    )
    # beyond what an ordinary program may have; what isn't allowed is left
    with suppress(PermissionError):
        sock.setsockopt(socket.SOL_SOCKET, 33, BUFFER_BYTES)  # SO_RCVBUFFORCE
    if is_unix:
        Path(place).unlink(missing_ok=True)
    sock.bind(place if is_unix else ("127.0.0.1", 0))
    if is_stream:
        sock.listen(64)
    print(0 if is_unix else sock.getsockname()[1], flush=True)
    if kind == "udp":
        _count_datagrams(sock, counter)
    if not is_stream:
        _read_datagrams(sock, counter)
    while True:
        taken = sock.accept()[0]
        threading.Thread(target=_serve, args=[kind, taken, counter, tls], daemon=True).start()


def _serve(kind: str, sock: socket.socket, counter: Counter, tls: ssl.SSLContext | None) -> None:
    with suppress(OSError), tls.wrap_socket(sock, server_side=True) if tls else sock as taken:
        SERVES[kind](taken, counter)


if __name__ == "__main__":
    _main(*sys.argv[1:])
