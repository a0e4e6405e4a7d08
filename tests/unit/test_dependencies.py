"""What a container waits for before it is created, and what becomes of it if that never comes."""

import asyncio
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.drivers import ExitStatus
from fargate_agent.errors import CannotCreateContainerError, TaskDependencyError
from fargate_agent.plan import Condition, plan_task
from fargate_agent.task.conditions import has_reached
from fargate_agent.task.runner import TaskRun, run_task
from fargate_agent.task.status import (
    ContainerFacts,
    ContainerStatus,
    HealthFacts,
    HealthStatus,
    RunFacts,
    TaskFacts,
)
from tests.fakes import MOMENT, Diary, FakeDrivers, fake_drivers
from tests.fixtures.clock import jumping, now_s
from tests.messages import container_json, site, task_message

HEALTHY = HealthFacts(status=HealthStatus.HEALTHY)
UNHEALTHY = HealthFacts(status=HealthStatus.UNHEALTHY)
STARTED = RunFacts(created_at=MOMENT, started_at=MOMENT)
UNSEEN = "as nobody knows how dependency ended."
FAILED = "as dependency did not exit successfully."
SICK = "as dependency ended before it was healthy."
ABSENT = "because dependency will never start"


def ended(code: int) -> RunFacts:
    return RunFacts(created_at=MOMENT, started_at=MOMENT, exit_code=code)


def container(*runs: RunFacts, name: str = "dep", **more: Any) -> ContainerFacts:
    return ContainerFacts(name=name, runtime_id="1", runs=list(runs), **more)


RUNNING, STOPPED = {"status": ContainerStatus.RUNNING}, {"status": ContainerStatus.STOPPED}
STATES: dict[str, tuple[ContainerFacts, list[bool | str]]] = {
    # In the order of `Condition`: CREATE, START, COMPLETE, SUCCESS, HEALTHY.
    "not created": (container(), [False] * 5),
    "created": (container(RunFacts(created_at=MOMENT)), [True, False, False, False, False]),
    "running": (container(STARTED, **RUNNING), [True, True, False, False, False]),
    "healthy": (container(STARTED, health=HEALTHY, **RUNNING), [True, True, False, False, True]),
    "unhealthy": (
        container(STARTED, health=UNHEALTHY, **RUNNING),
        [True, True, False, False, False],
    ),
    "between two runs": (container(ended(0), **RUNNING), [True, True, False, False, False]),
    "running again": (container(ended(0), STARTED, **RUNNING), [True, True, False, False, False]),
    "ended well": (container(ended(0), **STOPPED), [True, True, True, True, SICK]),
    "ended when healthy": (
        container(ended(0), health=HEALTHY, **STOPPED),
        [True, True, True, True, True],
    ),
    "ended badly": (container(ended(3), **STOPPED), [True, True, True, FAILED, SICK]),
    "ended unseen": (container(STARTED, **STOPPED), [True, True, UNSEEN, FAILED, SICK]),
    "never started": (container(RunFacts(created_at=MOMENT), **STOPPED), [ABSENT] * 5),
    "never created": (container(**STOPPED), [ABSENT] * 5),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("place", "condition"), list(enumerate(Condition)))
def test_condition_is_reached_in_these_states(state: str, place: int, condition: Condition) -> None:
    facts, expected = STATES[state][0], STATES[state][1][place]

    if isinstance(expected, bool):
        assert has_reached(facts, condition, "app") is expected
        return
    with pytest.raises(TaskDependencyError) as error:
        has_reached(facts, condition, "app")

    assert error.value.container == "app"
    assert error.value.detail == (
        "dependency graph: failed to resolve container ordering dependency [dep] "
        f"for target [app] {expected}"
    )


@dataclass
class Scene:
    """A container `app` that depends on `dep`, which can't start before `slow` has ended."""

    app: dict[str, Any]
    dep_runs: list[tuple[float, ExitStatus]] = field(default_factory=list)
    dep: dict[str, Any] = field(default_factory=dict)
    reached_s: float = 10
    never: Callable[[FakeDrivers], None] = lambda drivers: None
    why: str = ABSENT
    failed_s: float = 10


def needs(condition: str) -> dict[str, Any]:
    return {"dependsOn": [{"containerName": "dep", "condition": condition}]}


def ends(after_s: float, code: int) -> list[tuple[float, ExitStatus]]:
    return [(after_s, ExitStatus(code=code, at=MOMENT))]


def refuse_creation(drivers: FakeDrivers) -> None:
    drivers.diary.fail_at, drivers.diary.error = "create dep", CannotCreateContainerError


def end_dep(after_s: float, code: int) -> Callable[[FakeDrivers], None]:
    def change(drivers: FakeDrivers) -> None:
        drivers.runtime.runs["dep"] = ends(after_s, code)

    return change


def run_for_ever(drivers: FakeDrivers) -> None:
    del drivers.runtime.runs["dep"]


CHECK = {"healthCheck": {"command": ["CMD", "x"], "interval": 5}}
SCENES = {
    "CREATE": Scene(app={"volumesFrom": [{"sourceContainer": "dep"}]}, never=refuse_creation),
    "START": Scene(app=needs("START"), never=refuse_creation),
    "COMPLETE": Scene(
        app=needs("COMPLETE"),
        dep={"startTimeout": 7},
        dep_runs=ends(5, 3),
        reached_s=15,
        never=run_for_ever,
        why="has timed out.",
        failed_s=17,
    ),
    "SUCCESS": Scene(
        app=needs("SUCCESS"),
        dep_runs=ends(5, 0),
        reached_s=15,
        never=end_dep(5, 1),
        why=FAILED,
        failed_s=15,
    ),
    "HEALTHY": Scene(
        app=needs("HEALTHY"), dep=CHECK, reached_s=15, never=end_dep(4, 0), why=SICK, failed_s=14
    ),
}


