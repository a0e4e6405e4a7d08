"""Resolves names as the task does: by its own nameservers, which libc here doesn't know.

A stub resolver as libc's: servers in order, all of them twice; the search list for short names; TCP
when an answer doesn't fit into a datagram. Source: RFC 1035; resolv.conf(5).
"""

import posix
from _socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM, inet_ntop, socket

from reading.deadline import Deadline

PORT = 53
TIMEOUT_S = 2.0
"""How long a server may take to answer one question."""
ROUNDS = 2
"""How often each server is asked. Source: resolv.conf(5), `attempts`."""
MAX_DATAGRAM_BYTES = 65535
A, AAAA = 1, 28
IN = 1
NXDOMAIN = 3
"""Source: RFC 1035; RFC 3596."""
RECURSION_DESIRED = 0x0100
TRUNCATED = 0x0200


class Nameservers:
    """The servers of a task, and the names that it searches."""

    def __init__(self, servers: list[str], search: list[str], port: int = PORT) -> None:
        self._servers = servers
        self._search = search
        self._port = port

    def resolve(self, host: str, deadline: Deadline) -> list[str]:
        """Return the addresses of a host, those of IPv4 first.

        Raises:
            OSError: there are none, or no server said so in time.
        """
        if host.rstrip(".").rpartition(".")[2] == "localhost":
            return ["127.0.0.1", "::1"]  # no server is asked; source: RFC 6761, section 6.3
        fault = "no such host"
        for name in self._candidates(host):
            for kind in (A, AAAA):
                try:
                    found = self._look_up(name, kind, deadline)
                except OSError as error:
                    fault = str(error)
                    break
                if found:
                    return found
        raise OSError(f"lookup {host}: {fault}")

    def _candidates(self, host: str) -> list[str]:
        """Source: resolv.conf(5), `ndots`."""
        searched = [f"{host}.{suffix.strip('.')}" for suffix in self._search]
        if host.endswith("."):
            return [host[:-1]]
        return [host, *searched] if "." in host else [*searched, host]

    def _look_up(self, name: str, kind: int, deadline: Deadline) -> list[str]:
        question = _render_name(name) + kind.to_bytes(2) + IN.to_bytes(2)
        fault = OSError("no nameserver")
        for server in self._servers * ROUNDS:
            try:
                answer = self._ask(server, question, deadline)
                code = answer[3] & 0xF
                if code in (0, NXDOMAIN):
                    return _read_addresses(answer, kind)
                fault = OSError("server misbehaving")
            except OSError as error:
                fault = OSError(f"{server}: {error}")
            except (IndexError, ValueError):
                fault = OSError(f"{server}: unreadable answer")
        raise fault

    def _ask(self, server: str, question: bytes, deadline: Deadline) -> bytes:
        number = posix.urandom(2)
        query = number + RECURSION_DESIRED.to_bytes(2) + bytes.fromhex("0001000000000000")
        query += question
        answer = self._exchange((server, self._port), query, SOCK_DGRAM, deadline)
        if int.from_bytes(answer[2:4]) & TRUNCATED:
            answer = self._exchange((server, self._port), query, SOCK_STREAM, deadline)
        return answer

    def _exchange(
        self, place: tuple[str, int], query: bytes, kind: int, deadline: Deadline
    ) -> bytes:
        turn = Deadline()
        turn.begin(deadline.left_s(TIMEOUT_S))
        sock = socket(AF_INET6 if ":" in place[0] else AF_INET, kind)
        try:
            sock.settimeout(turn.left_s(TIMEOUT_S) or 0.001)
            sock.connect(place)
            if kind == SOCK_STREAM:
                sock.sendall(len(query).to_bytes(2) + query)
                return _receive(sock, int.from_bytes(_receive(sock, 2)))
            sock.send(query)
            while True:  # others than the server may answer first
                sock.settimeout(turn.left_s(TIMEOUT_S) or 0.001)
                answer = sock.recv(MAX_DATAGRAM_BYTES)
                if answer[:2] == query[:2] and answer[12 : len(query)] == query[12:]:
                    return answer
        finally:
            sock.close()


def _render_name(name: str) -> bytes:
    try:
        encoded = name.encode() if name.isascii() else name.encode("idna")
    except UnicodeError:
        encoded = b""
    labels = encoded.split(b".")
    if any(not 0 < len(label) < 64 for label in labels):
        raise OSError(f"'{name}' is no name of a host")
    return b"".join(len(label).to_bytes(1) + label for label in labels) + b"\0"


def _read_addresses(answer: bytes, kind: int) -> list[str]:
    """Read the addresses out of an answer; aliases are in it too, and passed over."""
    place = _skip_name(answer, 12) + 4
    found = []
    for _ in range(int.from_bytes(answer[6:8])):
        place = _skip_name(answer, place)
        size = int.from_bytes(answer[place + 8 : place + 10])
        if int.from_bytes(answer[place : place + 2]) == kind:
            data = answer[place + 10 : place + 10 + size]
            found.append(inet_ntop(AF_INET if kind == A else AF_INET6, data))
        place += 10 + size
    return found


def _skip_name(answer: bytes, place: int) -> int:
    while length := answer[place]:
        if length >= 0xC0:
            return place + 2
        place += length + 1
    return place + 1


def _receive(sock: socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise OSError("connection closed")
        data += more
    return data
