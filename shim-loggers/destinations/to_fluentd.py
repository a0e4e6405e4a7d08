"""Sends lines to fluentd or Fluent Bit by the Forward protocol, over TCP, TLS or a unix socket.

The last message of a chunk asks for an acknowledgement, and the chunk is sent until that comes; it
may arrive twice. Without acknowledgements nobody says what arrived: when a connection breaks, the
chunk that was being written is sent again, and what lay unread at the other side is lost.

Source: fluent/fluentd wiki, "Forward Protocol Specification v1"; moby, daemon/logger/fluentd;
fluent/fluent-logger-golang.
"""

import posix
import select
import time

from network.connection import Connector, make_tls_context, parse_address
from reading.flags import BINARY, parse_bool, parse_duration, parse_size
from sending.destination import Destination, Setup, TryAgain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from network.connection import Address, Socket
    from network.tls import Context
    from reading.lines import Lines

SCHEMES = ("tcp", "tls", "unix")
PORT = 24224
SHORT_ID_CHARS = 12
"""Of the container's id, which is the tag by default. Source: moby, as below."""
DEFAULT_LIMIT = "1048576"
DEFAULT_TIMEOUT = "5s"
MIN_INTERVAL_S = 0.1
MAX_INTERVAL_S = 10.0
"""Source: moby, daemon/logger/fluentd/fluentd.go."""
TIMEOUTS_PER_ACK = 12
"""How long an acknowledgement may take, in time-outs of writing: 60 s if these are 5 s."""
MAX_PATIENCE = 128
"""Each time that the other side was too slow it gets twice as long, up to so many times: a large
message to a slow one would otherwise be sent again and again."""
CHUNK_LINES = 1024
CHUNK_BYTES = 64 * 1024
"""What is sent at once; the bytes are those of the container."""
MAX_ANSWER_BYTES = 64 * 1024
NO_OPTIONS = b"\x80"


