"""One container, from PENDING to its last end.

A life is run by one coroutine and ended by another, which begins when the first was cancelled. What
others wait for, and what the next agent goes on with, are its facts.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from fargate_agent.drivers import ExitStatus, Image
from fargate_agent.errors import (
    CannotCreateContainerError,
    ContainerRuntimeError,
    TaskError,
)
from fargate_agent.parallel import first_of, together
from fargate_agent.plan import Condition, ContainerPlan
from fargate_agent.task.conditions import has_reached, is_timed, time_out
from fargate_agent.task.ends import explain_end, is_restarted, seconds_between
from fargate_agent.task.health import check_health
from fargate_agent.task.phases import timing
from fargate_agent.task.status import ContainerFacts, ContainerStatus, HealthFacts, RunFacts
from fargate_agent.task.surroundings import Surroundings

log = logging.getLogger(__name__)

current_container: Final[ContextVar[str]] = ContextVar("current_container", default="")
"""Name of the container that the running coroutine works for, for the fields of the log."""

LOGGER_END_S: Final = 1.0
"""How much later than that of its logger the end of a container may be noticed, if both ended
together, e.g. with their shim."""

STOP_MARGIN_S: Final = 40
"""On top of a container's own stop timeout: SIGKILL, runC, and the 12 s that a shim gives its
logger. Source: containerd, pkg/process, `binaryIOProcTermTimeout`."""


class EssentialExitedError(Exception):
    """An essential container has ended, so the task ends. Never leaves `task.containers`."""


class ContainerLife:
    """What is done with one container. `task.containers` owns it; other lives only wait on it."""

    def __init__(self, plan: ContainerPlan, facts: ContainerFacts, task: Surroundings) -> None:
        self.plan = plan
        self.facts = facts
        self._task = task
        self._runtime = task.drivers.runtime
        self._moved = asyncio.Event()
        self.gone = asyncio.Event()
        self._may_be_there = False
        self._started_here = False
        self._first_start_s: float | None = None
        self._start_s = 0.0
        """When its first and its last run began, by the clock of the event loop."""
        if plan.health is not None and facts.health is None:
            facts.health = HealthFacts()

    async def run(self, others: Mapping[str, "ContainerLife"]) -> None:
        """Bring the container up and watch it, until it has ended for good.

        A failure of a container that isn't essential is its own; it is STOPPED then.

        Raises:
            EssentialExitedError: it has ended, and is essential.
            TaskError: the task can't go on.
        """
        current_container.set(self.plan.name)
        try:
            await self._live(others)
        except TaskError as error:
            is_own = error.container == self.plan.name and not self.plan.essential
            if not is_own or self._task.pulls.ends_task(error):
                raise
            await self._fail(error)
        if self.plan.essential:
            raise EssentialExitedError
        await self._task.report()

    async def reached(self, condition: Condition, target: str) -> None:
        """Return when the container is as the container `target` wants it.

        Raises:
            TaskDependencyError: it never will be, or not within its start timeout.
        """
        while not has_reached(self.facts, condition, target):
            try:
                async with asyncio.timeout_at(self._deadline_s(condition)):
                    await self._moved.wait()
            except TimeoutError:
                raise time_out(self.facts, target) from None

    async def stop(self, dependents: Iterable["ContainerLife"]) -> None:
        """End the container and remove it, when those that depend on it are gone.

        What fails is logged, and keeps nothing else from ending; the facts say STOPPED then too.
        """
        for dependent in dependents:
            await dependent.gone.wait()
        current_container.set(self.plan.name)
        try:
            async with asyncio.timeout(self.plan.stop_timeout_s + STOP_MARGIN_S):
                await first_of(self._end(), self._task.interrupt_volumes(self.plan))
        except Exception as error:  # the others must still end
            text = "could not undo container %s; the sweep at the next start will"
            log.exception(text, self.plan.name)
            self._finish()
            if isinstance(error, TaskError):
                self.facts.reason = error.reason
        self.gone.set()

    async def _live(self, others: Mapping[str, "ContainerLife"]) -> None:
        if self.facts.status is ContainerStatus.STOPPED:
            self._task.settled.add(self.plan.name)
            return  # the agent before has seen its end
        if self.facts.has_ended:  # the agent before has decided to restart it
            runs = await self._restart()
        else:
            await self._make(others)
            await self._start()
            runs = True
        while runs:
            status = await self._watch()
            runs = await self._take_end(status) and await self._restart()

    async def _make(self, others: Mapping[str, "ContainerLife"]) -> None:
        """Create the container, unless it is there.

        Raises:
            TaskError: it can't be created, or what it depends on will never be.
        """
        if not self._task.is_new:
            self._may_be_there = True
            with self._blamed():
                self._may_be_there = await self._runtime.exists(self.plan)
            if self._may_be_there:
                return
        if self.facts.started_at is not None:
            raise ContainerRuntimeError(
                f"container '{self.plan.name}' vanished while no agent ran",
                container=self.plan.name,
            )
        images: list[Image] = []

        async def get_image() -> None:
            images.append(await self._task.pulls.get(self.plan))

        await together(
            [
                get_image(),
                *(
                    others[one.container].reached(one.condition, self.plan.name)
                    for one in self.plan.depends_on
                ),
            ]
        )
        await self._create(images[0])

    async def _create(self, image: Image) -> None:
        if self._task.is_made_after_network(self.plan):
            await self._task.network.wait()
        plan = await self._complete()
        at, self._may_be_there = datetime.now(UTC), True
        log_uri = self._task.log_uris[plan.name]
        with self._blamed(), timing("create", plan.name):
            try:
                await self._runtime.create(
                    self._task.plan, plan, image, log_uri, self._task.network.want
                )
            except CannotCreateContainerError as error:
                if not error.image_is_gone:
                    raise
                image = await self._task.pulls.get_anew(plan, image)
                await self._runtime.create(self._task.plan, plan, image, log_uri)
        self.facts.image_digest = image.digest
        self.facts.runs.clear()
        self.facts.begin_run(at)
        self._move()

    async def _complete(self) -> ContainerPlan:
        """Return the container with what it is given by reference, as only its creation sees it.

        Raises:
            ResourceInitializationError: it could not be fetched. That ends the task.
        """
        if self.plan.refers:
            await self._task.network.wait()
        return await self._task.drivers.secrets.complete(self._task.plan, self.plan)

    async def _start(self) -> None:
        """Start the container that is there; one that runs, or has run, is left as it is.

        Raises:
            TaskError: it can't be started.
        """
        await self._task.network.wait()
        await self._task.confirm_addresses()
        await self._start_run(
            self.facts.runs[-1] if self.facts.runs else self.facts.begin_run(None)
        )

    async def _start_run(self, run: RunFacts) -> None:
        with self._blamed(), timing("start", self.plan.name):
            await self._runtime.start(self._task.plan, self.plan)
        clock_s, now = asyncio.get_running_loop().time(), datetime.now(UTC)
        self._started_here = run.started_at is None
        if run.started_at is None:
            run.started_at = now
            if run is not self.facts.runs[0]:
                self.facts.restart_count += 1
                self.facts.reason = None
        self.facts.status = ContainerStatus.RUNNING
        self._start_s = clock_s - seconds_between(run.started_at, now)
        if self._first_start_s is None and self.facts.started_at is not None:
            self._first_start_s = clock_s - seconds_between(self.facts.started_at, now)
        self._task.settled.add(self.plan.name)
        self._move()
        is_restart = run is not self.facts.runs[0]
        await (self._task.report() if is_restart else self._task.report_start(self.plan))

    async def _restart(self) -> bool:
        """Run the container again in its place; return whether it runs.

        What is written down before and between the two calls lets the next agent go on from there.
        """
        await self._task.network.wait()
        log.info("container %s is restarted", self.plan.name)
        try:
            self._may_be_there = True
            with self._blamed():
                await self._runtime.restart(
                    self._task.plan, self.plan, self._task.log_uris[self.plan.name]
                )
            run = self.facts.begin_run(datetime.now(UTC))
            if self.plan.health is not None:
                self.facts.health = HealthFacts()
            await self._task.save()
            await self._start_run(run)
        except TaskError as error:
            self.facts.drop_run()
            await self._fail(error)
            return False
        return True

    async def _watch(self) -> ExitStatus:
        """Return how the container ended.

        Raises:
            ContainerRuntimeError: nobody knows how.
        """
        exits: list[ExitStatus] = []

        async def end() -> None:
            with self._blamed():
                exits.append(await self._runtime.wait(self.plan))

        watched = [end(), self._watch_logger()]
        if self.plan.health is not None and self.facts.health is not None:
            watched.append(
                check_health(
                    self.plan,
                    self.plan.health,
                    self.facts.health,
                    self._runtime,
                    self._start_s,
                    self._record_health,
                )
            )
        await first_of(*watched)
        return exits[0]

    async def _watch_logger(self) -> None:
        """Say so if the logger ends before its container. Never returns.

        The output is lost from then on. The task goes on: only its owner knows what that is worth.
        """
        await self._runtime.watch_logger(self.plan)
        await asyncio.sleep(LOGGER_END_S)
        text = f"the logger '{self.plan.log.driver}' has ended: output is lost from now on"
        self.facts.reason = ContainerRuntimeError(text).reason
        log.error("container %s: %s", self.plan.name, text)
        await self._task.report()
        await asyncio.Event().wait()

    async def _record_health(self, has_new_status: bool) -> None:
        self._move()
        await (self._task.report() if has_new_status else self._task.save())

    async def _take_end(self, status: ExitStatus) -> bool:
        """Note how a run ended; return whether the container is to be restarted."""
        restarts = is_restarted(self.plan.restart, status, self._ran_s(status))
        self._record_exit(status)
        if restarts:
            await self._task.save()
        else:
            self._finish()
        return restarts

    def _ran_s(self, status: ExitStatus) -> float:
        started_at = self.facts.runs[-1].started_at
        if self._started_here or started_at is None:
            return asyncio.get_running_loop().time() - self._start_s
        return seconds_between(started_at, status.at)  # it may have ended while no agent ran

    async def _fail(self, error: TaskError) -> None:
        """Note that the container has ended by an error, and remove what is left of it."""
        log.warning("container %s: %s", self.plan.name, error.reason)
        self.facts.reason = error.reason
        if self._may_be_there and not self.plan.essential:
            had_started = self.facts.may_run
            try:
                async with asyncio.timeout(STOP_MARGIN_S):
                    status = await self._runtime.stop(replace(self.plan, stop_timeout_s=0))
            except (TaskError, TimeoutError):
                log.exception("container %s: it is removed when its task ends", self.plan.name)
            else:
                if status is not None and had_started:
                    self._record_exit(status)
        self._finish()
        self.facts.reason = error.reason

    async def _end(self) -> None:
        """End the container and remove it; its exit code is kept if it isn't known yet.

        Its stop timeout counts from when the first agent began this.

        Raises:
            CannotStopContainerError: it is still there.
        """
        facts, clock = self.facts, asyncio.get_running_loop()
        if facts.stop_began_s is None and not facts.has_ended:
            facts.stop_began_s = clock.time()
            await self._save_stop()
        passed_s = 0 if facts.stop_began_s is None else clock.time() - facts.stop_began_s
        status = await self._task.stop_within(self.plan.stop_timeout_s - passed_s, self.plan)
        if status is None:
            facts.drop_run()
        had_ended = facts.has_ended
        if status is not None and not had_ended:
            self._record_exit(status)
        self._finish()
        if facts.has_ended and not had_ended:  # nobody can be asked again; others may take minutes
            await self._save_stop()

    async def _save_stop(self) -> None:
        try:
            await self._task.save()
        except OSError as error:  # a full disk keeps nothing from ending
            log.warning("how far a stop is was not written down: %s", error)

    def _record_exit(self, status: ExitStatus) -> None:
        run = self.facts.runs[-1] if self.facts.runs else self.facts.begin_run(None)
        run.exit_code, run.finished_at = status.code, status.at
        run.reason = explain_end(status)
        log.info("container %s ended with exit code %d", self.plan.name, status.code)

    def _finish(self) -> None:
        self.facts.finish()
        if self.plan.essential and self._task.facts.execution_stopped_at is None:
            self._task.facts.execution_stopped_at = self.facts.finished_at
        self._task.settled.add(self.plan.name)
        self._move()

    def _deadline_s(self, condition: Condition) -> float | None:
        """Until when others wait for this, by the clock of the event loop."""
        if not is_timed(condition) or self._first_start_s is None or not self.plan.start_timeout_s:
            return None
        return self._first_start_s + self.plan.start_timeout_s

    def _move(self) -> None:
        """Wake whoever waits for this container."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Say of an error that it is this container's."""
        try:
            yield
        except TaskError as error:
            error.container = self.plan.name
            raise
