"""What health checks make of a container."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.drivers import ExecIo
from fargate_agent.errors import (
    CannotExecError,
    ContainerRuntimeError,
    ExecTimeoutError,
    ResourceInitializationError,
)
from fargate_agent.plan import ContainerPlan, HealthCheckPlan, plan_task
from fargate_agent.task.health import CheckResult, record_check
from fargate_agent.task.runner import TaskRun, run_task
from fargate_agent.task.status import (
    ContainerFacts,
    ContainerStatus,
    HealthFacts,
    HealthStatus,
    RunFacts,
    StateChange,
    TaskFacts,
    TaskStatus,
)
from tests.fakes import MOMENT, FakeDrivers, fake_drivers
from tests.fixtures.clock import jumping, now_s
from tests.messages import container_json, site, task_message

UNKNOWN, HEALTHY, UNHEALTHY = HealthStatus
CHECK = {"command": ["CMD-SHELL", "true"], "interval": 10, "timeout": 4, "retries": 2}


def web(**changes: Any) -> dict[str, Any]:
    return container_json("web", healthCheck={**CHECK, **changes})


def new_run(*containers: dict[str, Any], facts: TaskFacts | None = None) -> TaskRun:
    return TaskRun(
        plan=plan_task(task_message(*containers), site(Path("/nowhere"))),
        stop=asyncio.get_running_loop().create_future(),
        facts=facts or TaskFacts(),
        is_new=facts is None,
    )


async def play(
    run: TaskRun, drivers: FakeDrivers, stop_at_s: float, written: list[float] | None = None
) -> dict[float, StateChange]:
    """Run a task for a time; return what was reported when.

    `written` is told when something was only written down.
    """
    told: dict[float, StateChange] = {}

    async def report(run: TaskRun) -> None:
        told[now_s()] = run.change()

    async def save(run: TaskRun) -> None:
        if written is not None:
            written.append(now_s())

    asyncio.get_running_loop().call_at(stop_at_s, run.stop.set_result, "over")
    await run_task(run, drivers.all, report, save)
    return told


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param([(0, 99)], [UNKNOWN], id="one failure"),
        pytest.param([(0, 99), (1, 99)], [UNKNOWN, UNHEALTHY], id="as many as retries"),
        pytest.param([(0, 0)], [HEALTHY], id="one success"),
        pytest.param(
            [(0, 0), (1, 9), (2, 0), (3, 9), (4, 9), (5, 0)],
            [HEALTHY, HEALTHY, HEALTHY, HEALTHY, UNHEALTHY, HEALTHY],
            id="failures count in a row",
        ),
        pytest.param(
            [(1, 9), (2, 9), (29, 9), (31, 9), (32, 9)],
            [UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNHEALTHY],
            id="failures in the start period don't count",
        ),
        pytest.param(
            [(1, 9), (2, 0), (3, 9), (4, 9)],
            [UNKNOWN, HEALTHY, HEALTHY, UNHEALTHY],
            id="a success ends the start period",
        ),
    ],
)
def test_status_follows_from_what_checks_find(
    found: list[tuple[float, int]], expected: list[HealthStatus]
) -> None:
    start_period_s = 30 if found[0][0] else 0
    plan = HealthCheckPlan(
        argv=("x",), interval_s=1, timeout_s=1, retries=2, start_period_s=start_period_s
    )
    facts, statuses = HealthFacts(), []

    for ran_s, code in found:
        record_check(facts, plan, CheckResult(exit_code=code, output=""), ran_s=ran_s, at=MOMENT)
        statuses.append(facts.status)

    assert statuses == expected


def test_next_agent_has_to_know_what_it_would_decide_otherwise_without() -> None:
    plan = HealthCheckPlan(argv=("x",), interval_s=1, timeout_s=1, retries=2, start_period_s=0)
    facts = HealthFacts()

    news = [
        record_check(facts, plan, CheckResult(exit_code=code, output=""), ran_s=1, at=MOMENT)
        for code in (0, 0, 1, 1, 1, 1, 0)
    ]

    assert news == [True, False, True, True, False, False, True]
    assert facts.failing_streak == 0


@jumping
async def test_check_begins_an_interval_after_the_start_or_the_check_before() -> None:
    run, drivers = new_run(web()), fake_drivers()
    began_s: list[float] = []

    async def check(container: ContainerPlan, io: ExecIo, deadline_s: float | None) -> int:
        assert deadline_s == 4
        began_s.append(now_s())
        await asyncio.sleep(3)
        return 0

    drivers.runtime.on_exec = check
    told = await play(run, drivers, stop_at_s=40)

    assert began_s == [10, 23, 36]
    assert drivers.diary.calls.count("exec health in web") == 3
    assert told[13].health is HEALTHY
    assert 26 not in told  # nothing is new


@pytest.mark.parametrize(
    ("outcome", "exit_code", "output"),
    [
        pytest.param(3, 3, "some output", id="code"),
        pytest.param(
            ExecTimeoutError("x"), None, "Health check exceeded timeout (4s)", id="timeout"
        ),
        pytest.param(CannotExecError("no such program"), None, "no such program", id="program"),
    ],
)
@jumping
async def test_check_has_failed(
    outcome: int | Exception, exit_code: int | None, output: str
) -> None:
    run, drivers = new_run(web()), fake_drivers()

    async def check(container: ContainerPlan, io: ExecIo, deadline_s: float | None) -> int:
        io.on_error(b"some ")
        io.on_output(b"output")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    drivers.runtime.on_exec = check
    told = await play(run, drivers, stop_at_s=21)

    health = told[20].containers[0].health
    assert health is not None
    assert (health.status, health.failing_streak) == (UNHEALTHY, 2)
    assert (health.exit_code, health.output) == (exit_code, output)
    assert told[20].status is TaskStatus.RUNNING  # unhealthy alone ends nothing


@jumping
async def test_status_is_told_and_what_leads_to_it_is_written_down() -> None:
    run, drivers = new_run(web(retries=3)), fake_drivers()
    written: list[float] = []

    async def check(container: ContainerPlan, io: ExecIo, deadline_s: float | None) -> int:
        return 1

    drivers.runtime.on_exec = check
    told = await play(run, drivers, stop_at_s=61, written=written)

    assert written == [10, 20, 61, 61]  # at 61 s, since when it is being stopped, and that it has
    assert list(told) == [0, 30, 61]
    assert told[30].health is UNHEALTHY


@jumping
async def test_check_that_says_nothing_about_the_container_is_repeated() -> None:
    run, drivers = new_run(web()), fake_drivers()

    async def check(container: ContainerPlan, io: ExecIo, deadline_s: float | None) -> int:
        raise ContainerRuntimeError("containerd is away")

    drivers.runtime.on_exec = check
    await play(run, drivers, stop_at_s=45)

    assert drivers.diary.calls.count("exec health in web") == 4
    assert run.facts.containers["web"].health == HealthFacts()


@jumping
async def test_end_of_what_a_check_writes_is_kept() -> None:
    run, drivers = new_run(web()), fake_drivers()

    async def check(container: ContainerPlan, io: ExecIo, deadline_s: float | None) -> int:
        for _ in range(1000):
            io.on_output("ü".encode() * 50_000)
        io.on_output(b"end")
        return 0

    drivers.runtime.on_exec = check
    await play(run, drivers, stop_at_s=11)

    health = run.facts.containers["web"].health
    assert health is not None
    assert health.output == "ü" * 1021 + "end"


@jumping
async def test_check_is_cancelled_before_its_container_is_stopped() -> None:
    run, drivers = new_run(web()), fake_drivers()

    async def check(container: ContainerPlan, io: ExecIo, deadline_s: float | None) -> int:
        try:
            await asyncio.sleep(3)
        finally:
            drivers.diary.note("check is gone")
        return 0

    drivers.runtime.on_exec = check
    await play(run, drivers, stop_at_s=11)

    calls = drivers.diary.calls
    assert calls.index("check is gone") < calls.index("stop web")
    assert calls.count("exec health in web") == 1


@jumping
async def test_next_agent_goes_on_with_the_streak() -> None:
    health = HealthFacts(status=HEALTHY, since=MOMENT, failing_streak=1, start_period_is_over=True)
    container = ContainerFacts(
        name="web",
        runtime_id="1",
        status=ContainerStatus.RUNNING,
        runs=[RunFacts(created_at=MOMENT, started_at=MOMENT)],
        health=health,
    )
    facts = TaskFacts(status=TaskStatus.RUNNING, containers={"web": container})
    run, drivers = new_run(web(), facts=facts), fake_drivers()
    drivers.runtime.created, drivers.runtime.started = {"web"}, {"web"}

    async def check(container: ContainerPlan, io: ExecIo, deadline_s: float | None) -> int:
        return 1

    drivers.runtime.on_exec = check
    told = await play(run, drivers, stop_at_s=11)

    assert told[0].health is HEALTHY
    assert told[10].health is UNHEALTHY


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (["CMD", "curl", "-f"], ("curl", "-f")),
        (["CMD-SHELL", "a || exit 1"], ("/bin/sh", "-c", "a || exit 1")),
        (["NONE"], None),
    ],
)
def test_command_of_a_check_is(command: list[str], argv: tuple[str, ...] | None) -> None:
    message = task_message(container_json(healthCheck={"command": command}))

    (planned,) = plan_task(message, site(Path("/nowhere"))).containers

    expected = argv and HealthCheckPlan(
        argv=argv, interval_s=30, timeout_s=5, retries=3, start_period_s=0
    )
    assert planned.health == expected


@pytest.mark.parametrize("command", [[], ["CMD"], ["curl", "-f"]])
def test_check_that_nobody_can_run_is_refused(command: list[str]) -> None:
    message = task_message(container_json(healthCheck={"command": command}))

    with pytest.raises(ResourceInitializationError, match="begins with CMD"):
        plan_task(message, site(Path("/nowhere")))
