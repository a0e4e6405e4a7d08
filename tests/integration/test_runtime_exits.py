"""How containers begin and end under real containerd and runC."""

import asyncio
import signal
import time

import pytest

from fargate_agent.drivers import ImageConfig
from fargate_agent.errors import (
    CannotCreateContainerError,
    CannotStartContainerError,
    TaskError,
)
from fargate_agent.parallel import together
from fargate_agent.plan import ContainerPlan, TaskPlan
from tests.fixtures.loggers import read_records
from tests.fixtures.runtime import Bench, make_runtime
from tests.integration.test_runtime_loggers import real_drivers

pytestmark = pytest.mark.root

TRAP = "trap 'exit 3' {signal}; echo ready; while :; do sleep 0.01; done"
"""Ends by itself on a signal, with a code of its own."""

DEAF = "trap '' TERM; echo ready; while :; do sleep 0.01; done"


@pytest.mark.parametrize("code", [pytest.param(0, id="well"), pytest.param(7, id="badly")])
async def test_wait_gives_the_exit_code(bench: Bench, code: int) -> None:
    finished = await bench.run(f"exit {code}")

    assert finished.status.code == code
    assert not finished.status.oom_killed


async def test_wait_gives_128_and_the_signal_when_one_ended_it(bench: Bench) -> None:
    task = await bench.begin(command=["sleep", "60"])

    await bench.containerd.processes.kill(task.containers[0].id, signal.SIGKILL)

    assert (await bench.finish(task)).status.code == 137


async def test_what_is_no_program_ends_at_once_and_says_why(bench: Bench) -> None:
    finished = await bench.run(command=["/etc/passwd"])

    assert finished.status.code != 0
    assert "exec format error" in finished.output


@pytest.mark.parametrize(
    ("command", "text"),
    [
        pytest.param(["nosuch"], 'exec: "nosuch": executable file not found in $PATH', id="name"),
        pytest.param(["/no/such"], "no such file or directory", id="path"),
        pytest.param(["/etc"], "permission denied", id="directory"),
    ],
)
async def test_a_program_that_cannot_be_run_is_reported_in_runcs_words(
    bench: Bench, command: list[str], text: str
) -> None:
    with pytest.raises(CannotStartContainerError) as caught:
        await bench.begin(command=command)

    assert text in caught.value.reason
    assert str(bench.directory) not in caught.value.reason
    assert "/run/" not in caught.value.reason
    assert caught.value.container == "web"
    await bench.runtime.stop(bench.tasks[0].containers[0])
    await bench.release(bench.tasks[0])
    assert await bench.traces(bench.tasks[0]) == []


async def test_a_container_with_nothing_to_run_is_refused(bench: Bench) -> None:
    bench.config = ImageConfig()

    with pytest.raises(CannotCreateContainerError, match="no command specified"):
        await bench.begin()


async def test_an_unknown_user_is_refused(bench: Bench) -> None:
    with pytest.raises(TaskError) as caught:
        await bench.begin("id", user="nosuch")

    assert caught.value.reason == (
        "CannotCreateContainerError: unable to find user nosuch: no matching entries in passwd file"
    )
    assert caught.value.container == "web"


@pytest.mark.parametrize(
    ("image_signal", "trapped"),
    [pytest.param("", "TERM", id="default"), pytest.param("SIGQUIT", "QUIT", id="of the image")],
)
async def test_stop_sends_the_stop_signal_and_gives_the_exit_code(
    bench: Bench, image_signal: str, trapped: str
) -> None:
    bench.config = ImageConfig(command=("sh",), stop_signal=image_signal)
    task = await bench.begin(TRAP.format(signal=trapped))
    await bench.wait_for_output(task, "ready")

    status = await bench.runtime.stop(task.containers[0])

    assert status is not None
    assert status.code == 3


async def test_stop_kills_what_ignores_the_signal_after_its_timeout(bench: Bench) -> None:
    task = await bench.begin(DEAF, stopTimeout=1)
    await bench.wait_for_output(task, "ready")
    began = time.monotonic()

    status = await bench.runtime.stop(task.containers[0])

    assert status is not None
    assert status.code == 137
    assert time.monotonic() - began > 1


async def test_stop_of_what_has_ended_gives_how_it_ended(bench: Bench) -> None:
    task = await bench.begin("exit 4")
    await bench.runtime.wait(task.containers[0])

    status = await bench.runtime.stop(task.containers[0])

    assert status is not None
    assert status.code == 4


async def test_wait_returns_when_the_container_is_stopped(bench: Bench) -> None:
    task = await bench.begin(TRAP.format(signal="TERM"))
    await bench.wait_for_output(task, "ready")

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        waiting = group.create_task(bench.runtime.wait(task.containers[0]))
        group.create_task(bench.runtime.stop(task.containers[0]))

    assert waiting.result().code == 3


async def test_nothing_is_left_of_a_task_that_has_run(bench: Bench) -> None:
    task = await bench.begin("echo written >/file")

    await bench.finish(task)

    assert await bench.traces(task) == []


@pytest.mark.timeout(300)
async def test_no_exit_and_no_line_is_lost_of_fifty_containers_that_live_as_long_as_a_line(
    bench: Bench,
) -> None:
    patient = make_runtime(bench.containerd, [], create_timeout_s=240)
    uri, found = real_drivers()["json-file"].uri, dict[str, tuple[int, list[str]]]()

    def plan(number: int) -> TaskPlan:
        scripts = (f"echo {number}-{place}; exit {place}" for place in range(5))
        return bench.plan(
            *({"name": f"c{i}", "command": ["sh", "-c", one]} for i, one in enumerate(scripts))
        )

    async def run(task: TaskPlan, container: ContainerPlan) -> None:
        await patient.create(task, container, bench.image(), uri(task, container))
        await patient.start(task, container)
        status = await patient.wait(container)
        await patient.stop(container)
        lines = [record["log"] for record in read_records(container.log_path)]
        found[container.id] = (status.code, lines)

    tasks = [plan(number) for number in range(10)]
    for task in tasks:
        await patient.prepare(task)
    await together(run(task, one) for task in tasks for one in task.containers)

    assert found == {
        container.id: (place, [f"{number}-{place}\n"])
        for number, task in enumerate(tasks)
        for place, container in enumerate(task.containers)
    }
