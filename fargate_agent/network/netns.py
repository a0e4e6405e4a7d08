"""The network namespace of a task: made complete first, named last.

A namespace gets its name in the file system when everything in it is in place. So one that has a
name needs nothing more, and a crash before that leaves an empty file at most.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from io import FileIO
from ipaddress import IPv4Interface, IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from fargate_agent.drivers import NetnsDriver, Service, Sweeper
from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.names import NETNS_PREFIX, instance_alias, metadata_netns_name
from fargate_agent.network.namespaces import (
    inside,
    is_netns,
    make_netns,
    mount_netns,
    unmount_netns,
)
from fargate_agent.network.netlink import LOOPBACK_INDEX, NO_IPV6, Netlink, NetlinkError
from fargate_agent.network.prepared import PreparedEnis
from fargate_agent.network.reasons import kernel_refusals
from fargate_agent.network.sysctl import TASK_SETTINGS, write_settings
from fargate_agent.plan import TMDS_ADDRESS
from fargate_agent.threads import in_thread

log = logging.getLogger(__name__)

IMDS_V4: Final = IPv4Network("169.254.169.254/32")
IMDS_V6: Final = IPv6Network("fd00:ec2::254/128")
"""Instance metadata, which no task may read. Source: amazon-ecs-cni-plugins, plugins/eni/engine."""

SPARE_AFTER_S: Final = 0.5
"""When the next one is made after one was taken: the containers of its task go first."""


class KernelNetns(NetnsDriver, Service, Sweeper):
    """Network namespaces of the kernel this agent runs on."""

    def __init__(
        self,
        instance: str,
        netns_dir: Path,
        has_tasks: Callable[[], bool],
        eni_ifname: str = "eth1",
    ) -> None:
        """Make nothing yet.

        `instance` tells this agent from others on the machine; short, and without a colon.
        `has_tasks` says whether there may be a task of which not everything was taken back.
        `eni_ifname` is a task's first interface, which is made with the namespace.
        """
        self._instance = instance
        self._netns_dir = netns_dir
        self._has_tasks = has_tasks
        self.metadata: Final = MetadataNetns(instance, netns_dir)
        self.prepared: Final = PreparedEnis(instance, eni_ifname)
        self._spare: FileIO | None = None
        self._taken = asyncio.Event()

    async def __aexit__(self, *_: object) -> None:
        self.prepared.close()
        if self._spare is not None:
            self._spare.close()

    async def serve(self) -> None:
        """Have a namespace ready before a task wants one, until cancelled.

        It has no name, so it goes with this process. In the end what serves all tasks is taken away
        too, unless there are tasks.
        """
        try:
            while True:
                with ExitStack() as opened:
                    self._spare = await self._make(opened)
                    opened.pop_all()
                self._taken.clear()
                await self._taken.wait()
                await asyncio.sleep(SPARE_AFTER_S)
        finally:
            if not self._has_tasks():
                with suppress(OSError):  # the next agent takes it over
                    await self.metadata.release()

    async def ensure(self, netns: Path) -> None:
        with kernel_refusals("network namespace"), ExitStack() as opened:
            if is_netns(netns):
                await self._renew(netns)
                return
            namespace = self._take_spare(opened) or await self._make(opened)
            await in_thread(mount_netns, namespace, netns)

    async def release(self, netns: Path) -> None:
        with kernel_refusals("network namespace"):
            self.prepared.forget(netns)
            await in_thread(unmount_netns, netns)

    async def sweep(self, kept: Collection[str]) -> list[str]:
        """Where tasks find their metadata stays as long as a task is kept."""
        names = {f"{NETNS_PREFIX}{task_id}" for task_id in kept}
        shared = {metadata_netns_name(self._instance)} if kept else set()
        swept = []
        for netns in await in_thread(_list_netns, self._netns_dir):
            try:
                if netns.name not in names | shared and await self._is_ours(netns):
                    self.prepared.forget(netns)
                    await in_thread(unmount_netns, netns)
                    log.info("swept %s", netns.name)
                    swept.append(netns.name)
            except (NetlinkError, OSError) as error:
                log.warning("could not clean up network namespace %s: %s", netns.name, error)
        return swept

    async def _is_ours(self, netns: Path) -> bool:
        """An empty file has no owner; whoever is about to mount on it makes another."""
        if not is_netns(netns):
            return True
        async with Netlink.open(netns) as netlink:
            loopback = await netlink.get_link("lo")
        return loopback.alias == instance_alias(self._instance)

    def _take_spare(self, opened: ExitStack) -> FileIO | None:
        spare, self._spare = self._spare, None
        if spare is not None:
            opened.enter_context(spare)
            self._taken.set()
        return spare

    async def _make(self, opened: ExitStack) -> FileIO:
        namespace = await in_thread(_make_quiet_netns, opened)
        netns = Path(f"/proc/self/fd/{namespace.fileno()}")
        await self._furnish(netns)
        await in_thread(self.prepared.make, netns)
        await self.prepared.wait_until_passing(netns)
        return namespace

    async def _furnish(self, netns: Path) -> None:
        await self.metadata.connect(netns)
        async with Netlink.open(netns) as netlink:
            await netlink.set_up(LOOPBACK_INDEX, instance_alias(self._instance))
            await netlink.blackhole(IMDS_V4)
            try:
                await netlink.blackhole(IMDS_V6)
            except NetlinkError as error:
                if error.code not in NO_IPV6:
                    raise

    async def _renew(self, netns: Path) -> None:
        """Complete a namespace that another agent has made, or somebody has damaged.

        Older agents listened on the loopback of the task. The address would be found there first.
        """
        with inside(netns):
            write_settings(TASK_SETTINGS)
        await self._furnish(netns)
        async with Netlink.open(netns) as netlink:
            await netlink.remove_address(LOOPBACK_INDEX, IPv4Interface((TMDS_ADDRESS, 32)))


def _make_quiet_netns(opened: ExitStack) -> FileIO:
    """Make one that takes nothing from neighbours but what is for the task itself.

    It is closed with `opened`, also when nobody waits for it any more.
    """
    namespace = opened.enter_context(make_netns())
    with inside(Path(f"/proc/self/fd/{namespace.fileno()}")):
        write_settings(TASK_SETTINGS)
    return namespace


def _list_netns(netns_dir: Path) -> list[Path]:
    return sorted(netns_dir.glob(f"{NETNS_PREFIX}*"))
