"""A logger that ends before its container."""

import asyncio
from pathlib import Path

import pytest

from fargate_agent.drivers import ExitStatus
from fargate_agent.plan import plan_task
from fargate_agent.task.runner import TaskRun, run_task
from fargate_agent.task.status import StateChange, TaskStatus
from tests.fakes import MOMENT, FakeDrivers, fake_drivers
from tests.fixtures.clock import jumping
from tests.messages import site, task_message

REASON = "ContainerRuntimeError: the logger 'json-file' has ended: output is lost from now on"


async def play(drivers: FakeDrivers) -> list[StateChange]:
    """Run a task whose owner stops it when its container has a reason; return the reports."""
    run = TaskRun(
        plan=plan_task(task_message(), site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
    )
    changes: list[StateChange] = []

    async def report(run: TaskRun) -> None:
        changes.append(run.change())
        if run.facts.containers["web"].reason is not None and not run.stop.done():
            run.stop.set_result("its output is wanted")

    await run_task(run, drivers.all, report)
    return changes


@jumping
async def test_task_goes_on_and_its_container_says_what_it_lacks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    drivers = fake_drivers()
    drivers.runtime.lost_loggers = {"web"}

    changes = await play(drivers)

    told = [change for change in changes if change.status is TaskStatus.RUNNING]
    assert [change.containers[0].reason for change in told] == [None, REASON]
    assert changes[-1].reason == "its output is wanted"
    assert changes[-1].containers[0].reason == REASON
    assert drivers.diary.calls.count("wait web") == 1
    assert "container web: the logger 'json-file' has ended" in caplog.text


@jumping
async def test_logger_that_ends_with_its_container_is_not_told_of() -> None:
    drivers = fake_drivers(exits={"web": ExitStatus(code=3, at=MOMENT)})
    drivers.runtime.lost_loggers = {"web"}
    drivers.runtime.exit_after_s = 0.5

    changes = await play(drivers)

    assert changes[-1].containers[0].exit_code == 3
    assert changes[-1].containers[0].reason is None
