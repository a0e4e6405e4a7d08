"""The two places that a plugin works in: the host, and the namespace of a container."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_network
from typing import Final, NamedTuple

from fargate_agent.cniplugins.call import NETNS_DIR, Call
from fargate_agent.network.blocking import Request, open_netlink
from fargate_agent.network.link_requests import BLACKHOLE, WantedRoute, render_route

IMDS: Final = (ip_network("169.254.169.254/32"), ip_network("fd00:ec2::254/128"))
"""Instance metadata. Source: amazon-ecs-cni-plugins, plugins/eni/engine."""
BLACKHOLES: Final = tuple(WantedRoute(one, kind=BLACKHOLE) for one in IMDS)
"""Routes that keep a container from it."""


_THERE_OR_NO_IPV6: Final = frozenset({errno.EEXIST, errno.EAFNOSUPPORT, errno.EOPNOTSUPP})


class Place(NamedTuple):
    """A network namespace that is open."""

    descriptor: int
    link: socket.socket
    """Speaks of it with the kernel."""

    @property
    def path(self) -> str:
        """Return by what it can be entered, also if it has no name any more."""
        return f"/proc/self/fd/{self.descriptor}"


@contextmanager
def open_place(path: str) -> Iterator[Place]:
    """Open a namespace.

    Raises:
        NetlinkError, OSError: it isn't there, or the kernel refused.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with open_netlink(f"/proc/self/fd/{descriptor}", socket.NETLINK_ROUTE) as link:
            yield Place(descriptor, link)
    finally:
        os.close(descriptor)


@contextmanager
def open_host() -> Iterator[Place]:
    """Open the namespace of this process.

    Raises:
        NetlinkError, OSError: the kernel refused.
    """
    descriptor = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with open_netlink(None, socket.NETLINK_ROUTE) as link:
            yield Place(descriptor, link)
    finally:
        os.close(descriptor)


@contextmanager
def open_container(call: Call) -> Iterator[Place | None]:
    """Open the namespace of the container; None if it is gone, as it may be for DEL.

    Raises:
        NetlinkError, OSError: the kernel refused.
    """
    if not call.netns:
        yield None
        return
    with open_place(call.netns) as place:
        yield place


def render_blackholes() -> list[Request]:
    """Return what keeps a container from instance metadata; what is there already is fine."""
    return [
        Request(f"blackhole {one.to}", render_route(one), _THERE_OR_NO_IPV6) for one in BLACKHOLES
    ]


def list_named() -> list[str]:
    """Return the namespaces of the machine that have a name."""
    own = os.stat("/proc/self/ns/net").st_dev  # noqa: PTH116 - no pathlib here
    try:
        names = os.listdir(NETNS_DIR)  # noqa: PTH208
    except FileNotFoundError:
        return []
    named = []
    for path in (f"{NETNS_DIR}/{name}" for name in sorted(names)):
        with suppress(FileNotFoundError):
            if os.stat(path).st_dev == own:  # noqa: PTH116
                named.append(path)
    return named
