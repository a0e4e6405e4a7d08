"""The interface of an ENI, made before it is known whose it is: with the network namespace.

To make a pair takes the kernel a millisecond, and the first packet through it may get lost for a
while after it. So a namespace that no task has yet holds the first interface of its task, up, and
the agent has a socket in there. `eth1` is then given the ENI's MAC and addresses, or taken away for
an ENI of another kind.
"""

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from fargate_agent.network.blocking import NetlinkError, delete_link, open_netlink
from fargate_agent.network.pair import Pair, PairMaker, find_inside, wait_until_passing
from fargate_agent.threads import in_thread


class PreparedEnis:
    """The pairs of one agent that wait for their ENI, by the namespace that they are in."""

    def __init__(self, instance: str, ifname: str) -> None:
        """`instance` tells this agent from others; `ifname` is a task's first interface."""
        self.instance: Final = instance
        self.pairs: Final = PairMaker(instance)
        self.ifname: Final = ifname
        self._waiting: dict[int, tuple[Pair, socket.socket]] = {}

    def make(self, netns: Path) -> None:
        """Make the pair of a namespace that has none. Blocks, for a millisecond.

        Raises:
            NetlinkError, OSError: the kernel refused.
        """
        with ExitStack() as opened:
            task = opened.enter_context(open_netlink(netns, socket.NETLINK_ROUTE))
            host = open_netlink(None, socket.NETLINK_ROUTE)
            with host:
                pair = self.pairs.make(netns, self.ifname, task, host)
            self._waiting[netns.stat().st_ino] = pair, task
            opened.pop_all()

    async def wait_until_passing(self, netns: Path) -> None:
        """Return when packets go both ways through the pair of a namespace that has one.

        Raises:
            NetlinkError, OSError: the kernel refused.
        """
        waiting = self._find(netns)
        if waiting is not None:
            pair, task = waiting
            with open_netlink(None, socket.NETLINK_ROUTE) as host:
                await wait_until_passing(pair, task, host)

    def _find(self, netns: Path) -> tuple[Pair, socket.socket] | None:
        return self._waiting.get(netns.stat().st_ino)

    def take(self, netns: Path, ifname: str) -> tuple[Pair, socket.socket] | None:
        """Return the pair of a namespace, and a netlink socket in there; the caller closes it.

        None: there is none, or it has another name, or another agent made it.
        """
        if ifname != self.ifname:
            return None
        try:
            return self._waiting.pop(netns.stat().st_ino, None)
        except FileNotFoundError:
            return None

    def forget(self, netns: Path) -> None:
        """Hold nothing of a namespace any more, if it is there; the pair goes with it.

        Raises:
            OSError: the path can't be looked at.
        """
        try:
            waiting = self._waiting.pop(netns.stat().st_ino, None)
        except FileNotFoundError:
            return
        if waiting is not None:
            waiting[1].close()

    async def discard(self, netns: Path) -> None:
        """Return when the name of a task's first interface is free for one of another kind.

        An interface that wasn't made by `make`, or has its ENI, stays.

        Raises:
            NetlinkError: the kernel refused.
        """
        self.forget(netns)
        await in_thread(self._discard, netns)

    def close(self) -> None:
        """Hold nothing of any namespace."""
        while self._waiting:
            self._waiting.popitem()[1][1].close()

    def _discard(self, netns: Path) -> None:
        with (
            open_netlink(netns, socket.NETLINK_ROUTE) as task,
            open_netlink(None, socket.NETLINK_ROUTE) as host,
        ):
            if find_inside(task, self.ifname) is None:
                return
            try:
                found = self.pairs.find(self.ifname, task, host)
            except NetlinkError:  # it is somebody else's
                return
        if found is not None and not found[1].alias:
            delete_link(None, found[0].index)
