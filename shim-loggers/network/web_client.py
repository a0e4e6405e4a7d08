"""HTTP/1.1 over one connection that is kept: what a log driver needs of it, and no more.

The standard library's client and what it loads take 4 MB and 30 ms, more than all of a logger.
Source: RFC 9112.
"""

import posix

from network.connection import Connector, make_tls_context
from reading.deadline import Deadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from network.connection import Socket
    from network.tls import Context

ANSWER_S = 30.0
"""For an answer to come, or for a part of a request to be taken."""
MAX_ANSWER_S = 1920.0
"""Each time that a server was too slow it gets twice as long, up to this: a large request to a slow
server would otherwise never get through."""
MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 1024 * 1024
PORTS = {"http": 80, "https": 443}


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        """Names in lower case."""
        self.body = body


class WebClient:
    """Talks to one server.

    A request that a kept connection doesn't take is sent once more on a new one.
    """

    def __init__(
        self,
        url: str,
        connector: Connector,
        deadline: Deadline,
        *,
        ca_path: str = "",
        verify: bool = True,
    ) -> None:
        """Take `http://host[:port]` or `https://…`, without a path, or `unix:///path`.

        The directory of a unix socket is held open, as only now may be who can pass to it.

        Raises:
            ValueError: it is no such URL.
            OSError: the certificates can't be read.
        """
        self._connector = connector
        self._deadline = deadline
        self._sock: Socket | None = None
        self._patience_s = ANSWER_S
        self._tls: Context | None = None
        self._path, self._directory = "", -1
        scheme, _, place = url.partition("://")
        if scheme == "unix":
            if not place.startswith("/"):
                raise ValueError(f"invalid URL '{url}'")
            self.host, self._path = "localhost", place
            self._directory = _hold(place.rpartition("/")[0])
            return
        host, _, port = (
            place.rpartition(":") if place.rfind(":") > place.rfind("]") else (place, "", "")
        )
        if scheme not in PORTS or not host or any(mark in place for mark in "/?#@ \r\n"):
            raise ValueError(f"invalid URL '{url}'")
        if port and not (port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError(f"invalid port in URL '{url}'")
        self.host = place
        """As the header names it."""
        self._name = host.removeprefix("[").removesuffix("]")
        self._port = int(port or PORTS[scheme])
        if scheme == "https":
            self._tls = make_tls_context(ca_path, verify=verify)

    def request(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Send a request, and wait for its answer.

        Raises:
            OSError: the server can't be reached, doesn't answer in time, or not in HTTP.
        """
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        data = ("\r\n".join([*lines, "", ""]).encode(), body)
        if self._sock is not None:
            try:
                return self._exchange(self._sock, method, data)
            except TimeoutError:
                raise
            except OSError:
                self.close()  # the server had closed it in the meantime
        self._sock = self._connect()
        return self._exchange(self._sock, method, data)

    def close(self) -> None:
        """Hang up."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _connect(self) -> "Socket":
        if self._path:
            return self._connector.connect_unix(self._path, directory=self._directory)
        sock = self._connector.connect(self._name, self._port)
        return self._connector.secure(sock, self._name, self._tls) if self._tls else sock

    def _exchange(self, sock: "Socket", method: str, data: tuple[bytes, bytes]) -> Answer:
        try:
            for part in data:  # a copy of both would be the largest thing in memory
                rest = memoryview(part)
                while rest:
                    sock.settimeout(self._deadline.left_s(self._patience_s) or 0.001)
                    rest = rest[sock.send(rest) :]
            turn = Deadline()
            turn.begin(self._deadline.left_s(self._patience_s))
            answer, keep = _Reader(sock, turn).read(method)
        except BaseException as error:
            self.close()
            if isinstance(error, TimeoutError):
                self._patience_s = min(self._patience_s * 2, MAX_ANSWER_S)
            raise
        self._patience_s = ANSWER_S
        if not keep:
            self.close()
        return answer


class _Reader:
    def __init__(self, sock: "Socket", turn: Deadline) -> None:
        self._sock = sock
        self._turn = turn
        self._data = b""

    def read(self, method: str) -> tuple[Answer, bool]:
        """Read an answer; return it, and whether the connection may be kept."""
        status, headers = self._read_head()
        while 100 <= status < 200:
            status, headers = self._read_head()
        keep = "close" not in headers.get("connection", "").lower()
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif "chunked" in headers.get("transfer-encoding", ""):
            body = self._read_chunks()
        elif "content-length" in headers:
            body = self._read_bytes(_parse_size(headers["content-length"], 10))
        else:
            body, keep = self._read_rest(), False
        return Answer(status, headers, body), keep and not self._data

    def _read_head(self) -> tuple[int, dict[str, str]]:
        head = self._read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, _, rest = head[0].partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdecimal():
            raise OSError("malformed HTTP response")
        headers = {}
        for line in head[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(rest[:3]), headers

    def _read_chunks(self) -> bytes:
        body = b""
        while size := _parse_size(
            self._read_until(b"\r\n").decode("latin-1").partition(";")[0], 16
        ):
            body += self._read_bytes(size)
            self._read_until(b"\r\n")
            if len(body) > MAX_BODY_BYTES:
                raise OSError("HTTP response is too long")
        while self._read_until(b"\r\n"):
            pass
        return body

    def _read_until(self, end: bytes) -> bytes:
        while (place := self._data.find(end)) < 0:
            if len(self._data) > MAX_HEAD_BYTES:
                raise OSError("malformed HTTP response")
            self._receive()
        taken, self._data = self._data[:place], self._data[place + len(end) :]
        return taken

    def _read_bytes(self, size: int) -> bytes:
        if size > MAX_BODY_BYTES:
            raise OSError("HTTP response is too long")
        while len(self._data) < size:
            self._receive()
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def _read_rest(self) -> bytes:
        while data := self._receive_some():
            self._data += data
            if len(self._data) > MAX_BODY_BYTES:
                raise OSError("HTTP response is too long")
        return self._data

    def _receive(self) -> None:
        data = self._receive_some()
        if not data:
            raise ConnectionResetError("connection closed by the server")
        self._data += data

    def _receive_some(self) -> bytes:
        self._sock.settimeout(self._turn.left_s(MAX_ANSWER_S) or 0.001)
        return self._sock.recv(65536)


def _hold(directory: str) -> int:
    """Open a directory so that something in it can be found later on; -1 if it can't be opened."""
    try:
        return posix.open(directory or "/", posix.O_PATH | posix.O_CLOEXEC)
    except OSError:
        return -1


def _parse_size(text: str, base: int) -> int:
    if not text.strip().isalnum():
        raise OSError("malformed HTTP response")
    try:
        return int(text, base)
    except ValueError:
        raise OSError("malformed HTTP response") from None
