"""The loggers' resolver, against a DNS server on the loopback."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dns.rcode
import pytest

from network.connection import Connector
from network.nameservers import Nameservers
from reading.deadline import Deadline
from tests.fixtures.nameserver import NameServer, bind_to_one_port


@contextmanager
def loopback_sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    udp, tcp = bind_to_one_port()
    with tcp, udp:
        yield udp, tcp


class Dns:
    """A server in a thread of its own, since the resolver blocks."""

    def __init__(self, udp: socket.socket, tcp: socket.socket) -> None:
        self.server = NameServer()
        self.port = udp.getsockname()[1]
        self.records = self.server.records
        self._sockets = udp, tcp
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])

    def start(self) -> None:
        self._thread.start()
        self._ready.wait(5)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    def resolve(
        self,
        name: str,
        *,
        servers: tuple[str, ...] = ("127.0.0.1",),
        search: tuple[str, ...] = ("one.test", "two.test"),
        within_s: float = 5,
    ) -> list[str]:
        deadline = Deadline()
        deadline.begin(within_s)
        return Nameservers([*servers], [*search], self.port).resolve(name, deadline)

    async def _serve(self) -> None:
        async with self.server.serve(*self._sockets):
            self._ready.set()
            await self._end.wait()


@pytest.fixture
def dns_server() -> Iterator[Dns]:
    with loopback_sockets() as sockets:
        server = Dns(*sockets)
        server.start()
        yield server
        server.stop()


def test_name_has_all_its_addresses(dns_server: Dns) -> None:
    dns_server.records["logs.test", "A"] = ["10.0.0.1", "10.0.0.2"]

    assert sorted(dns_server.resolve("logs.test")) == ["10.0.0.1", "10.0.0.2"]


def test_ipv6_is_asked_for_when_there_is_no_ipv4(dns_server: Dns) -> None:
    dns_server.records["logs.test", "AAAA"] = ["fd00::1"]

    assert dns_server.resolve("logs.test") == ["fd00::1"]


@pytest.mark.parametrize("name", ["localhost", "localhost.", "db.localhost"])
def test_localhost_is_the_task_itself(dns_server: Dns, name: str) -> None:
    assert dns_server.resolve(name) == ["127.0.0.1", "::1"]
    assert dns_server.server.queries == []


def test_short_name_is_searched(dns_server: Dns) -> None:
    dns_server.records["logs.two.test", "A"] = ["10.0.0.1"]

    assert dns_server.resolve("logs") == ["10.0.0.1"]


def test_name_with_a_dot_at_its_end_is_not_searched(dns_server: Dns) -> None:
    dns_server.records["logs.two.test", "A"] = ["10.0.0.1"]

    with pytest.raises(OSError, match=r"^lookup logs\.: no such host$"):
        dns_server.resolve("logs.")


def test_cut_answer_is_asked_for_again_over_tcp(dns_server: Dns) -> None:
    dns_server.server.truncates = True
    dns_server.records["logs.test", "A"] = [f"10.0.0.{number}" for number in range(1, 100)]

    assert len(dns_server.resolve("logs.test")) == 99
    assert dns_server.server.queries == ["udp logs.test A", "tcp logs.test A"]


def test_answer_to_another_question_is_passed_over(dns_server: Dns) -> None:
    dns_server.server.forges = True
    dns_server.records["logs.test", "A"] = ["10.0.0.1"]

    assert dns_server.resolve("logs.test") == ["10.0.0.1"]


def test_name_that_is_unknown_is_an_error(dns_server: Dns) -> None:
    with pytest.raises(OSError, match=r"^lookup logs\.test: no such host$"):
        dns_server.resolve("logs.test")


def test_server_that_fails_is_asked_twice(dns_server: Dns) -> None:
    dns_server.server.rcode = dns.rcode.Rcode.SERVFAIL

    with pytest.raises(OSError, match=r"^lookup logs\.test\.: server misbehaving$"):
        dns_server.resolve("logs.test.")

    assert dns_server.server.queries == ["udp logs.test A"] * 2


def test_next_server_is_asked_when_the_first_is_away(dns_server: Dns) -> None:
    dns_server.records["logs.test", "A"] = ["10.0.0.1"]

    assert dns_server.resolve("logs.test", servers=("127.0.0.2", "127.0.0.1")) == ["10.0.0.1"]


def test_silent_server_takes_no_longer_than_the_deadline(dns_server: Dns) -> None:
    dns_server.server.silent = {"A"}

    with pytest.raises(OSError, match=r"127\.0\.0\.1: timed out"):
        dns_server.resolve("logs.test", within_s=0.3)


@pytest.mark.parametrize(
    "name", ["", "a..b", "x" * 64, "\u00ad.test"], ids=["empty", "gap", "long", "no-idn"]
)
def test_name_of_no_host_is_an_error(dns_server: Dns, name: str) -> None:
    with pytest.raises(OSError, match="is no name of a host"):
        dns_server.resolve(name, search=())


def test_next_address_is_tried_when_the_first_does_not_answer(dns_server: Dns) -> None:
    dns_server.records["logs.test", "A"] = ["127.0.0.2", "127.0.0.1"]
    connector = Connector({"dns-servers": "127.0.0.1"}, Deadline())
    connector._nameservers = Nameservers(["127.0.0.1"], [], dns_server.port)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        sock = connector.connect("logs.test", port)
        peer = sock.getpeername()
        sock.close()

    assert peer == ("127.0.0.1", port)


@pytest.mark.parametrize(
    ("family", "address"),
    [
        pytest.param(socket.AF_INET, "127.0.0.1", id="ipv4"),
        pytest.param(socket.AF_INET6, "::1", id="ipv6"),
    ],
)
def test_no_server_is_asked_for_an_address(
    dns_server: Dns, family: socket.AddressFamily, address: str
) -> None:
    connector = Connector({"dns-servers": "127.0.0.1"}, Deadline())
    connector._nameservers = Nameservers(["127.0.0.1"], [], dns_server.port)

    with socket.create_server((address, 0), family=family) as listener:
        place = listener.getsockname()[:2]
        sock = connector.connect(*place)
        peer = sock.getpeername()[:2]
        sock.close()

    assert peer == place
    assert dns_server.server.queries == []


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="only-the-question"),
        pytest.param(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x05\x0a\x00", id="cut"),
        pytest.param(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x02\x0a\x00", id="no-address"),
    ],
)
def test_unreadable_answer_is_an_error(answer: bytes) -> None:
    with loopback_sockets() as (udp, _):
        udp.setblocking(True)
        port = udp.getsockname()[1]

        def respond() -> None:
            for _ in range(2):
                query, asker = udp.recvfrom(512)
                head = query[:2] + bytes.fromhex("8180000100010000") + b"\0\0"
                udp.sendto(head + query[12:] + answer, asker)

        server = threading.Thread(target=respond)
        server.start()
        deadline = Deadline()
        deadline.begin(5)
        with pytest.raises(OSError, match="unreadable answer"):
            Nameservers(["127.0.0.1"], [], port).resolve("logs.test", deadline)
        server.join()
