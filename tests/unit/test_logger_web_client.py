"""The loggers' HTTP client, against a server that says exactly what a test wants."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from network import web_client
from network.connection import Connector
from network.web_client import WebClient
from reading.deadline import Deadline

Serve = Callable[[socket.socket, int], None]
"""Gets each connection, and its number from 1."""
OK = b"HTTP/1.1 200 OK\r\n"


class Server:
    """A raw socket server in a thread."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self._threads: list[threading.Thread] = []
        self._serve: Serve | None = None
        self.end = threading.Event()

    def serve(self, serve: Serve) -> None:
        self._serve = serve
        self._start(self._accept)

    def answer(self, *answers: bytes, close: bool = False) -> None:
        """Give the answers in turn, each to one request."""
        rest = list(answers)

        def serve(sock: socket.socket, number: int) -> None:
            while rest and self.read_request(sock):
                sock.sendall(rest.pop(0))
                if close:
                    return
            self.end.wait(10)

        self.serve(serve)

    def read_request(self, sock: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := sock.recv(65536)):
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        while len(body) < size:
            body += sock.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]

    def stop(self) -> None:
        self.end.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            for number in range(1, 100):
                self._start(self._handle, self._listener.accept()[0], number)

    def _handle(self, sock: socket.socket, number: int) -> None:
        assert self._serve is not None
        with sock, suppress(OSError):
            self._serve(sock, number)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def client(server: Server) -> Iterator[WebClient]:
    deadline = Deadline()
    client = WebClient(server.url, Connector({}, deadline), deadline)
    yield client
    client.close()


def test_request_has_a_head_and_a_body(server: Server, client: WebClient) -> None:
    server.answer(OK + b"Content-Length: 0\r\n\r\n")

    client.request("POST", "/a", {"X-One": "1"}, b"body")

    host = server.url.removeprefix("http://").encode()
    assert server.requests == [
        b"POST /a HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 4\r\nX-One: 1\r\n\r\nbody"
    ]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        pytest.param(b"Content-Length: 5\r\n\r\nhello", b"hello", id="length"),
        pytest.param(b"content-length:5\r\n\r\nhello", b"hello", id="lower-case"),
        pytest.param(b"Content-Length: 0\r\n\r\n", b"", id="empty"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\nX: y\r\n\r\n",
            b"hello",
            id="chunked",
        ),
    ],
)
def test_answer_is_read_and_the_connection_kept(
    server: Server, client: WebClient, answer: bytes, body: bytes
) -> None:
    server.answer(OK + b"X-Two: 2\r\n" + answer, OK + b"Content-Length: 4\r\n\r\nnext")

    first = client.request("GET", "/", {}, b"")
    second = client.request("GET", "/", {}, b"")

    assert (first.status, first.headers["x-two"], first.body) == (200, "2", body)
    assert second.body == b"next"


def test_answer_without_length_ends_with_the_connection(server: Server, client: WebClient) -> None:
    server.answer(OK + b"\r\nhello", close=True)

    assert client.request("GET", "/", {}, b"").body == b"hello"


def test_answer_of_204_has_no_body(server: Server, client: WebClient) -> None:
    server.answer(b"HTTP/1.1 204 No Content\r\n\r\n", OK + b"Content-Length: 1\r\n\r\nx")

    assert client.request("GET", "/", {}, b"").status == 204
    assert client.request("GET", "/", {}, b"").body == b"x"


