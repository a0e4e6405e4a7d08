"""The two ends of an ENI: a pair of interfaces, one on the host, one in the task's namespace.

Neither asks for the MAC of a neighbour, and both have that of the ENI. So all that the task sends
is for the host, which delivers by address as the router of a VPC does, and nothing that the task
says about MACs is heard.

All functions but one block, for a millisecond at most.
"""

import asyncio
import errno
import fcntl
import secrets
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent.network.blocking import (
    NLM_F_ACK,
    NLM_F_REQUEST,
    NetlinkError,
    Request,
    ask,
    read_attributes,
    render_message,
    require_each,
)
from fargate_agent.network.names import host_end_name, host_end_prefix
from fargate_agent.network.netlink import NO_IPV6
from fargate_agent.network.rtnetlink import (
    LINK,
    LINK_ALIAS,
    LINK_LINK,
    LINK_MASTER,
    LINK_NAME,
    NO_ARP,
    UP,
    render_link,
    render_no_own_address,
    render_pair,
    render_router_settings,
)
from fargate_agent.network.sysctl import HOST_END_SETTINGS, write_settings

MTU: Final = 9001
"""Of an ENI, if its subnet says nothing else. Source: EC2 User Guide, "Network MTU"."""

_GET_LINK: Final = 18
_SIOCGIFINDEX: Final = 0x8933
"""Source: Linux, include/uapi/linux/sockios.h."""
_REQUEST: Final = struct.Struct("=16si20x")
"""A name, and room for an index. Source: Linux, include/uapi/linux/if.h, `struct ifreq`."""
_RUNNING: Final = 0x40
"""Set by the worker that has the interface send. Source: Linux, include/uapi/linux/if.h,
`IFF_RUNNING`; net/core/link_watch.c."""
_TRIES: Final = 100

PASSING_TIMEOUT_S: Final = 3.0
PASSING_POLL_S: Final = 0.001
"""Most often the first look already finds it so."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Where the two ends of an ENI are."""

    name: str
    """Of the host's end."""
    index: int
    """The same."""
    inside: int
    """Index of the end in the task's namespace."""


@dataclass(frozen=True, slots=True)
class End:
    """What the kernel says of one interface."""

    index: int
    name: str
    peer: int | None
    """Index of the other end, in whatever namespace that is."""
    master: int | None
    """Index of the bridge that it is a port of."""
    alias: str
    passes: bool
    """Whether packets go through it: it is up, has a carrier, and has begun to send."""


class PairMaker:
    """Makes the pairs of one agent; the host's ends are numbered."""

    def __init__(self, instance: str) -> None:
        """`instance` tells this agent from others on the machine."""
        self._instance = instance
        # The ends of the agent before are still there.
        self._number = secrets.randbelow(2**32)

    def make(self, netns: Path, ifname: str, task: socket.socket, host: socket.socket) -> Pair:
        """Make a pair whose ends are up, `ifname` in a namespace. `task` and `host` speak of both.

        Raises:
            NetlinkError: the kernel refused, or the namespace has an interface of that name.
            OSError: a setting can't be made.
        """
        mac = ":".join(f"{octet:02x}" for octet in (0x02, *secrets.token_bytes(5)))
        what = f"make interface {ifname}"
        with netns.open("rb") as namespace:
            for _ in range(_TRIES):
                self._number = (self._number + 1) % 2**32
                name = host_end_name(self._instance, self._number)
                request = render_pair(name, ifname, namespace.fileno(), mac=mac, mtu=MTU)
                try:
                    ask(host, what, request)
                except NetlinkError as error:
                    is_taken = error.code == errno.EEXIST
                    if not is_taken or find_inside(task, ifname) is not None:
                        raise
                else:
                    break
            else:
                raise NetlinkError(what, errno.EEXIST)
        index, inside = find_inside(host, name), find_inside(task, ifname)
        if index is None or inside is None:
            raise NetlinkError(what, errno.ENODEV)
        pair = Pair(name, index, inside)
        settle(pair, task, host)
        return pair

    def find(
        self, ifname: str, task: socket.socket, host: socket.socket
    ) -> tuple[Pair, End] | None:
        """Return the pair whose end in a namespace has that name, with the host's end.

        Raises:
            NetlinkError: an interface that isn't the agent's has that name.
        """
        inside = find_inside(task, ifname)
        if inside is None:
            return None
        there = read_end(task, inside)
        here = read_end(host, there.peer) if there is not None and there.peer else None
        if here is None or here.peer != inside or not self.is_ours(here.name):
            raise NetlinkError(f"make interface {ifname}", errno.EEXIST)
        return Pair(here.name, here.index, inside), here

    def is_ours(self, name: str) -> bool:
        """Whether an interface of the host is an end that this agent has made."""
        return name.startswith(host_end_prefix(self._instance))


