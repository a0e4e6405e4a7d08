"""Where tasks and their metadata endpoints meet: a network namespace of the agent's own.

Each task has `eth0`, as on Fargate: one end of a pair of interfaces, whose other end is in that
namespace. All tasks have the same address on it. What tells them apart is the interface their
packets come in through, and a listener is bound to the one of its task. So no port of a task is
taken, nothing opens on the host, and the way to the endpoint of another task doesn't exist.

The namespace has a name in the file system, as those of tasks have, so that it outlives the agent.
Packets that come while there is no listener are not answered, and their senders repeat them.
"""

import asyncio
import socket
from collections.abc import Collection
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Final

from fargate_agent.network.blocking import NLM_F_ACK, ask, delete_link, open_netlink
from fargate_agent.network.names import instance_alias, metadata_end_name, metadata_netns_name
from fargate_agent.network.namespaces import (
    inside,
    is_netns,
    make_netns,
    mount_netns,
    unmount_netns,
)
from fargate_agent.network.netlink import LOOPBACK_INDEX, Netlink, find_index, get_index
from fargate_agent.network.pair import wait_until_named_pass
from fargate_agent.network.rtnetlink import (
    render_link_address,
    render_link_route,
    render_pair,
    render_up,
)
from fargate_agent.network.sysctl import METADATA_SETTINGS, write_settings
from fargate_agent.plan import METADATA_IFNAME, TIME_ADDRESS, TMDS_ADDRESS, VPC_RESOLVER
from fargate_agent.threads import in_thread

TASK_ADDRESS: Final = IPv4Interface("169.254.172.2/22")
MTU: Final = 1500
"""What a task on Fargate sees on its eth0. Source: jambonz-feature-server issue 876."""
MAC: Final = "0a:58:a9:fe:ac:02"
"""Of both ends, so that each sends to the other without asking for its MAC. As the bridge plugin of
CNI makes it: 0a:58 and the address. Source: the same."""
PORT: Final = 80

FIXED_ADDRESSES: Final = (TMDS_ADDRESS, VPC_RESOLVER, TIME_ADDRESS)
"""What every task reaches by its `eth0`."""


