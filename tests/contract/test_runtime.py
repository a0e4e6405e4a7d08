"""What every `Runtime` promises: the fake of the unit tests, and containerd with runC."""

import signal
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.drivers import ExecIo, Image, ImageConfig, Runtime
from fargate_agent.plan import TaskPlan, plan_task
from tests.fakes import Diary, FakeRuntime
from tests.fixtures.runtime import Bench
from tests.messages import container_json, site, task_arn, task_message

BOTH = [
    pytest.param("fake", id="fake"),
    pytest.param("runc", id="runc", marks=pytest.mark.root),
]

SILENT = ExecIo(on_output=lambda _: None, on_error=lambda _: None)

Make = Callable[[Runtime, TaskPlan], Awaitable[None]]


@pytest.fixture(params=BOTH)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if request.param == "fake":
        return FakeRuntime(Diary())
    bench: Bench = request.getfixturevalue("bench")
    return bench.runtime


@pytest.fixture
def task(request: pytest.FixtureRequest, runtime: Runtime, tmp_path: Path) -> TaskPlan:
    message = task_message(
        container_json(command=["sleep", "60"], stopTimeout=2), arn=task_arn(uuid.uuid4().hex)
    )
    plan = plan_task(message, site(tmp_path))
    if isinstance(runtime, FakeRuntime):
        return plan
    bench: Bench = request.getfixturevalue("bench")
    plan = replace(plan, netns=bench.netns)
    bench.tasks.append(plan)
    return plan


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Create the container of a task; may be repeated."""

    async def create(runtime: Runtime, task: TaskPlan) -> None:
        container = task.containers[0]
        if isinstance(runtime, FakeRuntime):
            image = Image(
                name="x", digest="x", config_digest="x", chain_id="x", config=ImageConfig()
            )
            await runtime.create(task, container, image, "binary:///logger")
            return
        bench: Bench = request.getfixturevalue("bench")
        await bench.create(task)

    return create


@pytest.fixture
def end(request: pytest.FixtureRequest) -> Make:
    """Let the first process of a task's container end by itself."""

    async def kill(runtime: Runtime, task: TaskPlan) -> None:
        if isinstance(runtime, FakeRuntime):
            runtime.ended.add(task.containers[0].name)
            return
        bench: Bench = request.getfixturevalue("bench")
        await bench.containerd.processes.kill(task.containers[0].id, signal.SIGKILL)
        await runtime.wait(task.containers[0])

    return kill


async def test_everything_may_be_repeated(runtime: Runtime, task: TaskPlan, make: Make) -> None:
    container = task.containers[0]

    for _ in range(2):
        await runtime.ready()
        await runtime.prepare(task)
        await make(runtime, task)
        await runtime.start(task, container)
    statuses = [await runtime.stop(container) for _ in range(2)]
    for _ in range(2):
        await runtime.release(task)

    assert statuses[0] is not None
    assert statuses[1] is None


async def test_stop_and_release_of_what_was_never_made_succeed(
    runtime: Runtime, task: TaskPlan
) -> None:
    status = await runtime.stop(task.containers[0])
    await runtime.release(task)

    assert status is None


async def test_a_container_exists_from_create_to_stop(
    runtime: Runtime, task: TaskPlan, make: Make
) -> None:
    container = task.containers[0]
    await runtime.prepare(task)
    before = await runtime.exists(container)

    await make(runtime, task)
    between = await runtime.exists(container)
    await runtime.stop(container)

    assert (before, between, await runtime.exists(container)) == (False, True, False)


async def test_stop_of_what_never_started_gives_no_exit(
    runtime: Runtime, task: TaskPlan, make: Make
) -> None:
    await runtime.prepare(task)
    await make(runtime, task)

    assert await runtime.stop(task.containers[0]) is None


async def test_what_is_not_there_uses_nothing(runtime: Runtime, task: TaskPlan) -> None:
    assert await runtime.usage(task.containers) == {}


async def test_a_program_is_run_in_a_container_again_and_again(
    runtime: Runtime, task: TaskPlan, make: Make
) -> None:
    container = task.containers[0]
    await runtime.prepare(task)
    await make(runtime, task)
    await runtime.start(task, container)

    codes = [
        await runtime.exec(container, "check", ("sh", "-c", "exit 0"), SILENT, 30) for _ in range(2)
    ]

    assert codes == [0, 0]


async def test_the_end_of_a_program_that_was_never_run_succeeds(
    runtime: Runtime, task: TaskPlan, make: Make
) -> None:
    await runtime.end_exec(task.containers[0], "check")
    await runtime.prepare(task)
    await make(runtime, task)

    await runtime.end_exec(task.containers[0], "check")


async def test_a_container_that_was_restarted_has_yet_to_be_started(
    runtime: Runtime, task: TaskPlan, make: Make, end: Make
) -> None:
    container = task.containers[0]
    await runtime.prepare(task)
    await make(runtime, task)
    await runtime.start(task, container)
    await end(runtime, task)

    for _ in range(2):
        await runtime.restart(task, container, None)

    assert await runtime.exists(container)
    assert await runtime.stop(container) is None


async def test_a_container_that_was_restarted_and_started_runs(
    runtime: Runtime, task: TaskPlan, make: Make, end: Make
) -> None:
    container = task.containers[0]
    await runtime.prepare(task)
    await make(runtime, task)
    await runtime.start(task, container)
    await end(runtime, task)

    for _ in range(2):
        await runtime.restart(task, container, None)
        await runtime.start(task, container)

    assert await runtime.stop(container) is not None


async def test_restart_leaves_alone_what_runs(runtime: Runtime, task: TaskPlan, make: Make) -> None:
    container = task.containers[0]
    await runtime.prepare(task)
    await make(runtime, task)
    await runtime.start(task, container)

    await runtime.restart(task, container, None)

    assert await runtime.stop(container) is not None
