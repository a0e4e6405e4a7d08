"""Ask the metadata endpoint what no program asks, and say how that went: KIND ARGUMENT..."""

import json
import os
import re
import select
import socket
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

ENDPOINT = ("169.254.170.2", 80)
PATIENCE_S = 15.0
MEGABYTE = 1_000_000


def say(what: object) -> None:
    """Tell the test."""
    print(json.dumps(what), flush=True)


def connect() -> socket.socket:
    """Return a new connection to the endpoint."""
    return socket.create_connection(ENDPOINT, timeout=PATIENCE_S)


def request(target: str, *headers: str, method: str = "GET") -> bytes:
    """Return a request as it is sent."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", *headers, "", ""]).encode("latin-1")


def ask(data: bytes) -> bytes:
    """Send something over a new connection, and return the first answer."""
    answer = b""
    with connect() as connection, suppress(OSError):
        with suppress(OSError):  # refused before all of it was sent
            connection.sendall(data)
        while more := connection.recv(65536):
            answer += more
            head, end, body = answer.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            if end and length is not None and len(body) >= int(length[1]):
                break
    return answer


def status_of(answer: bytes) -> int:
    """Return the status of an answer; 0 if there was none."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.") else 0


def others(mark: str, *ids: str) -> object:
    """Ask for another task, by its ids and by all that might say so; `mark` is in its answers."""
    host, close = "Host: 169.254.170.2", "Connection: close"
    paths = [
        path
        for one in ids
        for path in (
            f"/v4/{one}", f"/v4/{one}/task", f"/v4/{one}/stats", f"/v4/{one}/taskWithTags",
            f"/v3/{one}", f"/v3/{one}/task", f"/v2/metadata/{one}", f"/v2/stats/{one}",
            f"/v2/credentials/{one}", f"/v1/credentials?id={one}", f"/v4/../v4/{one}/task",
            f"//v4/{one}/task", f"/v4/{one}%2ftask", f"/api/{one}/task-protection/v1/state",
        )
    ]  # fmt: skip
    requests = [request(path, host, close) for path in paths]
    for one in ids:
        target = f"/v4/{one}/task"
        requests += [
            request(target, f"Host: {one}", close),
            request(f"http://169.254.170.2{target}", host, close),
            request(target, host, "X-Forwarded-For: 169.254.172.2", close),
            request(target, host, "Forwarded: for=10.213.64.4", close),
            request(target, "Host: a", "Host: b", close),
            request(target, close),
        ]
    answers = [ask(data) for data in requests]
    return {
        "asked": len(answers),
        "good": sum(status_of(answer) == 200 for answer in answers),
        "leaks": [answer.decode("latin-1") for answer in answers if mark.encode() in answer],
    }


def guesses(count: str) -> object:
    """Ask for ids that nobody gave."""
    seen: dict[int, int] = {}
    connection = connect()
    for _ in range(int(count)):
        path = f"/v4/{uuid.uuid4()}/task"
        try:
            connection.sendall(request(path, "Host: a"))
            status = status_of(connection.recv(65536))
        except OSError:
            status = 0
        if status == 0:
            connection.close()
            connection = connect()
        seen[status] = seen.get(status, 0) + 1
    return seen


def big_body(how: str) -> object:
    """Send a gigabyte, and say how much of it was taken."""
    chunk = bytes(MEGABYTE)
    framing = {
        "length": "Content-Length: 1000000000",
        "chunks": "Transfer-Encoding: chunked",
    }[how]
    taken, answer = 0, b""
    with connect() as connection:
        connection.settimeout(PATIENCE_S)
        connection.sendall(request("/v4/x", "Host: a", framing, method="PUT"))
        with suppress(OSError):
            for _ in range(1000):
                frame = b"%x\r\n%s\r\n" % (len(chunk), chunk) if how == "chunks" else chunk
                connection.sendall(frame)
                taken += len(chunk)
        with suppress(OSError):
            answer = connection.recv(65536)
    return {"taken_mb": taken / MEGABYTE, "status": status_of(answer)}


