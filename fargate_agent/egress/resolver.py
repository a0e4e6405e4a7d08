"""Names, resolved inside a task: the servers of the task are asked, from its network namespace.

dnspython asks: servers in order, TCP when an answer doesn't fit into a datagram. What it has no way
to do is done here: the search goes on behind a name that exists without addresses, as by libc; an
alias whose server tells no more is asked for by itself; both families are asked side by side.
`/etc/hosts` and `/etc/resolv.conf` of the host are not read.
Source: RFC 1034, 1035 and 7766; resolv.conf(5) for the rules of the search list.
"""

import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.inet
import dns.name
import dns.rdatatype
import dns.resolver
from aiohttp.abc import AbstractResolver, ResolveResult

from fargate_agent.egress.dns_sockets import TaskSockets
from fargate_agent.egress.sockets import OpenSocket, explain_os_error
from fargate_agent.parallel import together

MAX_ALIASES: Final = 8
"""How many answers may lead on to a further name; content networks use three or four."""

ROUNDS: Final = 2
"""How often a server is asked. Source: resolv.conf(5), `attempts`."""

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
        self._nameservers = nameservers
        self._sockets = TaskSockets(open_socket)

    @cached_property
    def _resolver(self) -> dns.asyncresolver.Resolver:
        """Make the resolver.

        Raises:
            LookupFailedError: dnspython can't parse the name of this machine, which it reads.
        """
        servers = [one for one in self._nameservers.servers if dns.inet.is_address(one)]
        try:
            resolver = dns.asyncresolver.Resolver(configure=False)
        except dns.exception.DNSException as error:
            name = socket.gethostname()
            why = f"this machine's host name '{name}' is not a DNS name: {error}"
            raise LookupFailedError(why) from error
        resolver.nameservers = servers
        resolver.port = self._nameservers.port
        resolver.timeout = self._nameservers.timeout_s
        resolver.lifetime = self._nameservers.timeout_s * ROUNDS * max(len(servers), 1)
        return resolver

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
            raise LookupFailedError(f"lookup {host}: {self._explain(error)}") from error
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
            try:
                answer = await self._ask(name, record)
            except dns.resolver.NXDOMAIN:
                return ()
            if answer.rrset is not None:
                return tuple(data.to_text() for data in answer.rrset)
            if answer.canonical_name == name:
                return ()
            name = answer.canonical_name
        raise LookupFailedError("too many aliases")

    async def _ask(
        self, name: dns.name.Name, record: dns.rdatatype.RdataType
    ) -> dns.resolver.Answer:
        """Ask in rounds: dnspython gives a server up that refuses once, or answers badly."""
        for _ in range(ROUNDS - 1):
            with suppress(dns.resolver.NoNameservers):
                return await self._ask_once(name, record)
        return await self._ask_once(name, record)

    async def _ask_once(
        self, name: dns.name.Name, record: dns.rdatatype.RdataType
    ) -> dns.resolver.Answer:
        return await self._resolver.resolve(
            name, record, raise_on_no_answer=False, backend=self._sockets
        )

    def _explain(self, error: Exception) -> str:
        if isinstance(error, dns.exception.Timeout):
            return "i/o timeout"
        if isinstance(error, dns.resolver.NoNameservers):
            return self._explain_refusal(error)
        return explain_os_error(error) if isinstance(error, OSError) else str(error)

    def _explain_refusal(self, error: dns.resolver.NoNameservers) -> str:
        """Say why no server is left to be asked: what went wrong with the last of them."""
        if not self._resolver.nameservers:
            given = "".join(self._nameservers.servers[-1:])
            return f"nameserver '{given}' is not an address" if given else "no nameserver"
        _, _, _, reason, _ = error.kwargs["errors"][-1]
        if isinstance(reason, EOFError):
            return "unexpected EOF"
        return explain_os_error(reason) if isinstance(reason, OSError) else "server misbehaving"


def _candidates(host: str, search: tuple[str, ...]) -> list[dns.name.Name]:
    """Full names in the order of libc: a name with a dot as it is first, a short one last."""
    if host.endswith("."):
        return [dns.name.from_text(host)]
    searched = [f"{host}.{suffix}" for suffix in search]
    names = [host, *searched] if "." in host else [*searched, host]
    return [dns.name.from_text(name) for name in names]


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=address,
        port=port,
        family=_FAMILIES[ip_address(address).version],
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST,
    )
