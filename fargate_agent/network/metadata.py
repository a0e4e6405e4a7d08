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
from contextlib import ExitStack
from ipaddress import IPv4Interface, IPv4Network
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
from fargate_agent.network.rtnetlink import (
    render_link_address,
    render_link_route,
    render_pair,
    render_up,
)
from fargate_agent.network.sysctl import METADATA_SETTINGS, write_settings
from fargate_agent.plan import METADATA_IFNAME, TMDS_ADDRESS
from fargate_agent.threads import in_thread

TASK_ADDRESS: Final = IPv4Interface("169.254.172.2/22")
MTU: Final = 1500
"""What a task on Fargate sees on its eth0. Source: jambonz-feature-server issue 876."""
MAC: Final = "0a:58:a9:fe:ac:02"
"""Of both ends, so that each sends to the other without asking for its MAC. As the bridge plugin of
CNI makes it: 0a:58 and the address. Source: the same."""
PORT: Final = 80

_ENDPOINT: Final = IPv4Network((TMDS_ADDRESS, 32))


class MetadataNetns:
    """The namespace in which one agent answers its tasks about themselves."""

    def __init__(self, instance: str, netns_dir: Path) -> None:
        """`instance` tells this agent from others on the machine; short, and without a colon."""
        self.path: Final = netns_dir / metadata_netns_name(instance)
        self._alias = instance_alias(instance)
        self._making = asyncio.Lock()

    async def connect(self, netns: Path) -> None:
        """Return when a task's namespace has its `eth0`, with address and route.

        Raises:
            NetlinkError, OSError: the kernel refused.
        """
        await self._ensure()
        await in_thread(self._connect, netns)

    def bind(self, netns: Path) -> socket.socket:
        """Return a socket bound to the metadata address, which the task of a namespace reaches.

        Takes well under a millisecond.

        Raises:
            OSError: the task's namespace is not connected, or the kernel refused.
        """
        with ExitStack() as opened:
            with inside(self.path):
                listener = opened.enter_context(socket.socket())
            device = metadata_end_name(netns).encode()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((str(TMDS_ADDRESS), PORT))
            opened.pop_all()
        return listener

    async def release(self) -> None:
        """Take the namespace away; the `eth0` of each task goes with it.

        Raises:
            OSError: the kernel refused.
        """
        await in_thread(unmount_netns, self.path)

    async def _ensure(self) -> None:
        """Make the namespace unless it is there: complete first, named last."""
        async with self._making:
            if is_netns(self.path):
                return
            with ExitStack() as opened:
                namespace = await in_thread(lambda: opened.enter_context(make_netns()))
                made = Path(f"/proc/self/fd/{namespace.fileno()}")
                with inside(made):
                    write_settings(METADATA_SETTINGS)
                async with Netlink.open(made) as netlink:
                    await netlink.add_address(LOOPBACK_INDEX, IPv4Interface(_ENDPOINT))
                    await netlink.set_up(LOOPBACK_INDEX, self._alias)
                await in_thread(mount_netns, namespace, self.path)

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
                + render_link_route(index, _ENDPOINT, NLM_F_ACK),
            )


def _make_pair(here: socket.socket, name: str, netns: Path) -> None:
    left = find_index(METADATA_IFNAME, netns)
    if left is not None:  # its other end is in a namespace that has lost its name
        delete_link(netns, left)
    with netns.open("rb") as namespace:
        pair = render_pair(name, METADATA_IFNAME, namespace.fileno(), mac=MAC, mtu=MTU)
        ask(here, f"make interface {METADATA_IFNAME}", pair)
