"""Names of registries, resolved inside a task: its servers are asked, from its network namespace.

A stub resolver as libc's: servers in order, all of them twice; the search list for short names; TCP
when an answer doesn't fit into a datagram. `/etc/hosts` isn't looked at.
Source: RFC 1034, 1035 and 7766; resolv.conf(5) for the rules of the search list.
"""

import asyncio
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, TypeGuard

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from aiohttp.abc import AbstractResolver, ResolveResult

from fargate_agent.egress.sockets import OpenSocket, explain_os_error
from fargate_agent.parallel import together

MAX_ALIASES: Final = 8
"""How many answers may lead on to a further name; content networks use three or four."""

MAX_DATAGRAM_BYTES: Final = 1 << 16
"""Source: RFC 768."""

ROUNDS: Final = 2
"""How often each server is asked. Source: resolv.conf(5), `attempts`."""

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_RECORDS: Final = {socket.AF_INET: dns.rdatatype.A, socket.AF_INET6: dns.rdatatype.AAAA}


class LookupFailedError(OSError):
    """A name stands for no address, or nobody said for which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nameservers:
    """Who is asked, and about what."""

    servers: tuple[str, ...]
    """Addresses."""
    search: tuple[str, ...] = ()
    families: tuple[socket.AddressFamily, ...] = (socket.AF_INET,)
    port: int = 53
    timeout_s: float = 3.0
    """For one answer. resolv.conf(5) has 5 s; a pull that fails is tried again anyway."""


class TaskResolver(AbstractResolver):
    """Resolves for aiohttp, through sockets of a task, by the servers of the task."""

    def __init__(self, open_socket: OpenSocket, nameservers: Nameservers) -> None:
        self._open_socket = open_socket
        self._nameservers = nameservers

    async def close(self) -> None:
        """Hold nothing: sockets live as long as one question."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host, in the order in which they're worth a try.

        Raises:
            LookupFailedError: there are none, or no server said so in time.
        """
        del family  # which addresses a task can use follows from its interfaces
        try:
            for name in _candidates(host, self._nameservers.search):
                if addresses := await self._addresses(name):
                    return [_result(host, address, port) for address in addresses]
        except (OSError, dns.exception.DNSException) as error:
            raise LookupFailedError(f"lookup {host}: {_explain(error)}") from error
        raise LookupFailedError(f"lookup {host}: no such host")

    async def _addresses(self, name: dns.name.Name) -> tuple[str, ...]:
        """Ask for all families side by side; one that fails doesn't spoil the other."""
        found: dict[socket.AddressFamily, tuple[str, ...]] = {}
        failures: list[Exception] = []

        async def look_up(family: socket.AddressFamily) -> None:
            try:
                found[family] = await self._look_up(name, _RECORDS[family])
            except (OSError, dns.exception.DNSException) as error:
                failures.append(error)

        families = self._nameservers.families
        await together(look_up(family) for family in families)
        addresses = tuple(one for family in families for one in found.get(family, ()))
        if failures and not addresses:
            raise failures[0]
        return addresses

    async def _look_up(
        self, name: dns.name.Name, record: dns.rdatatype.RdataType
    ) -> tuple[str, ...]:
        for _ in range(MAX_ALIASES):
            response = await self._ask(dns.message.make_query(name, record))
            if response.rcode() == dns.rcode.NXDOMAIN:
                return ()
            chain = response.resolve_chaining()
            if chain.answer is not None:
                return tuple(data.to_text() for data in chain.answer)
            if chain.canonical_name == name:
                return ()
            name = chain.canonical_name
        raise LookupFailedError("too many aliases")

    async def _ask(self, query: dns.message.QueryMessage) -> dns.message.QueryMessage:
        failure: Exception = LookupFailedError("no nameserver")
        for server in self._nameservers.servers * ROUNDS:
            try:
                async with asyncio.timeout(self._nameservers.timeout_s):
                    response = await self._exchange(query, server)
            except (OSError, dns.exception.DNSException) as error:
                failure = error
                continue
            if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return response
            failure = LookupFailedError("server misbehaving")
        raise failure

    async def _exchange(
        self, query: dns.message.QueryMessage, server: str
    ) -> dns.message.QueryMessage:
        with self._socket(server, socket.SOCK_DGRAM) as sock:
            response = await self._exchange_datagrams(query, sock, server)
        if not response.flags & dns.flags.TC:
            return response
        with self._socket(server, socket.SOCK_STREAM) as sock:
            return await self._exchange_stream(query, sock, server)

    async def _exchange_datagrams(
        self, query: dns.message.QueryMessage, sock: socket.socket, server: str
    ) -> dns.message.QueryMessage:
        """Wait for the answer to this very question; what else arrives is not for us."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (server, self._nameservers.port))
        await loop.sock_sendall(sock, query.to_wire())
        while True:
            data = await loop.sock_recv(sock, MAX_DATAGRAM_BYTES)
            try:
                # A truncated message may end in the middle of a record: take what is whole.
                response = dns.message.from_wire(data, continue_on_error=True)
            except dns.exception.DNSException:
                continue
            cut = response.flags & dns.flags.TC
            if _answers(response, query) and (cut or not response.errors):
                return response

    async def _exchange_stream(
        self, query: dns.message.QueryMessage, sock: socket.socket, server: str
    ) -> dns.message.QueryMessage:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (server, self._nameservers.port))
        await loop.sock_sendall(sock, query.to_wire(prepend_length=True))
        length = int.from_bytes(await _read_exactly(sock, 2))
        response = dns.message.from_wire(await _read_exactly(sock, length))
        if not _answers(response, query):
            raise LookupFailedError("server misbehaving")
        return response

    def _socket(self, server: str, kind: socket.SocketKind) -> socket.socket:
        try:
            family = _FAMILIES[ip_address(server).version]
        except ValueError as error:
            raise LookupFailedError(f"nameserver '{server}' is not an address") from error
        sock = self._open_socket(family, kind, 0)
        sock.settimeout(0)
        return sock


def _candidates(host: str, search: tuple[str, ...]) -> list[dns.name.Name]:
    """Full names in the order of libc: a name with a dot as it is first, a short one last."""
    if host.endswith("."):
        return [dns.name.from_text(host)]
    searched = [f"{host}.{suffix}" for suffix in search]
    names = [host, *searched] if "." in host else [*searched, host]
    return [dns.name.from_text(name) for name in names]


def _answers(
    response: dns.message.Message, query: dns.message.QueryMessage
) -> TypeGuard[dns.message.QueryMessage]:
    return isinstance(response, dns.message.QueryMessage) and query.is_response(response)


async def _read_exactly(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        more = await loop.sock_recv(sock, size - len(data))
        if not more:
            raise LookupFailedError("unexpected EOF")
        data += more
    return data


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=_FAMILIES[ip_address(address).version],
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST,
    )


def _explain(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    return explain_os_error(error) if isinstance(error, OSError) else str(error)
