"""Health of containers as agents report it: what clients see, and what services make of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.fixtures.agents import CheckedAgent, SimulatedAgent, at_work
from tests.fixtures.controlplane import ControlPlane
from tests.fixtures.ecs import (
    APP,
    FARGATE,
    QUICK,
    create_service,
    describe_service,
    describe_task,
    run,
    running,
    wait_for_service,
)
from tests.fixtures.events import reading
from tests.fixtures.requests import post, signed

pytestmark = pytest.mark.timeout(90)

CHECKED = {
    **APP,
    "healthCheck": {"command": ["CMD", "true"]},
    "restartPolicy": {"enabled": True},
}


@pytest.fixture
def checked(ecs: Any) -> Any:
    """The client, with a definition `web` of a container that is checked and one that isn't."""
    containers = [CHECKED, {"name": "helper", "image": "busybox", "essential": False}]
    ecs.register_task_definition(**{**FARGATE, "containerDefinitions": containers})
    return ecs


@pytest.fixture
async def ailing(control_plane: ControlPlane) -> AsyncIterator[CheckedAgent]:
    """An agent whose first task is unhealthy; all others are healthy."""
    async with CheckedAgent(control_plane, "UNHEALTHY", "HEALTHY") as agent:
        yield agent


def raw(plane: ControlPlane, arn: str) -> dict[str, Any]:
    """Return the container `app` of a task with the members that no client of AWS shows."""
    body = json.dumps({"tasks": [arn]}).encode()
    _, answer = post(plane, body, signed(plane, "DescribeTasks", body))
    container: dict[str, Any] = answer["tasks"][0]["containers"][0]
    return container


async def until(ecs: Any, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the service when it is as wanted."""
    async with asyncio.timeout(60):
        while True:
            service: dict[str, Any] = await asyncio.to_thread(describe_service, ecs)
            if holds(service):
                return service


async def test_health_and_restarts_are_shown_to_clients_and_told(
    control_plane: ControlPlane, checked: Any, simulated_agent: SimulatedAgent
) -> None:
    def health() -> tuple[str, ...]:
        task = describe_task(checked, arn)
        return (task["healthStatus"], *(c["healthStatus"] for c in task["containers"]))

    arn = (await asyncio.to_thread(run, checked))["tasks"][0]["taskArn"]
    await simulated_agent.bring_up(await simulated_agent.take())
    before = await asyncio.to_thread(health)
    assert (await asyncio.to_thread(raw, control_plane, arn))["restartCount"] == 0

    await simulated_agent.report_health(arn, "HEALTHY")
    healthy = await asyncio.to_thread(health)
    await simulated_agent.report_health(arn, "UNHEALTHY")
    sick = await asyncio.to_thread(health)
    await simulated_agent.report(arn, healthStatus="UNKNOWN", restartCount=2)
    shown = await asyncio.to_thread(raw, control_plane, arn)

    assert before == ("UNKNOWN", "UNKNOWN", "UNKNOWN")
    assert healthy == ("HEALTHY", "HEALTHY", "UNKNOWN")
    assert sick == ("UNHEALTHY", "UNHEALTHY", "UNKNOWN")
    assert (shown["healthStatus"], shown["restartCount"]) == ("UNKNOWN", 2)
    assert "healthStatusSince" not in shown
    assert describe_task(checked, arn)["lastStatus"] == "RUNNING"
    async with reading(control_plane, subject=arn[-32:]) as reader:
        details = [event["detail"] for event in await reader.rest()]
    told = [(detail["healthStatus"], detail["containers"][0]["restartCount"]) for detail in details]
    assert list(dict.fromkeys(told)) == [
        ("UNKNOWN", 0),
        ("HEALTHY", 0),
        ("UNHEALTHY", 0),
        ("UNKNOWN", 2),
    ]


async def test_service_replaces_an_unhealthy_task_once_another_is_healthy(
    checked: Any, ailing: CheckedAgent
) -> None:
    async with at_work(ailing):
        await asyncio.to_thread(create_service, checked, desiredCount=1)
        await asyncio.to_thread(wait_for_service, checked, "services_stable")
        stopped = await asyncio.to_thread(stopped_tasks, checked)
        left = await asyncio.to_thread(running, checked)

    (sick,), (well,) = stopped, left
    assert sick["stopCode"] == "ServiceSchedulerInitiated"
    assert sick["stoppedReason"] == "Task failed container health checks"
    assert well["startedAt"] <= sick["stoppingAt"]
    assert well["healthStatus"] == "HEALTHY"


def stopped_tasks(ecs: Any) -> list[dict[str, Any]]:
    """Return the tasks that were told to stop, as they are when they have."""
    arns = ecs.list_tasks(desiredStatus="STOPPED")["taskArns"]
    ecs.get_waiter("tasks_stopped").wait(tasks=arns, WaiterConfig=QUICK)
    found: list[dict[str, Any]] = ecs.describe_tasks(tasks=arns)["tasks"]
    return found


async def test_deployment_is_complete_when_its_tasks_have_passed_their_check(
    control_plane: ControlPlane, checked: Any
) -> None:
    async with CheckedAgent(control_plane, None) as agent, at_work(agent):
        await asyncio.to_thread(create_service, checked, desiredCount=1)
        before = await until(checked, lambda service: service["runningCount"] == 1)
        (task,) = await asyncio.to_thread(running, checked)
        await agent.report_health(task["taskArn"], "HEALTHY")
        await asyncio.to_thread(wait_for_service, checked, "services_stable")
        after = await asyncio.to_thread(describe_service, checked)

    states = [service["deployments"][0]["rolloutState"] for service in (before, after)]
    assert states == ["IN_PROGRESS", "COMPLETED"]


async def test_circuit_breaker_counts_tasks_that_become_unhealthy(
    control_plane: ControlPlane, checked: Any
) -> None:
    breaker = {"enable": True, "rollback": False}
    async with CheckedAgent(control_plane, "UNHEALTHY") as agent, at_work(agent):
        await asyncio.to_thread(
            create_service,
            checked,
            desiredCount=1,
            deploymentConfiguration={"deploymentCircuitBreaker": breaker},
        )
        service = await until(
            checked, lambda service: service["deployments"][0]["rolloutState"] == "FAILED"
        )

    assert service["deployments"][0]["failedTasks"] >= 3


async def test_unhealthy_task_is_left_alone_in_the_grace_period(
    checked: Any, ailing: CheckedAgent
) -> None:
    async with at_work(ailing):
        await asyncio.to_thread(
            create_service, checked, desiredCount=1, healthCheckGracePeriodSeconds=3600
        )
        async with asyncio.timeout(60):
            tasks = await asyncio.to_thread(running, checked)
            while [task["healthStatus"] for task in tasks] != ["UNHEALTHY"]:
                tasks = await asyncio.to_thread(running, checked)
        # whatever the scheduler makes of it, it makes before it has made a task more
        await asyncio.to_thread(checked.update_service, service="web", desiredCount=2)
        await until(checked, lambda service: service["runningCount"] == 2)
        kept = await asyncio.to_thread(running, checked)
        await asyncio.to_thread(
            checked.update_service, service="web", healthCheckGracePeriodSeconds=0
        )
        await asyncio.to_thread(wait_for_service, checked, "services_stable")
        (sick,) = await asyncio.to_thread(stopped_tasks, checked)

    assert tasks[0]["taskArn"] in {task["taskArn"] for task in kept}
    assert len(kept) == 2
    assert sick["taskArn"] == tasks[0]["taskArn"]
