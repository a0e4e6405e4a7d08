"""Containers that can't be brought up: whose failure is the task's, and whose is their own."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.drivers import ExitStatus, Image
from fargate_agent.errors import (
    CannotCreateContainerError,
    CannotPullContainerError,
    CannotStartContainerError,
    CannotStopContainerError,
    ContainerRuntimeError,
    ResourceInitializationError,
    TaskError,
)
from fargate_agent.plan import Replacement, plan_task
from fargate_agent.task.runner import TaskRun, run_task
from fargate_agent.task.status import ContainerStatus, StateChange, TaskFacts, TaskStatus
from tests.fakes import MOMENT, Diary, FakeDrivers, FakeImages, fake_drivers
from tests.fixtures.clock import jumping, now_s
from tests.messages import container_json, site, task_message

SIDE = container_json("side", essential=False)
EXITED = "Essential container in task exited"
FAILURES: list[tuple[str, type[TaskError]]] = [
    ("pull side:1", CannotPullContainerError),
    ("create side", CannotCreateContainerError),
    ("start side", CannotStartContainerError),
    ("start side", ResourceInitializationError),  # of its logger
    ("wait side", ContainerRuntimeError),
]


def new_run(*containers: dict[str, Any], facts: TaskFacts | None = None) -> TaskRun:
    return TaskRun(
        plan=plan_task(task_message(*containers), site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
        facts=facts or TaskFacts(),
        is_new=facts is None,
    )


def fakes(diary: Diary) -> FakeDrivers:
    """The container `main` ends after 100 s."""
    drivers = fake_drivers(diary)
    drivers.runtime.runs["main"] = [(100, ExitStatus(code=0, at=MOMENT))]
    return drivers


async def play(run: TaskRun, drivers: FakeDrivers) -> list[StateChange]:
    changes: list[StateChange] = []

    async def report(run: TaskRun) -> None:
        changes.append(run.change())

    await run_task(run, drivers.all, report)
    return changes


@pytest.mark.parametrize(("call", "error"), FAILURES)
@jumping
async def test_container_that_is_not_essential_fails_alone(
    call: str, error: type[TaskError]
) -> None:
    run, drivers = new_run(container_json("main"), SIDE), fakes(Diary(fail_at=call, error=error))

    changes = await play(run, drivers)

    told = [one for one in changes if one.status is TaskStatus.RUNNING][-1]
    side = told.containers[1]
    assert side.status is ContainerStatus.STOPPED
    assert side.reason == f"{error.__name__}: refused: {call}"
    assert (side.exit_code is None) == (call != "wait side")  # that one ran, and was killed
    assert (now_s(), run.facts.reason) == (100, EXITED)
    made = [place for place, one in enumerate(drivers.diary.calls) if one == "create side"]
    if made:
        removed = drivers.diary.calls.index("stop side")
        assert made[0] < removed < drivers.diary.calls.index("stop main")


@pytest.mark.parametrize(("call", "error"), FAILURES)
@jumping
async def test_container_that_is_essential_ends_the_task(call: str, error: type[TaskError]) -> None:
    run = new_run(container_json("main"), container_json("side"))
    drivers = fakes(Diary(fail_at=call, error=error))

    changes = await play(run, drivers)

    reason = f"{error.__name__}: refused: {call}"
    assert (changes[-1].reason, changes[-1].stop_code) == (reason, "TaskFailedToStart")
    assert run.facts.containers["side"].reason == reason
    assert now_s() < 100


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("fetch key", ResourceInitializationError),
        ("confirm eth1", ResourceInitializationError),
        ("attach eth1", ResourceInitializationError),
    ],
)
@jumping
async def test_what_belongs_to_the_task_ends_it(call: str, error: type[TaskError]) -> None:
    run, drivers = new_run(container_json("main"), SIDE), fakes(Diary(fail_at=call, error=error))
    main, side = run.plan.containers
    containers = (main, replace(side, secrets={"KEY": "key"}))
    run.plan = replace(run.plan, containers=containers)

    await play(run, drivers)

    assert run.facts.reason == f"{error.__name__}: refused: {call}"


@pytest.mark.parametrize("ends_task", [True, False])
@jumping
async def test_image_that_is_not_to_be_had_ends_the_task_if_the_store_says_so(
    ends_task: bool,
) -> None:
    diary = Diary(fail_at="pull side:1", error=CannotPullContainerError)
    run, drivers = new_run(container_json("main"), SIDE), fakes(diary)
    images = FakeImages(diary)
    images.failed_pull_ends_task = ends_task
    drivers.all = replace(drivers.all, images=images)

    await play(run, drivers)

    reason = "CannotPullContainerError: refused: pull side:1"
    assert run.facts.containers["side"].reason == reason
    assert run.facts.reason == (reason if ends_task else EXITED)


@jumping
async def test_image_that_two_containers_name_is_pulled_once() -> None:
    other = container_json("other", essential=False, image="side:1")
    run, drivers = new_run(container_json("main"), SIDE, other), fakes(Diary())

    await play(run, drivers)

    assert drivers.diary.calls.count("pull side:1") == 1
    assert {"create side", "create other"} <= set(drivers.diary.calls)


@jumping
async def test_image_that_two_containers_name_with_other_passwords_is_pulled_for_each() -> None:
    run, drivers = new_run(container_json("main"), SIDE), fakes(Diary())
    main, side = run.plan.containers
    others = [
        replace(side, name=f"side{n}", id=f"{side.id}{n}", repository_credentials=secret)
        for n, secret in enumerate(("a", "b", "a", None))
    ]
    run.plan = replace(run.plan, containers=(main, *others))

    await play(run, drivers)

    assert drivers.diary.calls.count("pull side:1") == 3


@jumping
async def test_password_of_a_registry_that_is_not_to_be_had_ends_the_task() -> None:
    diary = Diary(fail_at="pull side:1", error=ResourceInitializationError)
    run, drivers = new_run(container_json("main"), SIDE), fakes(diary)

    await play(run, drivers)

    assert run.facts.reason == "ResourceInitializationError: refused: pull side:1"


class Mirrored(FakeImages):
    """Has one image from a mirror."""

    async def ensure(self, reference: str, *rest: Any) -> Image:
        image = await super().ensure(reference, *rest)
        return replace(image, source=f"m.lan/{reference}" if reference == "side:1" else None)


@jumping
async def test_mirror_that_an_image_came_from_is_told() -> None:
    run, drivers = new_run(container_json("main"), SIDE), fakes(Diary())
    drivers.all = replace(drivers.all, images=Mirrored(drivers.diary))

    await play(run, drivers)

    by_mirror = Replacement(kind="image", what="side:1", by="m.lan/side:1")
    assert run.change().replacements == (by_mirror,)
    run.facts.note_replacement(by_mirror)
    assert run.change().replacements == (by_mirror,)


@jumping
async def test_pull_that_fails_is_not_tried_again_for_the_next_container() -> None:
    other = container_json("other", essential=False, image="side:1")
    diary = Diary(fail_at="pull side:1", error=CannotPullContainerError)
    run, drivers = new_run(container_json("main"), SIDE, other), fakes(diary)

    await play(run, drivers)

    assert diary.calls.count("pull side:1") == 1
    for name in ("side", "other"):
        facts = run.facts.containers[name]
        assert facts.status is ContainerStatus.STOPPED
        assert facts.reason == "CannotPullContainerError: refused: pull side:1"


@jumping
async def test_container_starts_while_the_image_of_another_is_still_pulled() -> None:
    diary = Diary(hang_at="pull side:1")
    run, drivers = new_run(container_json("main"), SIDE), fakes(diary)

    changes = await play(run, drivers)

    assert run.facts.containers["main"].exit_code == 0
    assert TaskStatus.RUNNING not in {change.status for change in changes}  # it wasn't up


@jumping
async def test_failed_container_that_can_t_be_removed_is_removed_when_its_task_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, drivers = new_run(container_json("main"), SIDE), fakes(Diary(fail_at="create side"))
    stop = drivers.runtime.stop
    refused: list[int] = []

    async def refuse_first(container: Any) -> ExitStatus | None:
        if container.name == "side" and not refused:
            refused.append(container.stop_timeout_s)
            raise CannotStopContainerError("busy")
        return await stop(container)

    drivers.runtime.stop = refuse_first  # type: ignore[method-assign]
    await play(run, drivers)

    assert refused == [0]
    assert "container side: it is removed when its task ends" in caplog.text
    assert drivers.diary.calls.count("stop side") == 1
    assert run.facts.reason == EXITED


@jumping
async def test_container_that_can_t_be_ended_says_so() -> None:
    diary = Diary(fail_at="stop side", error=CannotStopContainerError)
    run, drivers = new_run(container_json("main"), SIDE), fakes(diary)

    await play(run, drivers)

    side = run.facts.containers["side"]
    assert (side.status, side.exit_code) == (ContainerStatus.STOPPED, None)
    assert side.reason == "CannotStopContainerError: refused: stop side"


@jumping
async def test_next_agent_leaves_a_container_alone_that_has_failed() -> None:
    first = new_run(container_json("main"), SIDE)
    drivers = fakes(Diary(fail_at="create side", error=CannotCreateContainerError))

    async def report(run: TaskRun) -> None:
        return

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(50):
            await run_task(first, drivers.all, report)
    drivers.diary.fail_at = None
    drivers.diary.calls.clear()
    second = new_run(container_json("main"), SIDE, facts=first.facts)

    await play(second, drivers)

    assert not {"create side", "start side", "exists side"} & set(drivers.diary.calls)
    assert second.facts.containers["side"].reason == (
        "CannotCreateContainerError: refused: create side"
    )
    assert second.facts.reason == EXITED


@jumping
async def test_container_of_which_nobody_knows_whether_it_is_there_is_removed() -> None:
    diary = Diary(fail_at="exists side", error=ContainerRuntimeError)
    run = new_run(container_json("main"), SIDE, facts=TaskFacts())
    drivers = fakes(diary)

    await play(run, drivers)

    assert run.facts.containers["side"].status is ContainerStatus.STOPPED
    assert diary.calls.count("stop side") == 2  # at once, and with the others at the end


@jumping
async def test_new_task_asks_for_nothing_that_can_t_be_there() -> None:
    run, drivers = new_run(container_json("main"), SIDE), fakes(Diary())

    await play(run, drivers)

    assert not [call for call in drivers.diary.calls if call.startswith("exists")]
