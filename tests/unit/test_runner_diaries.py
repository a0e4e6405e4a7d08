"""What is asked of the drivers in the life of a task, and what a failure of each call does."""

from typing import Any, Final

import pytest

from fargate_agent.errors import TaskError
from fargate_agent.task.runner import TaskRun, run_task
from tests.diaries import SCENARIOS
from tests.diaries.scenario import Scenario
from tests.fakes import Diary
from tests.fixtures.clock import jumping

BROKEN: Final = "InternalError: unexpected error in the agent; its log says more"


async def play(scenario: Scenario, diary: Diary) -> TaskRun:
    run, drivers = scenario.begin(diary)

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

    assert diary.calls == SCENARIOS[name].entries
    assert run.ended.is_set()


def injections() -> list[Any]:
    """Every place of every diary at which a driver may fail, and the entry there."""
    return [
        pytest.param(name, place, entry, id=f"{name}-{place}-{entry}")
        for name, scenario in SCENARIOS.items()
        for place, entry in enumerate(scenario.entries)
        if not entry.startswith(("report", "save"))
    ]


@pytest.mark.parametrize("error", [TaskError, RuntimeError])
@pytest.mark.parametrize(("name", "place", "entry"), injections())
@jumping
async def test_whatever_fails_everything_is_taken_back(
    name: str, place: int, entry: str, error: type[Exception]
) -> None:
    golden, diary = SCENARIOS[name].entries, Diary(fail_at=place, error=error)
    undo_begins = SCENARIOS[name].undo_begins
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
