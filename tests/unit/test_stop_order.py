"""When each container of a task is told to stop, by a clock that jumps."""

import asyncio
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.drivers import ExitStatus
from fargate_agent.plan import ContainerPlan, plan_task
from fargate_agent.task.runner import TaskRun, run_task
from fargate_agent.task.status import ContainerStatus, TaskFacts, TaskStatus
from tests.fakes import MOMENT, Diary, FakeRuntime, fake_drivers
from tests.fixtures.clock import jumping, now_s
from tests.messages import container_json, site, task_message


@dataclass
class Stubborn(FakeRuntime):
    """Its containers end when their stop timeouts are over, or never."""

    told_s: dict[str, float] = field(default_factory=dict)
    gone_s: dict[str, float] = field(default_factory=dict)
    hanging: frozenset[str] = frozenset()

    async def stop(self, container: ContainerPlan) -> ExitStatus | None:
        self.told_s[container.name] = now_s()
        if container.name in self.hanging:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(container.stop_timeout_s)
        self.gone_s[container.name] = now_s()
        return ExitStatus(code=137, at=MOMENT)


def container(name: str, stop_timeout_s: int, *needs: str) -> dict[str, Any]:
    return container_json(
        name,
        stopTimeout=stop_timeout_s,
        dependsOn=[{"containerName": one, "condition": "START"} for one in needs],
    )


async def stop(*containers: dict[str, Any], hanging: frozenset[str] = frozenset()) -> Stubborn:
    """End a task whose containers run."""
    made = fake_drivers(Diary())
    runtime = Stubborn(made.diary, hanging=hanging)
    run = TaskRun(
        plan=plan_task(task_message(*containers), site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
        facts=TaskFacts(status=TaskStatus.STOPPING, reason="Task stopped by user"),
    )

    async def report(run: TaskRun) -> None:
        return

    await run_task(run, replace(made.all, runtime=runtime), report)
    assert run.ended.is_set()
    stopped = {one.name for one in run.facts.containers.values() if one.exit_code == 137}
    assert stopped == runtime.gone_s.keys()
    return runtime


@jumping
async def test_chain_is_stopped_link_by_link_and_each_gets_its_whole_timeout() -> None:
    runtime = await stop(
        container("disk", 120), container("app", 120, "db"), container("db", 120, "disk")
    )

    assert runtime.told_s == {"app": 0, "db": 120, "disk": 240}
    assert now_s() == 360


@jumping
async def test_containers_that_nothing_orders_are_stopped_side_by_side() -> None:
    runtime = await stop(
        container("a", 100), container("b", 7), container("c", 30, "b"), container("d", 0)
    )

    assert runtime.told_s == {"a": 0, "c": 0, "d": 0, "b": 30}
    assert now_s() == 100


@jumping
async def test_container_waits_for_the_slowest_that_depends_on_it() -> None:
    runtime = await stop(
        container("app", 3, "left", "right"),
        container("left", 10, "base"),
        container("right", 50, "base"),
        container("base", 2),
    )

    assert runtime.told_s == {"app": 0, "left": 3, "right": 3, "base": 53}
    assert now_s() == 55


@jumping
async def test_container_that_can_t_be_stopped_keeps_nothing_else_from_ending() -> None:
    runtime = await stop(
        container("app", 120, "db"), container("db", 5), hanging=frozenset({"app"})
    )

    assert runtime.told_s == {"app": 0, "db": 160}  # its timeout, and 40 s for the kill


@pytest.mark.parametrize("seed", range(30))
@jumping
async def test_no_two_containers_wait_for_each_other(seed: int) -> None:
    """Whatever they depend on, all of them start, and stop; the clock fails what hangs."""
    chance = random.Random(seed)
    names = [f"c{number}" for number in range(8)]
    conditions = ["START", "COMPLETE", "SUCCESS", "HEALTHY"]
    containers = [
        container_json(
            name,
            essential=place == 0,
            stopTimeout=chance.randint(2, 120),
            healthCheck={"command": ["CMD", "x"]},
            startTimeout=chance.choice([2, 120]),
            restartPolicy={"enabled": chance.random() < 0.3, "restartAttemptPeriod": 60},
            dependsOn=[
                {"containerName": other, "condition": chance.choice(conditions)}
                for other in names[place + 1 :]
                if chance.random() < 0.4
            ],
            volumesFrom=[
                {"sourceContainer": other} for other in names[place + 1 :] if chance.random() < 0.2
            ],
        )
        for place, name in enumerate(names)
    ]
    chance.shuffle(containers)
    drivers = fake_drivers(Diary())
    drivers.runtime.runs |= {
        name: [
            (chance.uniform(0, 300), ExitStatus(code=chance.choice([0, 0, 0, 1]), at=MOMENT))
            for _ in range(3)
        ]
        for name in names[1:]
    }
    run = TaskRun(
        plan=plan_task(task_message(*containers), site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
        is_new=True,
    )
    asyncio.get_running_loop().call_at(5000, run.stop.set_result, "over")

    async def report(run: TaskRun) -> None:
        return

    await run_task(run, drivers.all, report)

    settled = {one.name: one.status for one in run.facts.containers.values()}
    assert set(settled.values()) == {ContainerStatus.STOPPED}
    assert drivers.runtime.created == set()
    assert run.ended.is_set()
