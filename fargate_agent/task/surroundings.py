"""What the containers of one task have in common."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from fargate_agent.drivers import Drivers, ExitStatus
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.parallel import first_of
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.task.network import TaskNetwork
from fargate_agent.task.pulls import Pulls
from fargate_agent.task.status import TaskFacts, TaskStatus

INTERRUPT_AFTER_S: Final = 3.0
"""A process that has been killed is gone by then, unless it waits for a disk or a file server."""


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What a container needs of its task while it runs."""

    plan: TaskPlan
    facts: TaskFacts
    drivers: Drivers
    pulls: Pulls
    network: TaskNetwork
    hurry: asyncio.Event
    """Set when the stop timeouts of containers count no more."""
    is_new: bool
    """Whether it is certain that no agent has run this task before."""
    advance: Callable[[TaskStatus], Awaitable[None]]
    """Writes the facts down and tells the control plane; the task is as far as it says."""
    save: Callable[[], Awaitable[None]]
    """Writes the facts down for the next agent."""
    log_uris: dict[str, str | None] = field(default_factory=dict)
    """Where the output goes, by the name of the container."""
    settled: set[str] = field(default_factory=set)
    """Names of the containers that run, have run or never will, as far as this agent knows."""

    def choose_loggers(self) -> None:
        """Decide where the output of every container goes, before anything is made.

        Raises:
            ResourceInitializationError: a log driver is unknown here, or an option is wrong.
        """
        for container in self.plan.containers:
            driver = self.drivers.logs.get(container.log.driver)
            if driver is None:
                raise ResourceInitializationError(
                    "failed to initialize logging driver: "
                    f"log driver '{container.log.driver}' is not supported here",
                    container=container.name,
                )
            self.log_uris[container.name] = driver.uri(self.plan, container)

    def is_made_after_network(self, container: ContainerPlan) -> bool:
        """Whether the creation of a container needs the network: its logger, or a volume."""
        kinds = {volume.name: volume.kind for volume in self.plan.volumes}
        drivers = [self.drivers.volumes[kinds[m.volume]] for m in container.mounts if m.volume]
        return self.drivers.logs[container.log.driver].needs_network or any(
            driver.needs_network for driver in drivers
        )

    async def interrupt_volumes(self, container: ContainerPlan) -> None:
        """Interrupt again and again who waits for a volume, from a while after the kill on.

        Never returns. A process that waits for a file server doesn't end when it is killed.
        """
        mounted = {mount.volume for mount in container.mounts}
        drivers = self.drivers.volumes
        remote = [
            volume
            for volume in self.plan.volumes
            if volume.name in mounted and drivers[volume.kind].needs_network
        ]
        if not remote:
            await asyncio.Event().wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(container.stop_timeout_s):
                await self.hurry.wait()
        while True:
            await asyncio.sleep(INTERRUPT_AFTER_S)
            for volume in remote:
                await drivers[volume.kind].interrupt(self.plan, volume)

    async def stop_within(self, left_s: float, container: ContainerPlan) -> ExitStatus | None:
        """Stop a container; what is left of its stop timeout counts until the task is hurried.

        Raises:
            CannotStopContainerError: it is still there.
        """
        found: list[ExitStatus | None] = []

        async def stop(timeout_s: float) -> None:
            shortened = replace(container, stop_timeout_s=max(0, math.ceil(timeout_s)))
            found.append(await self.drivers.runtime.stop(shortened))

        async def be_hurried() -> None:
            await self.hurry.wait()

        if not self.hurry.is_set():
            await first_of(stop(left_s), be_hurried())
        if not found:
            await stop(0)
        return found[0]

    async def confirm_addresses(self) -> None:
        """Return if nobody else was heard to have an address of the task.

        Raises:
            ResourceInitializationError: an address is in use.
        """
        for eni in self.plan.enis:
            await self.drivers.enis[eni.kind].confirm(eni, self.plan.netns)

    async def report(self) -> None:
        """Report the facts. A task is RUNNING when all of its containers are settled."""
        await self.advance(TaskStatus.RUNNING if self._is_up() else self.facts.status)

    async def report_start(self, container: ContainerPlan) -> None:
        """Report a first start. While the task isn't up, only one that others wait for is told."""
        is_told = self._is_up() or container.stops_after
        await (self.report() if is_told else self.save())

    def _is_up(self) -> bool:
        return len(self.settled) == len(self.plan.containers)
