"""The stop timeout of a container, which several agents may see pass."""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fargate_agent.drivers import Drivers, ExitStatus
from fargate_agent.plan import ContainerPlan, TaskPlan, VolumePlan, plan_task
from fargate_agent.task.runner import TaskRun, run_task
from fargate_agent.task.status import TaskFacts, TaskStatus
from fargate_agent.task.surroundings import INTERRUPT_AFTER_S
from fargate_agent.wire.volume_kinds import VolumeKind
from tests.fakes import MOMENT, Diary, FakeRuntime, FakeVolumes, fake_drivers
from tests.fixtures.clock import jumping
from tests.messages import container_json, site, task_message

INIT_AND_APP = (
    container_json(
        "app", stopTimeout=20, dependsOn=[{"containerName": "init", "condition": "START"}]
    ),
    container_json("init", stopTimeout=9),
)


@dataclass
class Stubborn(FakeRuntime):
    """Its containers end when their stop timeouts are over."""

    told_s: list[tuple[str, int]] = field(default_factory=list)

    async def stop(self, container: ContainerPlan) -> ExitStatus | None:
        self.told_s.append((container.name, container.stop_timeout_s))
        await asyncio.sleep(container.stop_timeout_s)
        return ExitStatus(code=137, at=MOMENT)


def fakes() -> tuple[Stubborn, Drivers]:
    made = fake_drivers(Diary())
    runtime = Stubborn(made.diary)
    return runtime, replace(made.all, runtime=runtime)


def stopping() -> TaskRun:
    return TaskRun(
        plan=plan_task(task_message(*INIT_AND_APP), site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
        facts=TaskFacts(status=TaskStatus.STOPPING, reason="Task stopped by user"),
    )


@dataclass
class Notebook:
    """What the record of a task would hold."""

    broken: bool = False
    written_s: dict[str, float | None] = field(default_factory=dict)

    async def report(self, run: TaskRun) -> None:
        if self.broken and run.facts.status is TaskStatus.STOPPING:
            raise OSError(28, "No space left on device")
        self.written_s = {c.name: c.stop_began_s for c in run.facts.containers.values()}


@jumping
async def test_next_agent_waits_for_what_is_left_of_a_stop_timeout() -> None:
    (first, drivers), run, notebook = fakes(), stopping(), Notebook()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(12):
            await run_task(run, drivers, notebook.report)
    assert first.told_s == [("app", 20)]
    assert first.diary.calls == ["ready"]  # an agent that ends takes nothing from what still runs
    (second, drivers), began_s = fakes(), dict(notebook.written_s)
    adopted = stopping()
    adopted.facts = run.facts

    await run_task(adopted, drivers, notebook.report)

    assert second.told_s == [("app", 8), ("init", 9)]
    assert notebook.written_s["app"] == began_s["app"]
    assert began_s["init"] is None


@jumping
async def test_next_agent_kills_at_once_when_the_stop_timeout_is_over() -> None:
    run = stopping()
    (_, drivers), notebook = fakes(), Notebook()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(12):
            await run_task(run, drivers, notebook.report)
    await asyncio.sleep(100)
    second, drivers = fakes()

    await run_task(run, drivers, notebook.report)

    assert second.told_s == [("app", 0), ("init", 9)]


@jumping
async def test_stop_goes_on_when_it_can_not_be_written_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (runtime, drivers), run = fakes(), stopping()

    await run_task(run, drivers, Notebook(broken=True).report)

    assert [name for name, _ in runtime.told_s] == ["app", "init"]
    assert "No space left on device" in caplog.text


@dataclass
class Gone(FakeVolumes):
    """Volumes on a server that is gone: whoever waits for it ends when it is interrupted."""

    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def interrupt(self, task: TaskPlan, volume: VolumePlan) -> None:
        await self.diary.write(f"interrupt volume {volume.name}")
        self.let_go.set()


@dataclass
class Waiting(FakeRuntime):
    """Its containers wait for a file server, and are not to be killed before they are let go."""

    volumes: Gone | None = None

    async def stop(self, container: ContainerPlan) -> ExitStatus | None:
        assert self.volumes is not None
        await self.diary.write(f"stop {container.name}")
        await self.volumes.let_go.wait()
        return ExitStatus(code=137, at=MOMENT)


@jumping
async def test_container_that_waits_for_a_file_server_is_let_go_after_its_stop_timeout() -> None:
    mount = [{"sourceVolume": "v", "containerPath": "/v"}]
    volume = {"name": "v", "efsVolumeConfiguration": {"fileSystemId": "fs-01234567"}}
    message = task_message(
        container_json("app", stopTimeout=20, mountPoints=mount),
        volumes=[volume, {**volume, "name": "unused"}],
    )
    made = fake_drivers(Diary())
    volumes = Gone(made.diary, needs_network=True)
    runtime = Waiting(made.diary, volumes=volumes)
    kinds = {**made.all.volumes, VolumeKind.EFS: volumes}
    run = replace(stopping(), plan=plan_task(message, site(Path("/nowhere"))))
    clock = asyncio.get_running_loop()
    begun_s = clock.time()

    drivers = replace(made.all, runtime=runtime, volumes=kinds)
    await run_task(run, drivers, Notebook().report)

    calls = made.diary.calls
    assert calls[calls.index("stop app") + 1] == "interrupt volume v"
    assert "interrupt volume unused" not in calls
    assert clock.time() - begun_s == pytest.approx(20 + INTERRUPT_AFTER_S)
    assert calls.index("release volume v") > calls.index("interrupt volume v")


@jumping
async def test_hurried_task_is_killed_in_the_middle_of_its_stop_timeout() -> None:
    """And those containers that wait for others get none either."""
    runtime, drivers = fakes()
    run = stopping()
    clock = asyncio.get_running_loop()
    began_s = clock.time()

    stop = asyncio.create_task(run_task(run, drivers, Notebook().report))
    await asyncio.sleep(3)
    run.hurry.set()
    await stop

    assert runtime.told_s == [("app", 20), ("app", 0), ("init", 0)]
    assert clock.time() - began_s < 4
    assert run.facts.status is TaskStatus.STOPPED
