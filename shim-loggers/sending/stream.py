"""Lines over a connection that carries nothing back, and loses as little of them as it can.

Nobody on the other side says what arrived, but the kernel knows: `SIOCOUTQ` is what the peer has
not acknowledged; on a unix socket, what the other program has not read. Only what is acknowledged
counts as sent; when a connection ends, the rest goes over the next one. So what is lost is what a
program that dies had not read yet, over TCP, and nothing else; some lines may come twice.

Source: tcp(7); unix(7).
"""

import fcntl
import sys
import time

from sending.destination import Destination, TryAgain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from network.connection import Socket
    from reading.deadline import Deadline
    from reading.lines import Lines

SIOCOUTQ = 0x5411
"""Source: tcp(7), linux/sockios.h."""
WANT_NOW = (11, 2)
"""Nothing has come yet: EAGAIN, and ssl.SSL_ERROR_WANT_READ for TLS."""
PATIENCE_S = 120.0
"""How long a connection may stand still; a slow reader opens TCP's window in large steps."""
MIN_LOOK_S, MAX_LOOK_S = 0.0005, 0.05
"""How often is looked what was acknowledged."""
PIECE_BYTES = 64 * 1024
FLUSH_BYTES = 128 * 1024
"""So much at most may come twice."""


class Stream:
    """A connection, made anew when it is needed."""

    def __init__(
        self, connect: "Callable[[], Socket]", deadline: "Deadline", *, encrypted: bool = False
    ) -> None:
        """Take what makes a connection; of an encrypted one only the whole is ever known."""
        self._connect = connect
        self._deadline = deadline
        self._encrypted = encrypted
        self._sock: Socket | None = None
        self._waiting = 0
        self.taken = 0
        """Bytes of what was sent last that have certainly arrived."""

    def open(self) -> None:
        """Connect.

        Raises:
            OSError: nobody is there.
        """
        self._sock = self._connect()

    def send(self, data: bytes) -> None:
        """Send, and wait until everything has arrived.

        Raises:
            OSError: the connection has ended or stands still; see `taken`.
        """
        self.taken = 0
        try:
            if self._sock is not None and _has_ended(self._sock):
                self.close()
            self._sock = self._sock or self._connect()
            self._push(self._sock, data)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Hang up."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _push(self, sock: "Socket", data: bytes) -> None:
        view, sent = memoryview(data), 0
        while sent < len(data):
            sock.settimeout(self._deadline.left_s(PATIENCE_S) or 0.001)
            sent += sock.send(view[sent : sent + PIECE_BYTES])
            self._look(sock, sent, len(data))
        look_s, moved_at = MIN_LOOK_S, time.monotonic()
        while self.taken < len(data):
            if self._deadline.is_over() or time.monotonic() - moved_at > PATIENCE_S:
                raise TimeoutError("timed out")
            time.sleep(look_s)
            look_s = min(look_s * 2, MAX_LOOK_S)
            if self._look(sock, sent, len(data)):
                moved_at = time.monotonic()

    def _look(self, sock: "Socket", sent: int, size: int) -> bool:
        """Note what has arrived; return whether the connection moves."""
        waiting = int.from_bytes(fcntl.ioctl(sock.fileno(), SIOCOUTQ, bytes(4)), sys.byteorder)
        if _has_ended(sock):  # the kernel then forgets what was waiting, though nobody has got it
            raise ConnectionResetError("connection closed by the server")
        taken = sent - waiting
        if self._encrypted and (waiting or sent < size):
            taken = 0
        moves = waiting != self._waiting
        self._waiting = waiting
        self.taken = max(self.taken, taken)
        return moves


def _has_ended(sock: "Socket") -> bool:
    """Whether the other side has hung up; whatever else it says is passed over."""
    sock.settimeout(0)
    try:
        return not sock.recv(4096)
    except OSError as error:
        return error.errno not in WANT_NOW


class StreamDestination(Destination):
    """Makes lines into messages, and sends many of them at once."""

    def __init__(self, stream: Stream, encode: "Callable[[Lines], bytes]", end: bytes) -> None:
        """Take what makes messages, and what ends each of them."""
        self._stream = stream
        self._encode = encode
        self._end = end
        self._data: list[bytes] = []
        self._size = 0

    def open(self) -> None:
        self._stream.open()

    def add(self, lines: "Lines") -> bool:
        messages = self._encode(lines)
        self._data.append(messages)
        self._size += len(messages)
        return self._size >= FLUSH_BYTES

    def flush(self) -> None:
        data = b"".join(self._data)
        self._data = [data]
        try:
            self._stream.send(data)
        except OSError as error:
            begin = data.rfind(self._end, 0, self._stream.taken) + 1
            self._data = [data[begin:]]
            raise TryAgain(str(error)) from error
        self._data = []
        self._size = 0

    def close(self) -> None:
        self._stream.close()