class Fluentd(Destination):
    """One connection, opened when it is needed."""

    def __init__(self, setup: Setup) -> None:
        flags = setup.flags
        self._deadline = setup.deadline
        self._address = parse_address(
            flags.get("fluentd-address", f"127.0.0.1:{PORT}"), SCHEMES, "tcp", PORT
        )
        self._connector = Connector(flags, setup.deadline)
        self._tls = _make_tls(self._address, flags)
        self._async = parse_bool(flags, "fluentd-async", default=False)
        self._interval_s = _parse_interval(flags)
        self._timeout_s = parse_duration(flags.get("fluentd-write-timeout", DEFAULT_TIMEOUT))
        self._timeout_s = self._timeout_s or parse_duration(DEFAULT_TIMEOUT)
        blocking = flags.get("mode", "blocking") == "blocking"
        self._wants_acks = parse_bool(flags, "fluentd-request-ack", default=blocking)
        self._gets_acks = "fluentd-request-ack" in flags
        """Whether the other side is known, or said, to acknowledge."""
        self._asks = self._wants_acks
        """Whether this connection is asked for acknowledgements."""
        self._reports = setup.reports
        self.max_waiting_lines = _parse_limit(flags)
        self._entries = Entries(flags)
        self._waiting: list[Lines] = []
        self._waiting_bytes = 0
        self._sent = 0
        """So many lines of the first ones were sent."""
        self._patience = 1
        self._sock: Socket | None = None
        self._connected_at = 0.0

    def open(self) -> None:
        if not self._async:
            self._connect()

    def add(self, lines: "Lines") -> bool:
        self._waiting.append(lines)
        self._waiting_bytes += len(lines.text)
        return self._waiting_bytes >= CHUNK_BYTES

    def flush(self) -> None:
        sent = 0
        try:
            while self._waiting:
                entries, count = self._render_chunk()
                self._send_chunk(entries)
                self._forget(count)
                sent += count
        except OSError as error:
            if isinstance(error, TimeoutError):
                self._patience = min(self._patience * 2, MAX_PATIENCE)
            self.close()
            begins = self._async and not self._connected_at
            raise TryAgain(f"{self._address}: {error}", sent, expected=begins) from error
        self._waiting_bytes = 0

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _render_chunk(self) -> tuple[list[bytes], int]:
        """Return the next lines as they are sent, and how many they are."""
        entries: list[bytes] = []
        count, size, start = 0, 0, self._sent
        for lines in self._waiting:
            texts = lines.text.split(b"\n")[start : start + CHUNK_LINES - count]
            entries += self._entries.render(lines, texts)
            count += len(texts)
            size += len(lines.text)
            start = 0
            if count >= CHUNK_LINES or size >= CHUNK_BYTES:
                break
        return entries, count

    def _forget(self, count: int) -> None:
        """So many lines have been sent."""
        done = 0
        while count and count >= (left := self._waiting[done].count() - self._sent):
            count -= left
            self._sent = 0
            done += 1
        self._sent += count
        del self._waiting[:done]

    def _send_chunk(self, entries: list[bytes]) -> None:
        sock = self._sock
        if sock is None or self._is_stale(sock):
            self.close()
            sock = self._connect()
        if self._asks:
            from binascii import b2a_base64

            chunk = b2a_base64(posix.urandom(16), newline=False)
            entries[-1] = b"\x81" + _pack(b"chunk") + _pack(chunk)
            self._send(sock, b"".join(entries))
            self._wait_for(chunk, sock)
        else:
            self._send(sock, b"".join(entries))
        self._patience = 1

    def _wait_for(self, chunk: bytes, sock: "Socket") -> None:
        """Wait until a chunk is acknowledged, and with it what was sent before."""
        timeouts = TIMEOUTS_PER_ACK if self._gets_acks else 1
        until = time.monotonic() + timeouts * self._timeout_s * self._patience
        answer = b""
        # The id is so random that the answer, a map of one pair, needs no more to be read.
        while chunk not in answer:
            sock.settimeout(self._deadline.left_s(until - time.monotonic()) or 0.001)
            try:
                more = sock.recv(4096)
            except TimeoutError:
                if self._gets_acks or self._deadline.is_over():
                    raise
                self._asks = False
                self._reports.trouble(f"{self._address} acknowledges nothing")
                return
            if not more:
                raise ConnectionResetError("closed before it had acknowledged all")
            answer = answer[-MAX_ANSWER_BYTES:] + more
        self._gets_acks = True

    def _send(self, sock: "Socket", data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            sock.settimeout(self._deadline.left_s(self._timeout_s * self._patience) or 0.001)
            rest = rest[sock.send(rest) :]

    def _connect(self) -> "Socket":
        address = self._address
        if address.path:
            self._sock = self._connector.connect_unix(address.path, follow=False)
        else:
            sock = self._connector.connect(address.host, address.port)
            secure = self._connector.secure
            self._sock = secure(sock, address.host, self._tls) if self._tls else sock
        self._connected_at = time.monotonic()
        self._asks = self._wants_acks
        return self._sock

    def _is_stale(self, sock: "Socket") -> bool:
        """Whether a new connection is due, or the other side has closed this one."""
        if time.monotonic() - self._connected_at > self._interval_s:
            return True
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        if not poller.poll(0):
            return False
        sock.settimeout(0.001)
        try:
            return not sock.recv(4096)
        except TimeoutError:
            return False  # TLS has its own traffic


class Entries:
    """How lines are written in MessagePack: a message each, of tag, time, record and options."""

    def __init__(self, flags: dict[str, str]) -> None:
        self._head = b"\x94" + _pack(_render_tag(flags).encode())
        self._sub_second = parse_bool(flags, "fluentd-sub-second-precision", default=True)
        self._record = b"".join(
            _pack(text.encode())
            for name in ("container-id", "container-name")
            for text in (name.replace("-", "_"), flags[name])
        )

    def render(self, lines: "Lines", texts: list[bytes]) -> list[bytes]:
        """Return four pieces for each line, the last of which is its map of options, empty.

        The record is a map of strings.
        """
        fields = self._record + _pack(b"source") + _pack(lines.stream.encode())
        size = 4
        if lines.partial is not None:
            name, number, last = lines.partial
            size = 8
            partial = {"message": "true", "id": name, "ordinal": str(number)}
            for key, text in {**partial, "last": "true" if last else "false"}.items():
                fields += _pack(f"partial_{key}".encode()) + _pack(text.encode())
        record = bytes([0x80 + size]) + fields + _pack(b"log")
        head = self._head + self._render_time(lines.time_ns) + record
        return [piece for text in texts for piece in (head, _pack_head(text), text, NO_OPTIONS)]

    def _render_time(self, time_ns: int) -> bytes:
        """Make the extension `EventTime`, or a number of seconds."""
        seconds, nanoseconds = divmod(time_ns, 10**9)
        if self._sub_second:
            return b"\xd7\0" + seconds.to_bytes(4) + nanoseconds.to_bytes(4)
        return b"\xce" + seconds.to_bytes(4)


def make(setup: Setup) -> Fluentd:
    """Make the destination.

    Raises:
        ValueError: a flag's value is wrong.
        OSError: the CA's certificate can't be read.
    """
    return Fluentd(setup)


def _pack(text: bytes) -> bytes:
    return _pack_head(text) + text


def _pack_head(text: bytes) -> bytes:
    """Return what goes before a string; what isn't UTF-8 is sent as it is."""
    size = len(text)
    if size < 32:
        return b"%c" % (0xA0 + size)
    return b"\xd9%c" % size if size < 256 else b"\xda" + size.to_bytes(2)


def _render_tag(flags: dict[str, str]) -> str:
    if "fluentd-tag" not in flags:
        return flags["container-id"][:SHORT_ID_CHARS]
    from sending.tags import render_tag

    return render_tag(flags, "fluentd-tag")


def _make_tls(address: "Address", flags: dict[str, str]) -> "Context | None":
    ca_path = flags.get("fluentd-capath", "")
    return make_tls_context(ca_path) if address.scheme == "tls" else None


def _parse_limit(flags: dict[str, str]) -> int:
    """Source: moby, daemon/logger/fluentd/fluentd.go: a number of messages, read as a size."""
    limit = flags.get("fluentd-buffer-limit", DEFAULT_LIMIT)
    return parse_size(DEFAULT_LIMIT if limit == "-1" else limit, BINARY)


def _parse_interval(flags: dict[str, str]) -> float:
    text = flags.get("fluentd-async-reconnect-interval", "0")
    seconds = parse_duration(text)
    if seconds and not MIN_INTERVAL_S <= seconds <= MAX_INTERVAL_S:
        raise ValueError(
            f"invalid value for fluentd-async-reconnect-interval: value ({text}) must be between "
            "100ms and 10s"
        )
    return seconds or float("inf")
