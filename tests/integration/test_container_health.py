"""Health checks of real containers."""

import asyncio
from pathlib import Path

import pytest

from fargate_agent.drivers import ExecIo
from fargate_agent.task.health import EXEC_ID
from fargate_agent.task.status import HealthStatus
from tests.fixtures.lives import Agent, plan_agent, succeed
from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root

CHECK = "test -e /tmp/well && echo fine || { echo not yet; exit 7; }"
DEADLINE_S = 30


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def check(script: str, **more: int) -> dict[str, object]:
    numbers = {"interval": 1, "timeout": 20, "retries": 2, **more}
    return {"command": ["CMD-SHELL", script], **numbers}


async def processes(bench: Bench, agent: Agent) -> list[int]:
    """What runs in the first container; its own first process first."""
    return sorted(await bench.containerd.processes.pids(agent.run.plan.containers[0].id))


async def touch(bench: Bench, agent: Agent, path: str) -> None:
    pid = (await processes(bench, agent))[0]
    Path(f"/proc/{pid}/root{path}").touch()


async def test_container_becomes_unhealthy_and_healthy_as_its_check_says(bench: Bench) -> None:
    agent = plan_agent(bench, {"command": sh("sleep 1000"), "healthCheck": check(CHECK)})

    async with agent.at_work():
        await agent.wait_until(lambda: agent.run.facts.health is HealthStatus.UNHEALTHY)
        health = agent.first.health
        assert health is not None
        assert (health.exit_code, health.output, health.failing_streak) == (7, "not yet\n", 2)
        await touch(bench, agent, "/tmp/well")
        await agent.wait_until(lambda: agent.run.facts.health is HealthStatus.HEALTHY)

    assert (health.exit_code, health.output, health.failing_streak) == (0, "fine\n", 0)


async def test_check_that_hangs_has_failed(bench: Bench) -> None:
    script = "sleep 1000 & sleep 1000"
    hanging = check(script, timeout=1, retries=1)
    agent = plan_agent(bench, {"command": sh("exec sleep 2000"), "healthCheck": hanging})

    async with agent.at_work():
        await agent.wait_until(lambda: agent.run.facts.health is HealthStatus.UNHEALTHY)
        health = agent.first.health
        assert health is not None
        assert (health.exit_code, health.output) == (None, "Health check exceeded timeout (1s)")


async def test_container_waits_until_another_is_healthy(bench: Bench) -> None:
    app = {
        "name": "app",
        "command": sh("exit 4"),
        "dependsOn": [{"containerName": "db", "condition": "HEALTHY"}],
    }
    db = {"name": "db", "command": sh("sleep 1000"), "healthCheck": check(CHECK, retries=1)}
    agent = plan_agent(bench, app, db)

    async with agent.at_work():
        await agent.wait_until(lambda: agent.run.facts.health is HealthStatus.UNKNOWN)
        db_facts, app_facts = (agent.run.facts.containers[name] for name in ("db", "app"))
        await agent.wait_until(lambda: db_facts.health and db_facts.health.failing_streak)
        assert app_facts.runs == []
        await touch(bench, agent, "/tmp/well")
        await agent.wait_until(lambda: app_facts.exit_code is not None)

    assert app_facts.exit_code == 4


async def test_check_that_an_agent_left_is_ended_by_the_next_which_goes_on_with_the_streak(
    bench: Bench,
) -> None:
    failing = check("exit 1", retries=4)
    agent = plan_agent(bench, {"command": sh("exec sleep 2000"), "healthCheck": failing})
    async with agent.at_work():
        await agent.wait_until(lambda: agent.first.health and agent.first.health.failing_streak)
    container = agent.run.plan.containers[0]
    io = ExecIo(on_output=lambda part: None, on_error=lambda part: None)
    left = asyncio.create_task(
        bench.runtime.exec(container, EXEC_ID, ("sleep", "1000"), io, deadline_s=None)
    )
    async with asyncio.timeout(DEADLINE_S):
        while len(await processes(bench, agent)) < 2:
            await asyncio.sleep(0.05)
    successor = succeed(agent)
    streak = successor.first.health.failing_streak if successor.first.health else 0

    async with successor.at_work():
        await successor.wait_until(lambda: successor.run.facts.health is HealthStatus.UNHEALTHY)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([left])

    assert streak >= 1
    assert [change.status for change in successor.changes][-1] == "RUNNING"
    health = successor.first.health
    assert health is not None
    assert health.failing_streak >= 4
