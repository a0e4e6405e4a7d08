"""What `GET /events` tells of services, in the shapes that AWS documents for EventBridge."""

import asyncio
import re
from typing import Any

import pytest

from fargate_agent.controlplane.services import failures, scheduler
from tests.fixtures.agents import BROKEN, BreakableAgent, SimulatedAgent, at_work
from tests.fixtures.controlplane import ControlPlane, StartControlPlane
from tests.fixtures.ecs import (
    APP,
    FARGATE,
    NO_AGENT,
    NO_CAPACITY,
    create_service,
    describe_service,
    wait_for_service,
)
from tests.fixtures.events import history_of, reading

ACTION = "ECS Service Action"
DEPLOYMENT = "ECS Deployment State Change"
CLUSTER_ARN = "arn:aws:ecs:us-east-1:000000000000:cluster/default"
SERVICE_ARN = "arn:aws:ecs:us-east-1:000000000000:service/default/web"
BREAKER = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}

IN_PROGRESS = "SERVICE_DEPLOYMENT_IN_PROGRESS"
COMPLETED = "SERVICE_DEPLOYMENT_COMPLETED"
FAILED = "SERVICE_DEPLOYMENT_FAILED"

EXACT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

ADDED = {"clusterArn": CLUSTER_ARN, "serviceArn": SERVICE_ARN}
"""Members of `detail` that AWS's documentation doesn't have; the first it has in service actions.

AWS says that members may be added at any time.
"""


def of_service(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in history if event["detail-type"] in {ACTION, DEPLOYMENT}]


def names(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["detail"]["eventName"], event["detail"]["eventType"]) for event in events]


def envelope(event: dict[str, Any], kind: str, detail: dict[str, Any]) -> dict[str, Any]:
    """Return the event as AWS's documentation has it, with id and time of the one that came.

    Source: Amazon ECS developer guide, "Amazon ECS service action events" and "Amazon ECS service
    deployment state change events".
    """
    return {
        "version": "0",
        "id": event["id"],
        "detail-type": kind,
        "source": "aws.ecs",
        "account": "000000000000",
        "time": event["time"],
        "region": "us-east-1",
        "resources": [SERVICE_ARN],
        "detail": {**ADDED, **detail},
    }


async def test_deployment_that_succeeds_is_told_from_its_beginning_to_the_steady_state(
    control_plane: ControlPlane, registered: Any, simulated_agent: SimulatedAgent
) -> None:
    async with at_work(simulated_agent):
        made = await asyncio.to_thread(create_service, registered, desiredCount=1)
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
    deployment_id = made["deployments"][0]["id"]

    begun, completed, steady = of_service(await history_of(control_plane))

    for event, name, reason in (
        (begun, IN_PROGRESS, f"ECS deployment {deployment_id} in progress."),
        (completed, COMPLETED, f"ECS deployment {deployment_id} completed."),
    ):
        assert event == envelope(
            event,
            DEPLOYMENT,
            {
                "eventType": "INFO",
                "eventName": name,
                "deploymentId": deployment_id,
                "updatedAt": event["detail"]["updatedAt"],
                "reason": reason,
            },
        )
        assert EXACT.fullmatch(event["detail"]["updatedAt"])
        assert SECONDS.fullmatch(event["time"])
    assert steady == envelope(
        steady,
        ACTION,
        {
            "eventType": "INFO",
            "eventName": "SERVICE_STEADY_STATE",
            "createdAt": steady["detail"]["createdAt"],
        },
    )
    assert EXACT.fullmatch(steady["detail"]["createdAt"])


async def test_task_without_a_place_is_told_once(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "PLACE_EVERY_S", 0.1)
    plane = await asyncio.to_thread(start_control_plane, agent_grace_s=0)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with reading(plane, follow="true") as reader:
        await asyncio.to_thread(create_service, ecs, desiredCount=1)
        begun, failure = await reader.next(), await reader.next()
    # something that the scheduler looks at once more
    await asyncio.to_thread(ecs.update_service, service="web", desiredCount=2)
    async with SimulatedAgent(plane) as agent, at_work(agent):
        await asyncio.to_thread(wait_for_service, ecs, "services_stable")

    assert begun is not None
    assert failure is not None
    assert failure == envelope(
        failure,
        ACTION,
        {
            "eventType": "ERROR",
            "eventName": "SERVICE_TASK_PLACEMENT_FAILURE",
            "reason": f"{NO_CAPACITY}. {NO_AGENT}",
            "createdAt": failure["detail"]["createdAt"],
        },
    )
    assert [name for name, _ in names(of_service(await history_of(plane)))] == [
        IN_PROGRESS,
        "SERVICE_TASK_PLACEMENT_FAILURE",
        COMPLETED,
        "SERVICE_STEADY_STATE",
    ]


async def test_deployment_that_fails_is_told_and_so_is_the_way_back(
    control_plane: ControlPlane, registered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "FIRST_DELAY_S", 0.1)
    broken = {**FARGATE, "containerDefinitions": [{**APP, "image": BROKEN}]}
    await asyncio.to_thread(registered.register_task_definition, **broken)
    async with BreakableAgent(control_plane) as agent, at_work(agent):
        await asyncio.to_thread(
            create_service, registered, taskDefinition="web:1", deploymentConfiguration=BREAKER
        )
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
        good = (await asyncio.to_thread(describe_service, registered))["deployments"][0]["id"]
        async with reading(control_plane, follow="true", after="latest") as reader:
            updated = await asyncio.to_thread(
                registered.update_service, service="web", taskDefinition="web:2"
            )
            told = of_service(await reader.until_name(COMPLETED))
    bad = updated["service"]["deployments"][0]["id"]

    assert names(told) == [
        (IN_PROGRESS, "INFO"),
        (FAILED, "ERROR"),
        (IN_PROGRESS, "INFO"),
        (COMPLETED, "INFO"),
    ]
    assert [event["detail"]["deploymentId"] for event in told] == [bad, bad, good, good]
    assert [event["detail"]["reason"] for event in told] == [
        f"ECS deployment {bad} in progress.",
        "ECS deployment circuit breaker: tasks failed to start.",
        f"ECS deployment circuit breaker: rolling back to deploymentId {good}",
        f"ECS deployment {good} completed.",
    ]


async def test_tasks_that_fail_again_and_again_are_told(
    control_plane: ControlPlane, registered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "FIRST_DELAY_S", 0.1)
    broken = {**FARGATE, "containerDefinitions": [{**APP, "image": BROKEN}]}
    await asyncio.to_thread(registered.register_task_definition, **broken)
    async with (
        BreakableAgent(control_plane) as agent,
        at_work(agent),
        reading(control_plane, follow="true") as reader,
    ):
        await asyncio.to_thread(create_service, registered, taskDefinition="web:2")
        told = of_service(await reader.until_name("SERVICE_TASK_START_IMPAIRED"))

    assert names(told) == [(IN_PROGRESS, "INFO"), ("SERVICE_TASK_START_IMPAIRED", "WARN")]
