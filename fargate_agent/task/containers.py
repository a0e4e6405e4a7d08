"""The containers of one task: in which order they start, and what their end means."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from fargate_agent.drivers import Drivers, ExitStatus, Image
from fargate_agent.errors import (
    ContainerRuntimeError,
    OutOfMemoryError,
    ResourceInitializationError,
    TaskDependencyError,
)
from fargate_agent.parallel import first_of, together
from fargate_agent.plan import Condition, ContainerPlan, DependencyPlan, TaskPlan
from fargate_agent.task.status import ContainerStatus, TaskFacts, TaskStatus

log = logging.getLogger(__name__)

current_container: Final[ContextVar[str]] = ContextVar("current_container", default="")
"""Name of the container that the running coroutine works for, for the fields of the log."""


LOGGER_END_S: Final = 1.0
"""How much later than that of its logger the end of a container may be noticed, if both ended
together, e.g. with their shim."""


class _EssentialExitedError(Exception):
    """An essential container has ended, so the task ends. Never leaves this module."""


class _Life:
    """What other containers wait for."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.exited: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()


class ContainerRuns:
    """Starts, watches and stops the containers of one task, and notes the facts."""

    def __init__(
        self,
        plan: TaskPlan,
        facts: TaskFacts,
        images: Mapping[str, Image],
        drivers: Drivers,
        save: Callable[[], Awaitable[None]],
    ) -> None:
        """`save` writes the facts down for the next agent."""
        self._save = save
        self._plan = plan
        self._facts = facts
        self._images = images
        self._drivers = drivers
        self._lives = {container.name: _Life() for container in plan.containers}
        self._log_uris: dict[str, str | None] = {}
        self.network = asyncio.Event()
        """Set when the network of the task can be used; no container starts before."""

    def choose_loggers(self) -> None:
        """Decide where the output of every container goes, before anything is made.

        Raises:
            ResourceInitializationError: a log driver is unknown here, or an option is wrong.
        """
        for container in self._plan.containers:
            driver = self._drivers.logs.get(container.log.driver)
            if driver is None:
                raise ResourceInitializationError(
                    "failed to initialize logging driver: "
                    f"log driver '{container.log.driver}' is not supported here",
                    container=container.name,
                )
            self._log_uris[container.name] = driver.uri(self._plan, container)

    async def confirm_addresses(self) -> None:
        """Return if nobody else was heard to have an address of the task.

        Raises:
            ResourceInitializationError: an address is in use.
        """
        for eni in self._plan.enis:
            await self._drivers.enis[eni.kind].confirm(eni, self._plan.netns)

    async def run(self, advance: Callable[[TaskStatus], Awaitable[None]]) -> None:
        """Start every container when its dependencies allow; return when an essential one ended.

        Raises:
            TaskError: a container can't be created or started, or a dependency can't be met.
        """
        try:
            await together(self._run_one(c, advance) for c in self._plan.containers)
        except _EssentialExitedError:
            return

    async def start(self, container: ContainerPlan) -> None:
        """Create and start one container; one that runs, or has run, is left as it is.

        Raises:
            TaskError: it can't be created or started.
        """
        facts = self._facts.containers[container.name]
        runtime = self._drivers.runtime
        exists = await runtime.exists(container)
        if facts.started_at is not None and not exists:
            raise ContainerRuntimeError(
                f"container '{container.name}' vanished while no agent ran",
                container=container.name,
            )
        if not exists:
            if self._drivers.logs[container.log.driver].needs_network:
                await self.network.wait()
            with_secrets = await self._add_secrets(container)
            facts.begin_run(datetime.now(UTC))
            await runtime.create(
                self._plan,
                with_secrets,
                self._images[container.image],
                self._log_uris[container.name],
            )
        await self.network.wait()
        await self.confirm_addresses()
        await runtime.start(self._plan, container)
        run = facts.runs[-1] if facts.runs else facts.begin_run(None)
        run.started_at = run.started_at or datetime.now(UTC)
        if facts.status is ContainerStatus.PENDING:
            facts.status = ContainerStatus.RUNNING

    async def _add_secrets(self, container: ContainerPlan) -> ContainerPlan:
        """Return the container with the secrets of its environment, as only its creation sees it.

        Raises:
            ResourceInitializationError: one is not to be had.
        """
        if not container.secrets:
            return container
        await self.network.wait()
        wanted = set(container.secrets.values())
        values = await self._drivers.secrets.fetch(self._plan, wanted)
        own = {name: values[one] for name, one in container.secrets.items()}
        return replace(container, environment={**container.environment, **own})

    async def stop(self, container: ContainerPlan) -> None:
        """End one container and remove it; its exit code is kept if it isn't known yet.

        Its stop timeout counts from when the first agent began this.

        Raises:
            CannotStopContainerError: it is still there.
        """
        current_container.set(container.name)
        facts, clock = self._facts.containers[container.name], asyncio.get_running_loop()
        if facts.stop_began_s is None and not facts.has_ended:
            facts.stop_began_s = clock.time()
            try:
                await self._save()
            except OSError as error:  # a full disk keeps nothing from ending
                log.warning("the beginning of a stop was not written down: %s", error)
        passed_s = 0 if facts.stop_began_s is None else clock.time() - facts.stop_began_s
        left_s = container.stop_timeout_s - passed_s
        shortened = replace(container, stop_timeout_s=max(0, math.ceil(left_s)))
        status = await self._drivers.runtime.stop(shortened)
        if status is not None and not facts.has_ended:
            self._note_exit(container, status)
        facts.status = ContainerStatus.STOPPED

    async def _run_one(
        self, container: ContainerPlan, advance: Callable[[TaskStatus], Awaitable[None]]
    ) -> None:
        current_container.set(container.name)
        for dependency in container.depends_on:
            await self._reach(container, dependency)
        await self.start(container)
        life = self._lives[container.name]
        life.started.set()
        if all(other.started.is_set() for other in self._lives.values()):
            await advance(TaskStatus.RUNNING)
        status = await self._wait(container, advance)
        self._note_exit(container, status)
        life.exited.set_result(status)
        if container.essential:
            raise _EssentialExitedError
        await advance(self._facts.status)

    async def _wait(
        self, container: ContainerPlan, advance: Callable[[TaskStatus], Awaitable[None]]
    ) -> ExitStatus:
        """Return how a container ended; say so if its logger ends before it.

        The output is lost from then on. The task goes on: only its owner knows what that is worth.
        """
        runtime, exits = self._drivers.runtime, list[ExitStatus]()

        async def end() -> None:
            exits.append(await runtime.wait(container))

        async def lose_logger() -> None:
            await runtime.watch_logger(container)
            await asyncio.sleep(LOGGER_END_S)

        await first_of(end(), lose_logger())
        if not exits:
            text = f"the logger '{container.log.driver}' has ended: output is lost from now on"
            facts = self._facts.containers[container.name]
            facts.reason = ContainerRuntimeError(text).reason
            log.error("container %s: %s", container.name, text)
            await advance(self._facts.status)
            await end()
        return exits[0]

    async def _reach(self, container: ContainerPlan, dependency: DependencyPlan) -> None:
        """Wait until a dependency is as it should be.

        Raises:
            TaskDependencyError: it never will be, or not within its start timeout.
        """
        life = self._lives[dependency.container]
        await life.started.wait()
        if dependency.condition is Condition.START:
            return
        timeout_s = next(
            c.start_timeout_s for c in self._plan.containers if c.name == dependency.container
        )
        try:
            async with asyncio.timeout(timeout_s):
                status = await asyncio.shield(life.exited)
        except TimeoutError:
            raise TaskDependencyError(
                f"container '{container.name}' waited {timeout_s} s for container "
                f"'{dependency.container}' to be {dependency.condition}",
                container=container.name,
            ) from None
        if dependency.condition is Condition.SUCCESS and status.code != 0:
            raise TaskDependencyError(
                f"container '{container.name}' needs the SUCCESS of container "
                f"'{dependency.container}', which ended with exit code {status.code}",
                container=container.name,
            )

    def _note_exit(self, container: ContainerPlan, status: ExitStatus) -> None:
        facts = self._facts.containers[container.name]
        facts.status = ContainerStatus.STOPPED
        run = facts.runs[-1] if facts.runs else facts.begin_run(None)
        run.exit_code, run.finished_at = status.code, status.at
        if status.oom_killed:
            # Source: ECS developer guide, stopped task error messages.
            facts.reason = OutOfMemoryError("container killed due to memory usage").reason
        elif status.stop_failed is not None:
            facts.reason = status.stop_failed
        log.info("container %s ended with exit code %d", container.name, status.code)
        if container.essential and self._facts.execution_stopped_at is None:
            self._facts.execution_stopped_at = status.at