def settle(pair: Pair, task: socket.socket, host: socket.socket) -> None:
    """Make two ends what they have to be, however they were made, and switch them on.

    Raises:
        NetlinkError: the kernel refused.
        OSError: a setting can't be made.
    """
    what = "set up interface"
    require_each(
        host,
        [
            Request(what, render_link(pair.index, master=0, flags=NO_ARP)),
            Request(what, render_router_settings(pair.index)),
            Request(what, render_no_own_address(pair.index), NO_IPV6),
        ],
    )
    write_settings({path.format(name=pair.name): to for path, to in HOST_END_SETTINGS.items()})
    require_each(
        task,
        [
            Request(what, render_no_own_address(pair.inside), NO_IPV6),
            Request(what, render_link(pair.inside, flags=NO_ARP | UP)),
        ],
    )
    require_each(host, [Request(what, render_link(pair.index, flags=UP))])


def find_inside(link: socket.socket, name: str) -> int | None:
    """Return the index of an interface in the namespace of a socket; needs no thread to go there.

    Raises:
        NetlinkError: the kernel refused.
    """
    try:
        answer = fcntl.ioctl(link, _SIOCGIFINDEX, _REQUEST.pack(name.encode(), 0))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise NetlinkError(f"find {name}", error.errno or errno.EIO) from error
    index: int = _REQUEST.unpack(answer)[1]
    return index


def read_end(link: socket.socket, index: int) -> End | None:
    """Return what there is of the index, in the namespace of a socket.

    Raises:
        NetlinkError: the kernel refused.
    """
    request = render_message(
        _GET_LINK, NLM_F_REQUEST | NLM_F_ACK, LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    )
    try:
        (answer,) = ask(link, "find interface", request)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise
    found = read_attributes(answer.payload[LINK.size :])
    flags: int = LINK.unpack_from(answer.payload)[3]
    return End(
        index=index,
        name=_read_text(found, LINK_NAME),
        peer=_read_number(found, LINK_LINK),
        master=_read_number(found, LINK_MASTER),
        alias=_read_text(found, LINK_ALIAS),
        passes=bool(flags & _RUNNING),
    )


async def wait_until_passing(pair: Pair, task: socket.socket, host: socket.socket) -> None:
    """Return when packets go both ways through a pair that is up.

    The kernel gets there some milliseconds after it was brought up, by a worker of its own, one end
    after the other. Until then it drops packets, and a lost first one costs its sender a second.

    Raises:
        NetlinkError: the kernel refused.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(PASSING_TIMEOUT_S):
            while not _pass_both(pair, task, host):  # noqa: ASYNC110 - the kernel has no Event
                await asyncio.sleep(PASSING_POLL_S)


def _pass_both(pair: Pair, task: socket.socket, host: socket.socket) -> bool:
    return _passes(task, pair.inside) and _passes(host, pair.index)


async def wait_until_named_pass(ends: Sequence[tuple[socket.socket, str]]) -> None:
    """Return when packets go through interfaces that are up, each in the namespace of a socket.

    Raises:
        NetlinkError: the kernel refused.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(PASSING_TIMEOUT_S):
            for link, name in ends:
                index = find_inside(link, name)
                while index is not None and not _passes(link, index):  # noqa: ASYNC110 - as above
                    await asyncio.sleep(PASSING_POLL_S)


def _passes(link: socket.socket, index: int) -> bool:
    end = read_end(link, index)
    return end is None or end.passes  # one that has gone is nobody's to wait for


def _read_text(attributes: dict[int, bytes], kind: int) -> str:
    return attributes.get(kind, b"").rstrip(b"\0").decode(errors="replace")


def _read_number(attributes: dict[int, bytes], kind: int) -> int | None:
    value = attributes.get(kind)
    return None if value is None else struct.unpack("=I", value)[0]
