"""The driver of what the VPC serves: a resolver and a clock for each task of this agent.

Tasks reach them by their `eth0`, as they reach the metadata endpoint. So security groups don't
count, as on AWS, nothing opens on the machine, and all kinds of ENIs have them.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Collection
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from fargate_agent.drivers import Sweeper
from fargate_agent.drivers.vpc import VpcServices
from fargate_agent.kernel_clock import Clock, read_clock
from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.netlink import NetlinkError
from fargate_agent.network.reasons import kernel_refusals
from fargate_agent.plan import VPC_RESOLVER, TaskPlan
from fargate_agent.plan.names import ZonePlan
from fargate_agent.threads import in_thread
from fargate_agent.vpc.desk import TaskDesk
from fargate_agent.vpc.memory import read_zones, write_zones
from fargate_agent.vpc.resolver import Resolver
from fargate_agent.vpc.shares import Shares
from fargate_agent.vpc.upstream import PORT, Upstream
from fargate_agent.vpc.zones import Asker, Zones

log = logging.getLogger(__name__)


class HostVpcServices(VpcServices, Sweeper):
    """Answers all tasks of this agent from its own process."""

    def __init__(
        self,
        metadata: MetadataNetns,
        file: Path,
        read_servers: Callable[[], tuple[str, ...]],
        *,
        port: int = PORT,
        read_clock: Callable[[], Clock | None] = read_clock,
    ) -> None:
        """Answer nobody yet.

        `file` keeps the private zones; `read_servers` returns the name servers of this machine, and
        may block; they are asked at `port`.
        """
        self._metadata = metadata
        self._file: Final = file
        self._zones: Final = Zones()
        self._resolver: Final = Resolver(self._zones, Upstream(read_servers, port))
        self._shares: Final = Shares()
        self._read_clock = read_clock
        self._desks: dict[str, tuple[TaskPlan, TaskDesk]] = {}
        self._turn = asyncio.Lock()
        self._learning = asyncio.Lock()

    async def __aenter__(self) -> "HostVpcServices":
        await in_thread(lambda: self._zones.learn(read_zones(self._file)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task, _desk in list(self._desks.values()):
            await self._close(task)

    async def ensure(self, task: TaskPlan) -> None:
        if task.id in self._desks:
            return
        desk = TaskDesk(
            asker=Asker.of(task),
            resolver=self._resolver,
            shares=self._shares,
            read_clock=self._read_clock,
        )

        def open_socket(kind: socket.SocketKind, address: tuple[str, int]) -> socket.socket:
            return self._metadata.open_socket(task.netns, kind, address)

        with kernel_refusals("resolver of the VPC"):
            async with self._turn:
                self._desks[task.id] = task, desk
                try:
                    if task.dns.resolver != VPC_RESOLVER:
                        await self._metadata.add_address(task.dns.resolver)
                        await in_thread(self._metadata.add_route, task.netns, task.dns.resolver)
                    await desk.open(open_socket)
                except BaseException:
                    del self._desks[task.id]
                    raise

    async def release(self, task: TaskPlan) -> None:
        await self._close(task)
        if task.dns.resolver not in self._addresses():
            with kernel_refusals("resolver of the VPC"):
                await self._forget_addresses()

    async def sweep(self, kept: Collection[str]) -> list[str]:
        """Give up addresses that no task of this agent asks at, after a crash."""
        del kept
        try:
            await self._forget_addresses()
        except (NetlinkError, OSError) as error:
            log.warning("could not give up addresses of the resolver of the VPC: %s", error)
        return []

    async def learn(self, zones: Collection[ZonePlan]) -> None:
        async with self._learning:  # what came last is what is kept
            await in_thread(self._zones.learn, zones)
            await in_thread(write_zones, self._file, zones)

    async def _close(self, task: TaskPlan) -> None:
        _, desk = self._desks.pop(task.id, (None, None))
        if desk is not None:
            await desk.close()

    async def _forget_addresses(self) -> None:
        async with self._turn:
            await self._metadata.keep_addresses(self._addresses())

    def _addresses(self) -> set[IPv4Address]:
        return {task.dns.resolver for task, _ in self._desks.values()}
