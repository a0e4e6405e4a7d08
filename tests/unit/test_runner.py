import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.drivers import ExitStatus, FindLogin, Image, PullProgress, no_login
from fargate_agent.errors import CannotPullContainerError
from fargate_agent.plan import ContainerPlan, Replacement, TaskPlan, plan_task
from fargate_agent.task.runner import TaskRun, run_task
from fargate_agent.task.status import (
    ContainerFacts,
    ContainerStatus,
    RunFacts,
    StateChange,
    TaskStatus,
)
from tests.fakes import (
    MOMENT,
    Diary,
    FakeDrivers,
    FakeImages,
    FakeMetadata,
    FakeRuntime,
    FakeSecrets,
    fake_drivers,
)
from tests.fixtures.clock import jumping
from tests.messages import container_json, site, task_message

UNDO = [
    "stop web",
    "stop log",
    "drop secrets",
    "close",
    "detach eth1",
    "release netns",
    "release storage",
    "release",
]
EXITED = ExitStatus(code=0, at=MOMENT)


def new_run(*containers: dict[str, object]) -> TaskRun:
    message = task_message(*(containers or (container_json("web"), container_json("log"))))
    return TaskRun(
        plan=plan_task(message, site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
    )


async def finish(run: TaskRun, drivers: FakeDrivers) -> list[StateChange]:
    changes: list[StateChange] = []

    async def report(run: TaskRun) -> None:
        changes.append(run.change())

    await run_task(run, drivers.all, report)
    return changes


@jumping
async def test_task_goes_through_every_status_when_its_essential_container_exits() -> None:
    run, drivers = new_run(), fake_drivers(exits={"web": ExitStatus(code=7, at=MOMENT)})

    changes = await finish(run, drivers)

    statuses = list(dict.fromkeys(change.status for change in changes))
    assert statuses == ["PENDING", "RUNNING", "STOPPING", "STOPPED"]
    assert changes[-1].reason == "Essential container in task exited"
    assert changes[-1].stop_code == "EssentialContainerExited"
    assert run.facts.containers["web"].exit_code == 7
    assert run.facts.containers["log"].exit_code == 143
    assert run.facts.execution_stopped_at == MOMENT


@jumping
async def test_task_ends_with_the_reason_given_when_it_is_stopped_while_running() -> None:
    run, drivers = new_run(), fake_drivers()

    async def report(run: TaskRun) -> None:
        if run.facts.status is TaskStatus.RUNNING and not run.stop.done():
            run.stop.set_result("maintenance")

    await run_task(run, drivers.all, report)

    assert run.facts.status is TaskStatus.STOPPED
    assert (run.facts.reason, run.facts.stop_code) == ("maintenance", "UserInitiated")
    assert run.facts.containers["web"].exit_code == 143


@jumping
async def test_secrets_of_loggers_are_held_from_the_network_until_the_end() -> None:
    run, drivers = new_run(), fake_drivers(exits={"web": EXITED})
    secrets = FakeSecrets(drivers.diary)
    drivers.all = replace(drivers.all, secrets=secrets)
    held: dict[TaskStatus, bool] = {}

    async def report(run: TaskRun) -> None:
        held[run.facts.status] = run.plan.id in secrets.held

    await run_task(run, drivers.all, report)

    assert (held[TaskStatus.PENDING], held[TaskStatus.RUNNING]) == (True, True)
    assert held[TaskStatus.STOPPED] is False


@jumping
async def test_cancelled_run_leaves_everything_for_a_successor() -> None:
    run, drivers = new_run(), fake_drivers()
    running = asyncio.Event()

    async def report(run: TaskRun) -> None:
        if run.facts.status is TaskStatus.RUNNING:
            running.set()

    job = asyncio.create_task(run_task(run, drivers.all, report))
    await running.wait()
    job.cancel()
    await asyncio.wait([job])

    assert not [call for call in drivers.diary.calls if call in UNDO]
    assert run.facts.status is TaskStatus.RUNNING


@jumping
async def test_adopted_task_ends_with_the_exit_code_of_its_container() -> None:
    run, drivers = new_run(), fake_drivers(exits={"web": ExitStatus(code=3, at=MOMENT)})
    drivers.runtime.created, drivers.runtime.started = {"web", "log"}, {"web", "log"}
    run.facts.status = TaskStatus.RUNNING

    changes = await finish(run, drivers)

    assert {change.status for change in changes} == {"RUNNING", "STOPPING", "STOPPED"}
    assert run.facts.containers["web"].exit_code == 3


class SecondThoughts(FakeRuntime):
    """Says of each container, when it is removed, that it was killed."""

    async def stop(self, container: ContainerPlan) -> ExitStatus | None:
        return replace(self.stopped_exit, code=137) if await super().stop(container) else None


@jumping
async def test_first_exit_code_of_a_container_stays() -> None:
    run, drivers = new_run(), fake_drivers()
    runtime = SecondThoughts(drivers.diary, {"web": ExitStatus(code=7, at=MOMENT)})
    drivers.all = replace(drivers.all, runtime=runtime)

    await finish(run, drivers)

    assert run.facts.containers["web"].exit_code == 7
    assert run.facts.containers["log"].exit_code == 137


@jumping
async def test_container_that_vanished_while_no_agent_ran_is_not_started_again() -> None:
    run, drivers = new_run(), fake_drivers()
    run.facts.status = TaskStatus.RUNNING
    run.facts.containers = {
        one.name: ContainerFacts(
            name=one.name, runtime_id=one.id, runs=[RunFacts(started_at=MOMENT)]
        )
        for one in run.plan.containers
    }

    await finish(run, drivers)

    assert run.facts.reason is not None
    assert "vanished while no agent ran" in run.facts.reason
    assert not [call for call in drivers.diary.calls if call.startswith("create")]


@jumping
async def test_task_ends_when_a_dependency_that_must_succeed_fails() -> None:
    run = new_run(
        container_json("app", dependsOn=[{"containerName": "init", "condition": "SUCCESS"}]),
        container_json("init", essential=False),
    )
    drivers = fake_drivers(exits={"init": ExitStatus(code=2, at=MOMENT)})

    changes = await finish(run, drivers)

    assert "create app" not in drivers.diary.calls
    assert changes[-1].reason == (
        "TaskDependencyError: dependency graph: failed to resolve container ordering dependency "
        "[init] for target [app] as dependency did not exit successfully."
    )


@jumping
async def test_end_of_a_container_that_is_not_essential_is_reported_and_the_task_goes_on() -> None:
    run = new_run(container_json("web"), container_json("job", essential=False))
    drivers = fake_drivers(exits={"job": ExitStatus(code=5, at=MOMENT)})
    changes: list[StateChange] = []

    async def report(run: TaskRun) -> None:
        changes.append(run.change())
        if run.facts.containers["job"].exit_code == 5 and not run.stop.done():
            run.stop.set_result("seen")

    await run_task(run, drivers.all, report)

    seen = next(c for c in changes if c.containers[1].status is ContainerStatus.STOPPED)
    assert seen.status is TaskStatus.RUNNING
    assert seen.containers[1].exit_code == 5


@jumping
async def test_log_driver_that_is_not_there_is_refused_before_anything_is_made() -> None:
    run = new_run(container_json("web", logConfiguration={"logDriver": "awslogs"}))
    drivers = fake_drivers()

    changes = await finish(run, drivers)

    assert changes[-1].reason == (
        "ResourceInitializationError: failed to initialize logging driver: "
        "log driver 'awslogs' is not supported here"
    )
    assert run.facts.containers["web"].reason == changes[-1].reason
    undone = [call for call in UNDO if call != "stop log"]
    assert drivers.diary.calls == ["ready", *undone]


class ImagesThatAreHere(FakeImages):
    async def ensure(
        self,
        reference: str,
        task: TaskPlan,
        progress: Callable[[PullProgress], None],
        network: asyncio.Event,
        find_login: FindLogin = no_login,
    ) -> Image:
        there = asyncio.Event()
        there.set()
        return await super().ensure(reference, task, progress, there, find_login)


class SlowMetadata(FakeMetadata):
    async def ensure(self, task: TaskPlan) -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        await super().ensure(task)


@pytest.mark.parametrize(
    ("driver", "order"),
    [
        pytest.param("fluentd", ["listen", "create web"], id="needs-the-network"),
        pytest.param("json-file", ["create web", "listen"], id="does-not"),
    ],
)
@jumping
async def test_container_waits_for_the_network_if_its_logger_needs_it(
    driver: str, order: list[str]
) -> None:
    run = new_run(container_json("web", logConfiguration={"logDriver": driver}))
    drivers = fake_drivers(exits={"web": EXITED})
    diary = drivers.diary
    drivers.all = replace(
        drivers.all, images=ImagesThatAreHere(diary), metadata=SlowMetadata(diary)
    )

    await finish(run, drivers)

    assert [call for call in diary.calls if call in order] == order


@jumping
async def test_container_gets_the_reason_when_its_image_cannot_be_pulled() -> None:
    run = new_run()
    drivers = fake_drivers(Diary(fail_at="pull log:1", error=CannotPullContainerError))

    changes = await finish(run, drivers)

    assert changes[-1].reason == "CannotPullContainerError: refused: pull log:1"
    assert changes[-1].stop_code == "TaskFailedToStart"
    assert run.facts.containers["log"].reason == changes[-1].reason
    assert run.facts.containers["web"].exit_code is None


@jumping
async def test_oom_kill_becomes_the_reason_of_the_container() -> None:
    run = new_run(container_json("web"))
    drivers = fake_drivers(exits={"web": ExitStatus(code=137, at=MOMENT, oom_killed=True)})

    await finish(run, drivers)

    assert run.facts.containers["web"].reason == (
        "OutOfMemoryError: container killed due to memory usage"
    )


@pytest.mark.parametrize("later", list(TaskStatus))
@pytest.mark.parametrize("earlier", list(TaskStatus))
def test_status_only_moves_to_the_right(earlier: TaskStatus, later: TaskStatus) -> None:
    order = ["PROVISIONING", "PENDING", "RUNNING", "STOPPING", "DEPROVISIONING", "STOPPED"]

    assert later.is_after(earlier) == (order.index(later) > order.index(earlier))


@jumping
async def test_every_change_says_what_is_replaced_on_this_machine() -> None:
    run, drivers = new_run(), fake_drivers(exits={"web": EXITED})
    logs = Replacement(kind="logs", what="awslogs of web", by="the copy kept on this machine")
    run.plan = replace(run.plan, replacements=(logs,))

    changes = await finish(run, drivers)

    assert {change.replacements for change in changes} == {(logs,)}
