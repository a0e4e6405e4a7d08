"""Containers that end and are started again."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.drivers import ExecIo, ExitStatus
from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.plan import ContainerPlan, plan_task
from fargate_agent.task.runner import TaskRun, run_task
from fargate_agent.task.status import (
    ContainerFacts,
    ContainerStatus,
    HealthStatus,
    StateChange,
    TaskFacts,
    TaskStatus,
)
from tests.fakes import MOMENT, Diary, FakeDrivers, fake_drivers
from tests.fixtures.clock import jumping, now_s
from tests.messages import container_json, site, task_message

POLICY = {"enabled": True, "ignoredExitCodes": [0, 9], "restartAttemptPeriod": 60}


def ends(*runs: tuple[float, int], **more: Any) -> list[tuple[float, ExitStatus]]:
    return [(after_s, ExitStatus(code=code, at=MOMENT, **more)) for after_s, code in runs]


def web(**changes: Any) -> dict[str, Any]:
    return container_json("web", restartPolicy=POLICY, **changes)


@dataclass
class Notes:
    """What an agent has reported and written down."""

    changes: list[StateChange] = field(default_factory=list)
    record: TaskFacts = field(default_factory=TaskFacts)
    written: list[tuple[str, ContainerFacts]] = field(default_factory=list)

    async def report(self, run: TaskRun) -> None:
        self.changes.append(run.change())
        await self.save(run)

    async def save(self, run: TaskRun) -> None:
        copies = {name: one.copy() for name, one in run.facts.containers.items()}
        self.record = TaskFacts(status=run.facts.status, containers=copies)


def new_run(*containers: dict[str, Any], facts: TaskFacts | None = None) -> TaskRun:
    return TaskRun(
        plan=plan_task(task_message(*containers), site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
        facts=facts or TaskFacts(),
        is_new=facts is None,
    )


async def play(run: TaskRun, drivers: FakeDrivers, notes: Notes | None = None) -> ContainerFacts:
    notes = notes or Notes()
    await run_task(run, drivers.all, notes.report, notes.save)
    return run.facts.containers["web"]


@jumping
async def test_container_is_restarted_until_its_exit_code_is_ignored() -> None:
    run, drivers, notes = new_run(web()), fake_drivers(), Notes()
    drivers.runtime.runs["web"] = ends((60, 1), (100, 2), (60, 9))

    facts = await play(run, drivers, notes)

    assert now_s() == 220
    assert (facts.exit_code, facts.restart_count, len(facts.runs)) == (9, 2, 3)
    assert [run.exit_code for run in facts.runs] == [1, 2, 9]
    assert run.facts.reason == "Essential container in task exited"
    calls = [call for call in drivers.diary.calls if call.split()[0] in ("create", "restart")]
    assert calls == ["create web", "restart web", "restart web"]
    running = [one for one in notes.changes if one.status is TaskStatus.RUNNING]
    assert {one.containers[0].status for one in running} == {ContainerStatus.RUNNING}
    assert [one.containers[0].restart_count for one in running] == [0, 1, 2]
    assert {one.containers[0].exit_code for one in running} == {None}


@jumping
async def test_container_that_ran_too_short_is_not_restarted() -> None:
    run, drivers = new_run(web()), fake_drivers()
    drivers.runtime.runs["web"] = ends((60, 1), (59, 3))

    facts = await play(run, drivers)

    assert (facts.exit_code, facts.restart_count) == (3, 1)


@jumping
async def test_container_without_a_policy_is_not_restarted() -> None:
    policy = {"enabled": False, "restartAttemptPeriod": 60}
    run = new_run(container_json("web", restartPolicy=policy))
    drivers = fake_drivers()
    drivers.runtime.runs["web"] = ends((600, 1))

    facts = await play(run, drivers)

    assert (facts.exit_code, facts.restart_count) == (1, 0)


@jumping
async def test_reason_of_a_run_that_was_restarted_is_not_that_of_the_container() -> None:
    run, drivers = new_run(web()), fake_drivers()
    drivers.runtime.runs["web"] = ends((60, 137), oom_killed=True) + ends((70, 9))

    facts = await play(run, drivers)

    assert (facts.exit_code, facts.reason) == (9, None)


@jumping
async def test_logger_that_was_lost_is_forgotten_when_the_next_run_has_another() -> None:
    run, drivers, notes = new_run(web()), fake_drivers(), Notes()
    drivers.runtime.runs["web"] = ends((60, 1), (60, 9))
    drivers.runtime.lost_loggers = {"web"}
    asyncio.get_running_loop().call_at(30, drivers.runtime.lost_loggers.clear)

    facts = await play(run, drivers, notes)

    assert "output is lost" in (notes.changes[2].containers[0].reason or "")
    assert (facts.restart_count, facts.reason) == (1, None)


@jumping
async def test_stop_between_two_runs_is_no_restart() -> None:
    run = new_run(web())
    drivers = fake_drivers(Diary(hang_at="restart web"))
    drivers.runtime.runs["web"] = ends((60, 5), oom_killed=True)
    asyncio.get_running_loop().call_at(90, run.stop.set_result, "over")

    facts = await play(run, drivers)

    assert now_s() == 90
    assert "start web" not in drivers.diary.calls[drivers.diary.calls.index("restart web") :]
    assert (facts.exit_code, facts.restart_count) == (5, 0)
    assert facts.reason == "OutOfMemoryError: container killed due to memory usage"


@jumping
async def test_stop_while_a_check_of_the_run_before_is_taken_back_is_no_restart() -> None:
    run, drivers = new_run(web(healthCheck={"command": ["CMD", "check"]})), fake_drivers()
    drivers.runtime.runs["web"] = ends((61, 1))

    async def take_long_to_end(_: ContainerPlan, __: ExecIo, ___: float | None) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(5)
        return 0

    drivers.runtime.on_exec = take_long_to_end
    asyncio.get_running_loop().call_later(63, run.stop.set_result, "enough")

    await play(run, drivers)

    assert now_s() == 66
    assert "restart web" not in drivers.diary.calls
    assert run.facts.reason == "enough"


@pytest.mark.parametrize("essential", [True, False])
@jumping
async def test_restart_that_fails_is_an_end_with_the_exit_code_before(essential: bool) -> None:
    run = new_run(web(essential=essential), container_json("main"))
    drivers = fake_drivers(Diary(fail_at="restart web", error=CannotCreateContainerError))
    drivers.runtime.runs |= {"web": ends((60, 5)), "main": ends((100, 0))}

    facts = await play(run, drivers)

    assert now_s() == (60 if essential else 100)
    assert (facts.status, facts.exit_code, facts.restart_count) == ("STOPPED", 5, 0)
    assert facts.reason == "CannotCreateContainerError: refused: restart web"
    assert run.facts.reason == "Essential container in task exited"


@jumping
async def test_health_begins_anew_with_each_run() -> None:
    check = {"command": ["CMD", "x"], "interval": 50, "retries": 1, "startPeriod": 55}
    run, drivers, notes = new_run(web(healthCheck=check)), fake_drivers(), Notes()
    drivers.runtime.runs["web"] = ends((60, 1), (120, 9))
    codes = iter([0, 1, 1])

    async def probe(container: ContainerPlan, io: ExecIo, deadline_s: float | None) -> int:
        return next(codes)

    drivers.runtime.on_exec = probe
    await play(run, drivers, notes)

    told = [one.health for one in notes.changes if one.status is TaskStatus.RUNNING]
    # At 50 s, 60 s (restart), 160 s: the failure at 110 s is within the second start period.
    assert told == [
        HealthStatus.UNKNOWN, HealthStatus.HEALTHY, HealthStatus.UNKNOWN, HealthStatus.UNHEALTHY,
    ]  # fmt: skip


@jumping
async def test_dependency_that_is_restarted_has_not_ended() -> None:
    needs = [{"containerName": "web", "condition": "SUCCESS"}]
    policy = {"enabled": True, "ignoredExitCodes": [0], "restartAttemptPeriod": 0}
    job = container_json("web", essential=False, restartPolicy=policy)
    run = new_run(container_json("main", dependsOn=needs), job)
    drivers = fake_drivers()
    drivers.runtime.runs |= {"web": ends((1, 1), (1, 1), (1, 0)), "main": ends((5, 0))}

    facts = await play(run, drivers)

    assert (facts.restart_count, facts.exit_code) == (2, 0)
    assert now_s() == 8
    assert run.facts.containers["main"].exit_code == 0


def half_restarted(drivers: FakeDrivers) -> None:
    """Of the container the process was deleted, and none made."""
    drivers.runtime.ended.clear()
    drivers.runtime.created.clear()
    drivers.runtime.runs["web"].pop(0)


@dataclass(frozen=True)
class Death:
    """Where an agent dies, and what it has done by then."""

    hang_at: str
    arrange: Mapping[str, Any] = field(default_factory=dict)


DEATHS = {
    "between exit and restart": "exit",
    "between delete and create": "delete",
    "between create and the record": "record",
    "between create and start": "start",
}


@pytest.mark.parametrize("death", DEATHS)
@jumping
async def test_next_agent_goes_on_with_a_restart(death: str) -> None:
    drivers, notes = fake_drivers(), Notes()
    drivers.runtime.runs["web"] = ends((60, 1), (60, 9))
    run, saves = new_run(web()), 0

    async def save(run: TaskRun) -> None:
        nonlocal saves
        saves += 1
        if DEATHS[death] == "record" and saves == 2:
            await asyncio.get_running_loop().create_future()
        await notes.save(run)
        if DEATHS[death] == "exit" or (DEATHS[death] == "start" and saves == 2):
            await asyncio.get_running_loop().create_future()

    if DEATHS[death] == "delete":
        drivers.diary.hang_at = "restart web"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(61):
            await run_task(run, drivers.all, notes.report, save)
    if DEATHS[death] == "delete":
        half_restarted(drivers)
        drivers.diary.hang_at = None
    died = len(drivers.diary.calls)
    assert notes.record.containers["web"].status is ContainerStatus.RUNNING
    successor = new_run(web(), facts=notes.record)

    facts = await play(successor, drivers, notes)

    calls = drivers.diary.calls[died:]
    assert "create web" not in calls
    assert calls.count("start web") == 1
    assert (facts.exit_code, facts.restart_count) == (9, 1)
    assert [run.exit_code for run in facts.runs] == [1, 9]
    assert successor.facts.reason == "Essential container in task exited"