def test_interim_answer_is_passed_over(server: Server, client: WebClient) -> None:
    server.answer(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx")

    assert client.request("GET", "/", {}, b"").body == b"x"


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"], ids=["silently", "and-says-so"])
def test_connection_that_the_server_closes_is_opened_again(
    server: Server, client: WebClient, header: bytes
) -> None:
    answer = OK + header + b"Content-Length: 1\r\n\r\nx"
    server.answer(answer, answer, answer, close=True)

    answers = [client.request("POST", "/", {}, b"%d" % number) for number in range(3)]

    assert [one.status for one in answers] == [200] * 3
    assert [request[-1:] for request in server.requests] == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", id="another-protocol"),
        pytest.param(b"HTTP/1.1 abc\r\n\r\n", id="no-status"),
        pytest.param(OK + b"Content-Length: x\r\n\r\n", id="length-is-no-number"),
        pytest.param(OK + b"Content-Length: -5\r\n\r\n", id="length-is-negative"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", id="chunk-is-no-number"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", id="chunk-is-negative"),
        pytest.param(OK + b"X: " + b"x" * 100_000, id="endless-head"),
    ],
)
def test_malformed_answer_is_an_error(server: Server, client: WebClient, answer: bytes) -> None:
    server.answer(answer)

    with pytest.raises(OSError, match="malformed HTTP response"):
        client.request("GET", "/", {}, b"")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"Content-Length: 1048577\r\n\r\n", id="length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n100001\r\n", id="chunk"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n"
            + (b"80000\r\n" + b"x" * 0x80000 + b"\r\n") * 3
            + b"0\r\n\r\n",
            id="chunks",
        ),
        pytest.param(b"\r\n" + b"x" * 2_000_000, id="without-end"),
    ],
)
def test_huge_answer_is_an_error(server: Server, client: WebClient, answer: bytes) -> None:
    server.answer(OK + answer)

    with pytest.raises(OSError, match="HTTP response is too long"):
        client.request("GET", "/", {}, b"")


def test_answer_that_is_cut_is_an_error(server: Server, client: WebClient) -> None:
    server.answer(OK + b"Content-Length: 5\r\n\r\nhel", close=True)

    with pytest.raises(ConnectionError, match="connection closed by the server"):
        client.request("GET", "/", {}, b"")


def test_answer_has_to_come_in_time_even_if_some_of_it_always_comes(
    server: Server, client: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trickle(sock: socket.socket, number: int) -> None:
        server.read_request(sock)
        while not server.end.wait(0.02):
            sock.sendall(b"H")

    monkeypatch.setattr(client, "_patience_s", 0.2)
    server.serve(trickle)

    with pytest.raises(TimeoutError):
        client.request("GET", "/", {}, b"")


def test_slow_server_gets_more_time_when_it_is_asked_again(
    server: Server, client: WebClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_late(sock: socket.socket, number: int) -> None:
        server.read_request(sock)
        if not server.end.wait(0.5):
            sock.sendall(OK + b"Content-Length: 1\r\n\r\nx")

    monkeypatch.setattr(client, "_patience_s", 0.2)
    monkeypatch.setattr(web_client, "ANSWER_S", 0.2)
    server.serve(answer_late)

    with pytest.raises(TimeoutError):
        client.request("GET", "/", {}, b"")
    answers: list[bytes] = []
    for _ in range(8):
        with suppress(TimeoutError):
            answers.append(client.request("GET", "/", {}, b"").body)
            break
    assert answers == [b"x"]


def test_no_request_takes_longer_than_the_deadline(server: Server) -> None:
    deadline = Deadline()
    client = WebClient(server.url, Connector({}, deadline), deadline)
    server.answer(b"")
    deadline.begin(0.2)

    with pytest.raises(TimeoutError):
        client.request("GET", "/", {}, b"")


def test_server_that_is_away_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    deadline = Deadline()
    client = WebClient(f"http://127.0.0.1:{port}", Connector({}, deadline), deadline)

    with pytest.raises(
        OSError, match=rf"^dial tcp 127\.0\.0\.1:{port}: connect: connection refused$"
    ):
        client.request("GET", "/", {}, b"")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1",
        "ftp://a",
        "http://",
        "http://a/b",
        "http://a?b",
        "http://u@a",
        "http://a:0",
        "http://a:65536",
        "http://a:b",
        "http://a\r\nX: y",
    ],
)
def test_url_that_is_none_is_an_error(url: str) -> None:
    deadline = Deadline()

    with pytest.raises(ValueError, match="invalid"):
        WebClient(url, Connector({}, deadline), deadline)


@pytest.mark.parametrize(
    ("url", "host"), [("http://[::1]:80", "[::1]:80"), ("https://a.test", "a.test")]
)
def test_host_is_named_as_in_the_url(url: str, host: str) -> None:
    deadline = Deadline()

    assert WebClient(url, Connector({}, deadline), deadline).host == host
