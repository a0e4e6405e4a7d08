"""What is asked of the drivers in the life of a task, and what a failure of each call does.

A diary below has one line for each moment; calls of one moment are apart by `/`. `report` is
what is written down and told, `save` what is only written down for the next agent.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from fargate_agent.drivers import ExitStatus
from fargate_agent.errors import TaskError
from fargate_agent.plan import plan_task
from fargate_agent.task.runner import TaskRun, run_task
from fargate_agent.task.status import TaskStatus
from tests.fakes import MOMENT, Diary, FakeDrivers, FakeLogs, fake_drivers
from tests.fixtures.clock import jumping
from tests.messages import container_json, eni_json, site, task_message

BROKEN: Final = "InternalError: unexpected error in the agent; its log says more"

WEB_AND_LOG: Final = (container_json("web"), container_json("log"))
INIT_AND_APP: Final = (
    container_json("app", dependsOn=[{"containerName": "init", "condition": "SUCCESS"}]),
    container_json("init", essential=False),
)
ROUTED: Final = (
    container_json(
        "web",
        logConfiguration={
            "logDriver": "awsfirelens",
            "options": {"Name": "x"},
            "secretOptions": [{"name": "apikey", "valueFrom": "key"}],
        },
    ),
    container_json("router", firelensConfiguration={"type": "fluentbit"}, essential=False),
)
OTHER_ENI: Final = eni_json(index=1, ec2Id="eni-2", macAddress="02:00:00:00:00:06")


def exits(**codes: int) -> Mapping[str, ExitStatus]:
    return {name: ExitStatus(code=code, at=MOMENT) for name, code in codes.items()}


def adopted(run: TaskRun, drivers: FakeDrivers) -> None:
    names = {container.name for container in run.plan.containers}
    drivers.runtime.created, drivers.runtime.started = set(names), set(names)
    run.facts.status, run.is_new = TaskStatus.RUNNING, False


def adopted_while_stopping(run: TaskRun, drivers: FakeDrivers) -> None:
    run.facts.status = TaskStatus.STOPPING
    run.facts.reason = "Task stopped by user"


def stopped_before(run: TaskRun, drivers: FakeDrivers) -> None:
    run.stop.set_result("changed my mind")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    diary: str
    containers: tuple[dict[str, Any], ...] = WEB_AND_LOG
    exits: Mapping[str, ExitStatus] = field(default_factory=lambda: exits(web=7))
    arrange: Callable[[TaskRun, FakeDrivers], None] = lambda run, drivers: None
    stop_at: str | None = None
    """The report that the stop comes with."""
    enis: tuple[dict[str, Any], ...] = (eni_json(),)


SCENARIOS: Final = {
    "two containers side by side": Scenario(
        diary="""
            log uri web / log uri log
            ready
            ensure netns / prepare
            attach eth1
            listen
            hold secrets
            report PENDING
            confirm eth1
            pull web:1 / pull log:1
            create web / create log
            confirm eth1 / confirm eth1
            start web / start log
            save
            report RUNNING
            wait web / watch web / wait log / watch log
            report STOPPING
            ready
            stop web
            save
            stop log
            drop secrets
            close
            detach eth1
            release netns / release
            report STOPPED
        """,
    ),
    "one after the success of the other": Scenario(
        containers=INIT_AND_APP,
        exits=exits(init=0, app=0),
        diary="""
            log uri init / log uri app
            ready
            ensure netns / prepare
            attach eth1
            listen
            hold secrets
            report PENDING
            confirm eth1
            pull init:1 / pull app:1
            create init
            confirm eth1
            start init
            save
            wait init / watch init
            report PENDING
            create app
            confirm eth1
            start app
            report RUNNING
            wait app / watch app
            report STOPPING
            ready
            stop app
            stop init
            drop secrets
            close
            detach eth1
            release netns / release
            report STOPPED
        """,
    ),
    "two ENIs": Scenario(
        containers=(container_json("web"),),
        enis=(OTHER_ENI, eni_json()),
        diary="""
            log uri web
            ready
            ensure netns / prepare
            attach eth1 / attach eth2
            listen
            hold secrets
            report PENDING
            confirm eth1 / confirm eth2
            pull web:1
            create web
            confirm eth1 / confirm eth2
            start web
            report RUNNING
            wait web / watch web
            report STOPPING
            ready
            stop web
            drop secrets
            close
            detach eth1 / detach eth2
            release netns / release
            report STOPPED
        """,
    ),
    "a FireLens router with a secret": Scenario(
        containers=ROUTED,
        diary="""
            log uri router / log uri web
            ready
            ensure netns / prepare
            attach eth1
            listen
            hold secrets
            report PENDING
            confirm eth1
            pull router:1 / pull web:1
            fetch key
            create router
            confirm eth1
            start router
            save / wait router / watch router
            create web
            confirm eth1
            start web
            report RUNNING
            wait web / watch web
            report STOPPING
            ready
            stop web
            save
            stop router
            drop secrets
            close
            detach eth1
            release netns / release
            report STOPPED
        """,
    ),
    "adopted while running": Scenario(
        arrange=adopted,
        diary="""
            log uri web / log uri log
            ready
            ensure netns / prepare
            exists web / exists log
            attach eth1
            listen
            hold secrets
            report RUNNING
            confirm eth1 / confirm eth1 / confirm eth1
            start web / start log
            save
            report RUNNING
            wait web / watch web / wait log / watch log
            report STOPPING
            ready
            stop web
            save
            stop log
            drop secrets
            close
            detach eth1
            release netns / release
            report STOPPED
        """,
    ),
    "adopted while stopping": Scenario(
        arrange=adopted_while_stopping,
        diary="""
            ready
            save
            stop web
            save
            stop log
            drop secrets
            close
            detach eth1
            release netns / release
            report STOPPED
        """,
    ),
    "stopped while running": Scenario(
        containers=(container_json("web"),),
        exits={},
        stop_at="report RUNNING",
        diary="""
            log uri web
            ready
            ensure netns / prepare
            attach eth1
            listen
            hold secrets
            report PENDING
            confirm eth1
            pull web:1
            create web
            confirm eth1
            start web
            report RUNNING
            wait web / watch web
            report STOPPING
            ready
            save
            stop web
            drop secrets
            close
            detach eth1
            release netns / release
            report STOPPED
        """,
    ),
    "stopped before it began": Scenario(
        containers=(container_json("web"),),
        arrange=stopped_before,
        diary="""
            log uri web
            ready
            ensure netns / prepare
            report STOPPING
            ready
            save
            stop web
            drop secrets
            close
            detach eth1
            release netns / release
            report STOPPED
        """,
    ),
}


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
    elif place < undo_begins and not run.stop.done():
        expected = f"TaskError: refused: {entry}" if error is TaskError else BROKEN
        assert run.facts.reason == expected
    else:  # it ended before, for a reason of its own
        assert "refused" not in (run.facts.reason or "")
    assert undone(diary.calls) == undone(golden)
    assert diary.calls[-1] == "report STOPPED"


def owner(run: TaskRun, entry: str) -> str | None:
    """The container that isn't essential and whose failure alone that of a call is."""
    call, name = entry.removesuffix(":1").split(" ", 1) if " " in entry else (entry, "")
    others = {container.name for container in run.plan.containers if not container.essential}
    return name if call in {"pull", "create", "start", "wait"} and name in others else None


def undone(calls: list[str]) -> list[str]:
    """The calls that take a task back, as they were made."""
    return [call for call in calls if call.split()[0] in {"stop", "close", "detach", "release"}]