def slow(count: str) -> object:
    """Send a header a byte at a time, over many connections."""
    held = [connect() for _ in range(int(count))]
    for connection in held:
        connection.sendall(b"GET /v4/x HTTP/1.1\r\nX-A: ")
    return _hold(held, lambda connection: connection.sendall(b"a"))


def unread(count: str) -> object:
    """Ask and ask, and read no answer."""
    held = [socket.socket() for _ in range(int(count))]
    for connection in held:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE_S)
        connection.connect(ENDPOINT)
        connection.setblocking(False)
    data = request("/v4/x/task", "Host: a") * 100

    def press(connection: socket.socket) -> None:
        with suppress(BlockingIOError):
            connection.send(data)

    return _hold(held, press)


def _hold(held: list[socket.socket], press: Callable[[socket.socket], None]) -> object:
    """Say that they are held, and press on for as long as anyone lets us."""
    say({"held": len(held)})
    while held:
        for connection in list(held):
            try:
                press(connection)
            except OSError:
                held.remove(connection)
        time.sleep(0.1)  # the pace of the attack
    time.sleep(4 * PATIENCE_S)  # until somebody ends us
    return None


def many(count: str) -> object:
    """Open very many connections at once and say nothing."""
    held = []
    for _ in range(int(count)):
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(ENDPOINT)
        held.append(connection)
    return _hold(held, lambda _: None)


def pipeline(count: str) -> object:
    """Ask many times in one go, then read."""
    last = request("/v4/x/task", "Host: a", "Connection: close")
    data = request("/v4/x/task", "Host: a") * (int(count) - 1) + last
    answers, sent = b"", 0
    with connect() as connection:
        connection.settimeout(PATIENCE_S)
        try:
            connection.setblocking(False)
            while len(answers) < 100 * MEGABYTE:
                writing = [connection] if sent < len(data) else []
                ready = select.select([connection], writing, [], PATIENCE_S)
                if not any(ready):
                    break
                if connection in ready[1]:
                    sent += connection.send(data[sent : sent + 65536])
                if connection in ready[0]:
                    more = connection.recv(65536)
                    answers += more
                    if not more:
                        break
        except OSError:
            pass
    return {"sent": sent, "answers": answers.count(b"HTTP/1.1 ")}


def nonsense() -> object:
    """Send what is no request."""
    texts = {
        "long line": request("/" + "a" * MEGABYTE, "Host: a"),
        "long header": request("/v4/x", "Host: a", "X-A: " + "a" * MEGABYTE),
        "many headers": request("/v4/x", *(f"X-{number}: a" for number in range(100_000))),
        "random": os.urandom(MEGABYTE),
        "nulls": bytes(MEGABYTE),
        "tls": bytes.fromhex("16030100a5010000a10303") + os.urandom(160),
        "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
        "two lengths": request("/v4/x", "Content-Length: 1", "Content-Length: 2"),
        "length and chunks": request("/", "Content-Length: 1", "Transfer-Encoding: chunked"),
        "no version": b"GET /v4/x\r\n\r\n",
        "folded": request("/v4/x", "Host: a", "X-A: a", " b"),
        "upgrade": request("/v4/x", "Host: a", "Connection: upgrade", "Upgrade: websocket"),
        "connect": request("10.213.64.1:80", "Host: a", method="CONNECT"),
    }
    return {name: status_of(ask(text)) for name, text in texts.items()}


def churn(count: str) -> object:
    """Connect and hang up at once, again and again."""
    done = 0
    for _ in range(int(count)):
        try:
            with connect() as connection:
                linger = bytes([1, 0, 0, 0, 0, 0, 0, 0])  # a reset instead of an end
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            done += 1
        except OSError:
            pass
    return done


def good(path: str) -> object:
    """Ask as a program does."""
    answer = ask(request(path, "Host: 169.254.170.2", "Connection: close"))
    return status_of(answer)


KINDS: dict[str, Callable[..., object]] = {
    "others": others, "guesses": guesses, "big-body": big_body, "slow": slow,
    "unread": unread, "many": many, "pipeline": pipeline, "nonsense": nonsense, "churn": churn,
    "good": good,
}  # fmt: skip

say(KINDS[sys.argv[1]](*sys.argv[2:]))