def new_run(scene: Scene, facts: TaskFacts | None = None) -> TaskRun:
    message = task_message(
        container_json("main"),
        container_json("app", essential=False, **scene.app),
        container_json(
            "dep",
            essential=False,
            **{**scene.dep, "dependsOn": [{"containerName": "slow", "condition": "COMPLETE"}]},
        ),
        container_json("slow", essential=False),
    )
    return TaskRun(
        plan=plan_task(message, site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
        facts=facts or TaskFacts(),
        is_new=facts is None,
    )


def fakes(scene: Scene) -> FakeDrivers:
    drivers = fake_drivers(Diary())
    drivers.runtime.runs |= {"main": ends(100, 0), "slow": ends(10, 0), "dep": scene.dep_runs}
    return drivers


async def play(run: TaskRun, drivers: FakeDrivers) -> tuple[float | None, float | None]:
    """Return when `app` was started, and when it failed."""
    failed_s: list[float] = []

    async def report(run: TaskRun) -> None:
        if run.facts.containers["app"].status is ContainerStatus.STOPPED:
            failed_s.append(now_s())

    await run_task(run, drivers.all, report)
    failed = failed_s[0] if run.facts.containers["app"].started_at is None else None
    return drivers.runtime.started_s.get("app"), failed


@pytest.mark.parametrize("condition", SCENES)
@jumping
async def test_container_waits_until_its_dependency_is_as_it_wants(condition: str) -> None:
    scene = SCENES[condition]
    run, drivers = new_run(scene), fakes(scene)

    started_s, _ = await play(run, drivers)

    assert started_s == scene.reached_s
    assert run.facts.reason == "Essential container in task exited"


@pytest.mark.parametrize("condition", SCENES)
@jumping
async def test_container_that_isn_t_essential_is_stopped_when_its_dependency_never_comes(
    condition: str,
) -> None:
    scene = SCENES[condition]
    run, drivers = new_run(scene), fakes(scene)
    scene.never(drivers)

    started_s, failed_s = await play(run, drivers)

    app = run.facts.containers["app"]
    assert (started_s, failed_s) == (None, scene.failed_s)
    assert (app.status, app.exit_code) == (ContainerStatus.STOPPED, None)
    assert app.reason is not None
    assert app.reason.startswith("TaskDependencyError: dependency graph: ")
    assert app.reason.endswith(f" for target [app] {scene.why}")
    assert "create app" not in drivers.diary.calls
    assert (run.facts.reason, now_s()) == ("Essential container in task exited", 100)


@pytest.mark.parametrize("dies_s", [5, 12, 16])
@pytest.mark.parametrize("condition", SCENES)
@jumping
async def test_next_agent_waits_as_the_one_before_did(condition: str, dies_s: int) -> None:
    scene = SCENES[condition]
    run, drivers = new_run(scene), fakes(scene)
    records: list[TaskFacts] = []

    async def report(run: TaskRun) -> None:
        records.append(deepcopy(run.facts))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(dies_s):
            await run_task(run, drivers.all, report)
    began = "create app" in drivers.diary.calls
    assert began == (dies_s > scene.reached_s)

    started_s, _ = await play(new_run(scene, records[-1]), drivers)

    late_s = 2 if condition == "HEALTHY" and dies_s == 12 else 0  # checks are an interval apart
    assert started_s == scene.reached_s + late_s
    assert drivers.diary.calls.count("create app") == 1


@jumping
async def test_start_timeout_goes_on_while_agents_come_and_go() -> None:
    scene = SCENES["COMPLETE"]
    dep = container(
        RunFacts(created_at=MOMENT, started_at=datetime.now(UTC) - timedelta(seconds=4)),
        **RUNNING,
    )
    slow = container(ended(0), name="slow", **STOPPED)
    run, drivers = new_run(scene, TaskFacts(containers={"dep": dep, "slow": slow})), fakes(scene)
    drivers.runtime.created = drivers.runtime.started = {"dep", "slow"}
    run_for_ever(drivers)

    started_s, failed_s = await play(run, drivers)

    assert started_s is None
    assert failed_s is not None
    assert failed_s <= 3


@jumping
async def test_start_timeout_of_a_container_that_is_restarted_counts_from_its_first_start() -> None:
    policy = {"restartPolicy": {"enabled": True, "restartAttemptPeriod": 0}}
    scene = replace(SCENES["COMPLETE"], dep={"startTimeout": 7, **policy})
    run, drivers = new_run(scene), fakes(scene)
    drivers.runtime.runs["dep"] = ends(3, 1) * 50

    started_s, failed_s = await play(run, drivers)

    assert (started_s, failed_s) == (None, 17)


@jumping
async def test_all_dependencies_are_waited_for_side_by_side() -> None:
    """The one that fails is told of while another is still awaited."""
    both = needs("SUCCESS")["dependsOn"] + [{"containerName": "slow", "condition": "COMPLETE"}]
    message = task_message(
        container_json("app", dependsOn=both[::-1]),
        container_json("dep", essential=False),
        container_json("slow", essential=False),
    )
    run = TaskRun(
        plan=plan_task(message, site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
    )
    drivers = fake_drivers(Diary())
    drivers.runtime.runs |= {"slow": ends(100, 0), "dep": ends(1, 1)}

    await play(run, drivers)

    assert now_s() == 1
    assert run.facts.reason is not None
    assert run.facts.reason.endswith(FAILED)
