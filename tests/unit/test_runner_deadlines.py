"""How long a task waits for what doesn't come, by a clock that jumps."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.drivers import ExitStatus
from fargate_agent.plan import plan_task
from fargate_agent.task.runner import TaskRun, run_task
from fargate_agent.task.status import TaskStatus
from tests.fakes import MOMENT, Diary, fake_drivers
from tests.fixtures.clock import jumping, now_s
from tests.messages import container_json, site, task_message


async def play(
    diary: Diary, *containers: dict[str, Any], exits: dict[str, ExitStatus] | None = None
) -> tuple[TaskRun, dict[str, float]]:
    """Run a task to its end; return it and when each status was reported first."""
    run = TaskRun(
        plan=plan_task(task_message(*containers), site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
    )
    reported_s: dict[str, float] = {}

    async def report(run: TaskRun) -> None:
        reported_s.setdefault(run.facts.status, now_s())

    await run_task(run, fake_drivers(diary, exits).all, report)
    return run, reported_s


@pytest.mark.parametrize("condition", ["COMPLETE", "SUCCESS"])
@pytest.mark.parametrize("timeout_s", [2, 120])
@jumping
async def test_dependency_is_waited_for_as_long_as_its_start_timeout(
    timeout_s: int, condition: str
) -> None:
    needs = [{"containerName": "init", "condition": condition}]
    app = container_json("app", dependsOn=needs, startTimeout=7)
    init = container_json("init", startTimeout=timeout_s)

    run, reported_s = await play(Diary(), app, init)

    assert reported_s[TaskStatus.STOPPING] == pytest.approx(timeout_s)
    assert run.facts.containers["app"].reason == (
        "TaskDependencyError: dependency graph: container ordering dependency [init] "
        "for target [app] has timed out."
    )


@pytest.mark.parametrize(
    ("hang_at", "deadline_s"),
    [
        pytest.param("stop web", 100 + 40, id="stop, with a stop timeout of 100 s"),
        pytest.param("stop log", 2 + 40, id="stop, with a stop timeout of 2 s"),
        *(
            (call, 30)
            for call in (
                "drop secrets",
                "close",
                "detach eth1",
                "release netns",
                "release storage",
                "release",
            )
        ),
    ],
)
@jumping
async def test_undo_that_hangs_is_given_up_and_the_others_are_done(
    hang_at: str, deadline_s: float
) -> None:
    diary = Diary(hang_at=hang_at)
    web = container_json("web", stopTimeout=100)
    log = container_json("log", stopTimeout=2)

    run, reported_s = await play(diary, web, log, exits={"web": ExitStatus(code=0, at=MOMENT)})

    took_s = reported_s[TaskStatus.STOPPED] - reported_s[TaskStatus.STOPPING]
    assert took_s == pytest.approx(deadline_s)
    assert diary.calls[-8:] == [
        "stop web", "stop log", "drop secrets", "close", "detach eth1", "release netns",
        "release storage", "release",
    ]  # fmt: skip
    assert run.ended.is_set()


@jumping
async def test_stop_is_not_kept_waiting_by_what_hangs() -> None:
    diary = Diary(hang_at="pull web:1")
    run = TaskRun(
        plan=plan_task(task_message(), site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
    )

    async def report(run: TaskRun) -> None:
        return

    asyncio.get_running_loop().call_later(3, run.stop.set_result, "maintenance")
    await run_task(run, fake_drivers(diary).all, report)

    assert now_s() == pytest.approx(3)
    assert run.facts.reason == "maintenance"
