"""Connections that do what programs don't: in pieces, several at once, unread, or too long."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from tests.fixtures.tmds import Endpoint, connect, receive

pytestmark = pytest.mark.root


async def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the end."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := await receive(connection):
            found += part
    return found


async def path_of(endpoint: Endpoint, netns: Path) -> str:
    task = await endpoint.add(netns, "web")
    return f"/v4/{task.containers[0].metadata_id}"


async def test_many_requests_go_over_one_connection(endpoint: Endpoint, netns: Path) -> None:
    path = await path_of(endpoint, netns)
    with connect(netns) as connection:
        for _ in range(5):
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert (await receive(connection)).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", id="close"),
        pytest.param("GET {} HTTP/1.0\r\n\r\n", id="HTTP/1.0"),
        pytest.param(
            "GET {0} HTTP/1.1\r\nHost: x\r\n\r\n"
            "GET {0} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            id="two at once",
        ),
        pytest.param(
            "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}",
            id="with a body",
        ),
    ],
)
async def test_connection_is_closed_after_the_answer_where_the_client_says_so(
    how: str, endpoint: Endpoint, netns: Path
) -> None:
    path = await path_of(endpoint, netns)
    with connect(netns) as connection:
        connection.sendall(how.format(path).encode())

        answer = await read_all(connection)

    assert answer.count(b" 200 OK\r\n") == how.count("HTTP/1.")


async def test_request_in_pieces_is_answered(endpoint: Endpoint, netns: Path) -> None:
    path = await path_of(endpoint, netns)
    with connect(netns) as connection:
        for piece in (f"GET {path} HT", "TP/1.1\r\nHo", "st: x\r\n\r\n"):
            connection.sendall(piece.encode())
            await asyncio.sleep(0.05)  # so that each comes alone

        assert (await receive(connection)).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("suffix", ["", "/task"])
async def test_client_that_says_no_more_is_answered(
    suffix: str, endpoint: Endpoint, netns: Path
) -> None:
    path = await path_of(endpoint, netns)
    with connect(netns) as connection:
        connection.sendall(f"GET {path}{suffix} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        connection.shutdown(socket.SHUT_WR)

        assert (await read_all(connection)).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("at_once", [1, 2], ids=["one by one", "pipelined"])
async def test_client_that_reads_no_answers_is_left(
    at_once: int, endpoint: Endpoint, netns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fargate_agent.tmds.server.TIMEOUT_S", 1)
    path = await path_of(endpoint, netns)
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * at_once

    def send_on(connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                connection.sendall(request)

    with connect(netns) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)

        async with asyncio.timeout(8):
            await asyncio.to_thread(send_on, connection)


@pytest.mark.parametrize("path", ["/v4/x", "/api/x/task-protection/v1/state"])
async def test_body_without_an_end_is_not_read_to_it(
    path: str, endpoint: Endpoint, netns: Path
) -> None:
    await endpoint.add(netns, "web")
    sent = 0

    def send_on(connection: socket.socket) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            while sent < 1_000_000_000:
                sent += connection.send(b" " * 65_536)

    with connect(netns) as connection:
        connection.sendall(
            f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n".encode()
        )
        await asyncio.to_thread(send_on, connection)

    assert sent < 64 * 1024 * 1024
