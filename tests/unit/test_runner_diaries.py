"""What is asked of the drivers in the life of a task, and what a failure of each call does."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from fargate_agent.errors import TaskError
from fargate_agent.plan import plan_task
from fargate_agent.task.runner import TaskRun, run_task
from tests.diaries import SCENARIOS
from tests.diaries.scenario import Scenario
from tests.fakes import Diary, FakeLogs, fake_drivers
from tests.fixtures.clock import jumping
from tests.messages import site, task_message

BROKEN: Final = "InternalError: unexpected error in the agent; its log says more"


def lines(diary: str) -> list[str]:
    return [call for line in diary.strip().splitlines() for call in line.strip().split(" / ")]


async def play(scenario: Scenario, diary: Diary) -> TaskRun:
    drivers = fake_drivers(diary, scenario.exits)
    if any("firelensConfiguration" in container for container in scenario.containers):
        logs = {**drivers.all.logs, "awsfirelens": FakeLogs(diary)}
        drivers.all = replace(drivers.all, logs=logs)
    message = task_message(*scenario.containers, elasticNetworkInterfaces=scenario.enis)
    run = TaskRun(
        plan=plan_task(message, site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
        is_new=True,
    )
    scenario.arrange(run, drivers)

    async def report(run: TaskRun) -> None:
        entry = f"report {run.facts.status}"
        diary.calls.append(entry)
        if entry == scenario.stop_at and not run.stop.done():
            run.stop.set_result("maintenance")

    async def save(run: TaskRun) -> None:
        diary.calls.append("save")

    await run_task(run, drivers.all, report, save)
    return run


@pytest.mark.parametrize("name", SCENARIOS)
@jumping
async def test_drivers_are_called_in_this_order(name: str) -> None:
    diary = Diary()

    run = await play(SCENARIOS[name], diary)

    assert diary.calls == lines(SCENARIOS[name].diary)
    assert run.ended.is_set()


def injections() -> list[Any]:
    """Every place of every diary at which a driver may fail, and the entry there."""
    return [
        pytest.param(name, place, entry, id=f"{name}-{place}-{entry}")
        for name, scenario in SCENARIOS.items()
        for place, entry in enumerate(lines(scenario.diary))
        if not entry.startswith(("report", "save"))
    ]


@pytest.mark.parametrize("error", [TaskError, RuntimeError])
@pytest.mark.parametrize(("name", "place", "entry"), injections())
@jumping
async def test_whatever_fails_everything_is_taken_back(
    name: str, place: int, entry: str, error: type[Exception]
) -> None:
    golden, diary = lines(SCENARIOS[name].diary), Diary(fail_at=place, error=error)
    undo_begins = len(golden) - 1 - golden[::-1].index("ready")
    if place == undo_begins:
        with pytest.raises(error):  # `ready` doesn't fail; if it does, the agent ends
            await play(SCENARIOS[name], diary)
        assert undone(diary.calls) == []
        return

    run = await play(SCENARIOS[name], diary)

    own = owner(run, entry) if error is TaskError and place < undo_begins else None
    if own is not None:
        assert run.facts.containers[own].reason == f"TaskError: refused: {entry}"
        removal = f"stop {own}"
        if diary.calls.count(removal) == 2:  # at once, and when the task ends
            diary.calls.remove(removal)
    elif error is TaskError and is_restart(golden, place):  # it has ended, as without a policy
        assert run.facts.containers["web"].reason == f"TaskError: refused: {entry}"
        assert run.facts.containers["web"].exit_code == 1
        assert run.facts.reason == "Essential container in task exited"
    elif error is TaskError and entry.startswith("exec"):
        assert run.facts.reason == "Essential container in task exited"
    elif place < undo_begins and not run.stop.done():
        expected = f"TaskError: refused: {entry}" if error is TaskError else BROKEN
        assert run.facts.reason == expected
    else:  # it ended before, for a reason of its own
        assert "refused" not in (run.facts.reason or "")
    assert undone(diary.calls) == undone(golden)
    assert diary.calls[-1] == "report STOPPED"


def is_restart(golden: list[str], place: int) -> bool:
    """Whether a call restarts a container."""
    return golden[place] == "restart web" or (
        golden[place] == "start web" and "restart web" in golden[:place]
    )


def owner(run: TaskRun, entry: str) -> str | None:
    """The container that isn't essential and whose failure alone that of a call is."""
    call, name = entry.removesuffix(":1").split(" ", 1) if " " in entry else (entry, "")
    others = {container.name for container in run.plan.containers if not container.essential}
    return name if call in {"pull", "create", "start", "wait"} and name in others else None


def undone(calls: list[str]) -> list[str]:
    """The calls that take a task back, as they were made."""
    return [call for call in calls if call.split()[0] in {"stop", "close", "detach", "release"}]
