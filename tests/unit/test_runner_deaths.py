"""An agent that dies at any moment of a task's life, and a stop that comes at any moment."""

import asyncio
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import pytest

from fargate_agent.task.runner import TaskRun, run_task
from fargate_agent.task.status import ContainerStatus, TaskStatus
from tests.diaries import SCENARIOS
from tests.diaries.scenario import Scenario
from tests.fakes import Diary
from tests.fixtures.clock import jumping

PATIENCE_S: Final = 1000
"""By the clock that jumps: longer than any of the tasks lives."""


@dataclass
class MortalDiary(Diary):
    """Its agent does nothing more once it has written so many entries."""

    dies_at: int | None = None

    @property
    def is_over(self) -> bool:
        return self.dies_at is not None and len(self.calls) > self.dies_at

    async def write(self, call: str) -> None:
        await super().write(call)
        if self.is_over:
            await asyncio.get_running_loop().create_future()


class Agents:
    """One agent after the other, and the task of a scenario that they run."""

    def __init__(self, scenario: Scenario, diary: MortalDiary) -> None:
        self.diary = diary
        self.run, self.drivers = scenario.begin(diary)
        self._stop_at = scenario.stop_at
        self._record = deepcopy(self.run.facts)
        self._stop_reason = self.run.stop.result() if self.run.stop.done() else None

    async def work(self) -> None:
        """Run the task to its end, or until the agent dies."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await run_task(self.run, self.drivers.all, self._report, self._save)

    def succeed(self) -> None:
        """Have the next agent take over what is written down."""
        self.diary.dies_at = None
        stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if self._stop_reason is not None:
            stop.set_result(self._stop_reason)
        self.run = TaskRun(plan=self.run.plan, stop=stop, facts=deepcopy(self._record))

    def stop(self, reason: str) -> None:
        if not self.run.stop.done():
            self._stop_reason = reason
            self.run.stop.set_result(reason)

    def expect_end(self) -> None:
        facts, runtime = self.run.facts, self.drivers.runtime
        assert facts.status is TaskStatus.STOPPED
        assert {one.status for one in facts.containers.values()} == {ContainerStatus.STOPPED}
        assert runtime.created | runtime.started == set()
        assert self.run.ended.is_set()

    async def _report(self, run: TaskRun) -> None:
        entry = f"report {run.facts.status}"
        await self._write_down(entry)
        if entry == self._stop_at:
            self.stop("maintenance")

    async def _save(self, _: TaskRun) -> None:
        await self._write_down("save")

    async def _write_down(self, entry: str) -> None:
        await self.diary.write(entry)
        self._record = deepcopy(self.run.facts)


def moments() -> list[Any]:
    """Every place of every diary, and the entry there."""
    return [
        pytest.param(name, place, id=f"{name}-{place}-{entry}")
        for name, scenario in SCENARIOS.items()
        for place, entry in enumerate(scenario.entries)
        if not entry.startswith("log uri")  # nobody waits for that
    ]


def exit_codes(run: TaskRun) -> dict[str, int | None]:
    return {one.name: one.exit_code for one in run.facts.containers.values()}


@pytest.mark.parametrize(("name", "place"), moments())
@jumping
async def test_next_agent_ends_a_task_as_the_first_would_have_whenever_that_dies(
    name: str, place: int
) -> None:
    scenario = SCENARIOS[name]
    undisturbed = Agents(scenario, MortalDiary())
    await undisturbed.work()
    agents = Agents(scenario, MortalDiary(dies_at=place))

    await agents.work()
    assert agents.diary.is_over
    agents.succeed()
    await agents.work()

    agents.expect_end()
    assert agents.run.facts.reason == undisturbed.run.facts.reason
    was_just_removed = scenario.entries[place - 1].startswith("stop")
    if not was_just_removed and name != "restarted once":  # fakes end before they begin
        assert exit_codes(agents.run) == exit_codes(undisturbed.run)


@pytest.mark.parametrize(("name", "place"), moments())
@jumping
async def test_stop_ends_a_task_whenever_it_comes(name: str, place: int) -> None:
    scenario, agents = SCENARIOS[name], Agents(SCENARIOS[name], MortalDiary())
    write = agents.diary.write

    async def write_and_stop(call: str) -> None:
        if len(agents.diary.calls) == place:
            agents.stop("enough")
        await write(call)

    agents.diary.write = write_and_stop  # type: ignore[method-assign]
    await agents.work()

    agents.expect_end()
    if place < scenario.undo_begins - 1 and scenario.stop_at is None:
        assert agents.run.facts.reason in {"enough", "changed my mind"}
