"""HTTP sessions whose sockets and names are those of one task."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver

from fargate_agent.egress.proxies import Proxy
from fargate_agent.egress.sockets import OpenSocket, OpenTaskSocket
from fargate_agent.plan import TaskPlan

CONNECT_TIMEOUT_S: Final = 15.0
"""For one address. Half of what containerd allows: an address that takes longer is dead."""

READ_BUFFER_BYTES: Final = 1 << 20
"""As much as is written to containerd at once."""

AddressInfo = tuple[int, int, int, str, tuple[object, ...]]
"""Family, type, protocol, canonical name, address, as of getaddrinfo(3)."""


class Egress:
    """Opens HTTP sessions through the networks of tasks."""

    def __init__(self, open_socket: OpenTaskSocket) -> None:
        self._open_socket = open_socket

    @asynccontextmanager
    async def session(
        self,
        task: TaskPlan,
        inactivity_s: float,
        trusted: ssl.SSLContext | None = None,
        proxy: Proxy | None = None,
    ) -> AsyncIterator[aiohttp.ClientSession]:
        """Yield a session of which every socket is opened, and every name resolved, in the task.

        A server may send nothing for `inactivity_s`. `trusted` None believes the certificates of
        the system. Requests go through `proxy` if there is one.
        """
        open_socket = partial(self._open_socket, task.netns)
        resolver = self._make_resolver(task)
        opened = open_session(open_socket, resolver, inactivity_s, trusted, proxy)
        async with opened as session:
            yield session

    async def resolve(self, task: TaskPlan, host: str) -> list[str]:
        """Return the addresses of a host, in the order in which they're worth a try.

        Raises:
            OSError: there are none, or no server said so in time.
        """
        resolver = self._make_resolver(task)
        return [found["host"] for found in await resolver.resolve(host)]

    def _make_resolver(self, task: TaskPlan) -> AbstractResolver:
        # An agent that pulls nothing and reads no secret does without 3 MB of DNS.
        from fargate_agent.egress.resolver import Nameservers, TaskResolver

        has_ipv6 = any(eni.ipv6_address for eni in task.enis)
        nameservers = Nameservers(
            servers=task.dns.servers,
            search=task.dns.search,
            families=(socket.AF_INET, socket.AF_INET6) if has_ipv6 else (socket.AF_INET,),
        )
        return TaskResolver(partial(self._open_socket, task.netns), nameservers)


def open_session(
    open_socket: OpenSocket,
    resolver: AbstractResolver,
    inactivity_s: float,
    trusted: ssl.SSLContext | None,
    proxy: Proxy | None = None,
) -> aiohttp.ClientSession:
    """Make a session all of whose sockets are opened by `open_socket`.

    It follows no redirects by itself, keeps no cookies, and unpacks nothing.
    """

    def make_socket(address: AddressInfo) -> socket.socket:
        family, kind, proto, _, _ = address
        return open_socket(family, kind, proto)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=resolver,
            socket_factory=make_socket,
            ssl=trusted or True,
        ),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=inactivity_s
        ),
        headers={"Accept-Encoding": "identity", "User-Agent": "fargate-agent"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=READ_BUFFER_BYTES,
        proxy=None if proxy is None else proxy.full_url,
    )