class MetadataNetns:
    """The namespace in which one agent answers its tasks about themselves."""

    def __init__(self, instance: str, netns_dir: Path) -> None:
        """`instance` tells this agent from others on the machine; short, and without a colon."""
        self.path: Final = netns_dir / metadata_netns_name(instance)
        self._alias = instance_alias(instance)
        self._making = asyncio.Lock()
        self._addresses: set[IPv4Address] | None = None
        """Those that the namespace answers at; None: not known yet."""

    async def connect(self, netns: Path) -> None:
        """Return when a task's namespace has its `eth0`, with address and routes, and it works.

        Raises:
            NetlinkError, OSError: the kernel refused.
        """
        await self._ensure()
        await in_thread(self._connect, netns)
        with (
            open_netlink(self.path, socket.NETLINK_ROUTE) as here,
            open_netlink(netns, socket.NETLINK_ROUTE) as task,
        ):
            ends = ((here, metadata_end_name(netns)), (task, METADATA_IFNAME))
            await wait_until_named_pass(ends)

    def bind(self, netns: Path) -> socket.socket:
        """Return a socket bound to the metadata address, which the task of a namespace reaches.

        Takes well under a millisecond.

        Raises:
            OSError: the task's namespace is not connected, or the kernel refused.
        """
        return self.open_socket(netns, socket.SOCK_STREAM, (str(TMDS_ADDRESS), PORT))

    def open_socket(
        self, netns: Path, kind: socket.SocketKind, address: tuple[str, int]
    ) -> socket.socket:
        """Return a socket that the task of a namespace reaches, and no other, bound to an address.

        Raises:
            OSError: the task's namespace is not connected, or the kernel refused.
        """
        with ExitStack() as opened:
            with inside(self.path):
                bound = opened.enter_context(socket.socket(socket.AF_INET, kind))
            device = metadata_end_name(netns).encode()
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            opened.pop_all()
        return bound

    async def add_address(self, address: IPv4Address) -> None:
        """Answer at a further address of the namespace; one that it has is fine.

        Raises:
            NetlinkError, OSError: the kernel refused.
        """
        await self._ensure()
        async with self._making:
            await self._add_addresses((address,))

    async def keep_addresses(self, kept: Collection[IPv4Address]) -> None:
        """Answer at no address but those that every task reaches, and these.

        Raises:
            NetlinkError, OSError: the kernel refused.
        """
        async with self._making:
            if not is_netns(self.path):
                return
            async with Netlink.open(self.path) as netlink:
                for index, address in await netlink.addresses():
                    is_kept = address.ip.is_loopback or address.ip in {*FIXED_ADDRESSES, *kept}
                    if index == LOOPBACK_INDEX and not is_kept:
                        await netlink.remove_address(index, address)
                        if self._addresses is not None:
                            self._addresses.discard(IPv4Address(address.ip))

    def add_route(self, netns: Path, address: IPv4Address) -> None:
        """Have a task reach a further address by its `eth0`. Blocks, for less than a millisecond.

        Raises:
            NetlinkError: the namespace is not connected, or the kernel refused.
        """
        with open_netlink(netns, socket.NETLINK_ROUTE) as task:
            index = get_index(METADATA_IFNAME, netns)
            ask(task, f"add route to {address}", _render_route(index, address, NLM_F_ACK))

    async def release(self) -> None:
        """Take the namespace away; the `eth0` of each task goes with it.

        Raises:
            OSError: the kernel refused.
        """
        self._addresses = None
        await in_thread(unmount_netns, self.path)

    async def _ensure(self) -> None:
        """Make the namespace unless it is there: complete first, named last.

        One that an older agent made may lack addresses.
        """
        async with self._making:
            if is_netns(self.path):
                if self._addresses is None:
                    await self._add_addresses(FIXED_ADDRESSES)
                return
            with ExitStack() as opened:
                namespace = await in_thread(lambda: opened.enter_context(make_netns()))
                made = Path(f"/proc/self/fd/{namespace.fileno()}")
                with inside(made):
                    write_settings(METADATA_SETTINGS)
                async with Netlink.open(made) as netlink:
                    for address in FIXED_ADDRESSES:
                        await netlink.add_address(LOOPBACK_INDEX, IPv4Interface(address))
                    await netlink.set_up(LOOPBACK_INDEX, self._alias)
                await in_thread(mount_netns, namespace, self.path)
            self._addresses = set(FIXED_ADDRESSES)

    async def _add_addresses(self, addresses: Collection[IPv4Address]) -> None:
        known = self._addresses or set()
        if new := set(addresses) - known:
            async with Netlink.open(self.path) as netlink:
                for address in new:
                    await netlink.add_address(LOOPBACK_INDEX, IPv4Interface(address))
        self._addresses = known | new

    def _connect(self, netns: Path) -> None:
        name, what = metadata_end_name(netns), f"set up {METADATA_IFNAME}"
        with (
            open_netlink(self.path, socket.NETLINK_ROUTE) as here,
            open_netlink(netns, socket.NETLINK_ROUTE) as task,
        ):
            if find_index(name, self.path) is None:
                _make_pair(here, name, netns)
            with inside(netns):
                write_settings({f"ipv6/conf/{METADATA_IFNAME}/disable_ipv6": 1})
            index = get_index(METADATA_IFNAME, netns)
            ask(here, what, render_up(name, NLM_F_ACK))
            ask(
                task,
                what,
                render_link_address(index, TASK_ADDRESS)
                + render_up(METADATA_IFNAME)
                + b"".join(_render_route(index, one) for one in FIXED_ADDRESSES[1:])
                + _render_route(index, TMDS_ADDRESS, NLM_F_ACK),
            )


def _render_route(index: int, address: IPv4Address, flags: int = 0) -> bytes:
    return render_link_route(index, IPv4Network(address), flags)


def _make_pair(here: socket.socket, name: str, netns: Path) -> None:
    left = find_index(METADATA_IFNAME, netns)
    if left is not None:  # its other end is in a namespace that has lost its name
        delete_link(netns, left)
    with netns.open("rb") as namespace:
        pair = render_pair(name, METADATA_IFNAME, namespace.fileno(), mac=MAC, mtu=MTU)
        ask(here, f"make interface {METADATA_IFNAME}", pair)
