"""Connections on which nothing happens are closed, and one client can't take all there are."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from fargate_agent.controlplane import peers
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane
from tests.fixtures.events import reading

pytestmark = pytest.mark.timeout(60)

HALF_A_LINE = b"POST / HT"
HALF_A_HEADER = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Le"
WHOLE = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"


class Clients:
    """Connections that a test has opened."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def open(self, plane: ControlPlane) -> socket.socket:
        parts = urlsplit(plane.url)
        assert parts.hostname is not None
        assert parts.port is not None
        client = socket.create_connection((parts.hostname, parts.port), timeout=15)
        self._stack.enter_context(client)
        return client


@pytest.fixture
def clients() -> Iterator[Clients]:
    with ExitStack() as stack:
        yield Clients(stack)


@pytest.fixture
def database() -> None:
    """Nothing here depends on it."""


def is_closed(client: socket.socket) -> bool:
    """Wait until the other side has closed the connection."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HALF_A_LINE, id="half a line"),
        pytest.param(HALF_A_HEADER, id="half a header"),
    ],
)
def test_headers_that_never_end_end_the_connection(
    control_plane: ControlPlane,
    clients: Clients,
    monkeypatch: pytest.MonkeyPatch,
    sent: bytes,
) -> None:
    monkeypatch.setattr(peers, "HEADERS_TIMEOUT_S", 0.2)
    client = clients.open(control_plane)
    client.sendall(sent)

    assert is_closed(client)


def test_headers_that_come_slowly_have_the_same_time(
    control_plane: ControlPlane, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "HEADERS_TIMEOUT_S", 0.5)
    client = clients.open(control_plane)
    client.settimeout(0.05)
    client.sendall(b"POST / HTTP/1.1\r\n")

    def trickle() -> bool:
        """Send a header; return whether the connection is closed."""
        try:
            client.sendall(b"X: y\r\n")
            return client.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    assert any(trickle() for _ in range(200))


def test_connection_is_kept_for_the_next_request_and_not_for_ever(
    control_plane: ControlPlane, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "HEADERS_TIMEOUT_S", 15)
    monkeypatch.setattr(peers, "IDLE_TIMEOUT_S", 0.5)
    client = clients.open(control_plane)

    for _ in range(2):
        client.sendall(WHOLE)
        assert b"404" in client.recv(4096)
    assert is_closed(client)


def test_half_a_request_after_a_whole_one_has_the_time_of_headers(
    control_plane: ControlPlane, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "HEADERS_TIMEOUT_S", 0.5)
    client = clients.open(control_plane)
    client.sendall(WHOLE)
    assert b"404" in client.recv(4096)
    client.sendall(HALF_A_HEADER)

    assert is_closed(client)


async def test_agent_and_follower_stay_connected_while_nothing_happens(
    control_plane: ControlPlane, registered: Any, monkeypatch: pytest.MonkeyPatch, clients: Clients
) -> None:
    monkeypatch.setattr(peers, "HEADERS_TIMEOUT_S", 0.3)
    monkeypatch.setattr(peers, "IDLE_TIMEOUT_S", 0.3)
    async with SimulatedAgent(control_plane) as agent, reading(control_plane, follow="true"):
        later = clients.open(control_plane)  # whose time begins after that of the two
        assert await asyncio.to_thread(is_closed, later)
        await asyncio.to_thread(registered.list_clusters)

        shown = await asyncio.to_thread(
            registered.describe_container_instances, containerInstances=[agent.instance_arn]
        )

    assert shown["containerInstances"][0]["agentConnected"]


def test_client_with_too_many_connections_loses_the_oldest_that_does_nothing(
    start_control_plane: StartControlPlane, clients: Clients
) -> None:
    plane = start_control_plane(max_connections_per_peer=3)
    held = [clients.open(plane) for _ in range(3)]
    for client in held:
        client.sendall(HALF_A_HEADER)

    plane.client().list_clusters()

    assert is_closed(held[0])
    held[2].sendall(b"ngth: 0\r\n\r\n")
    assert held[2].recv(4096).startswith(b"HTTP/1.1 ")


async def test_client_whose_connections_are_all_in_use_gets_no_more(
    start_control_plane: StartControlPlane, clients: Clients
) -> None:
    plane = await asyncio.to_thread(start_control_plane, max_connections_per_peer=1)
    async with reading(plane, follow="true"):
        refused = await asyncio.to_thread(clients.open, plane)

        assert await asyncio.to_thread(is_closed, refused)
