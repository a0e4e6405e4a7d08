"""Deployments of a service: how tasks are replaced, and what the circuit breaker does."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fargate_agent.controlplane.services import failures
from fargate_agent.wire.messages import PayloadMessage
from tests.fixtures.agents import BROKEN, BreakableAgent, SimulatedAgent, at_work
from tests.fixtures.controlplane import ControlPlane
from tests.fixtures.ecs import (
    APP,
    FARGATE,
    create_service,
    describe_service,
    messages,
    running,
    wait_for_service,
)
from tests.fixtures.postgres import change_database

BREAKER = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}


@pytest.fixture
def registered(ecs: Any) -> Any:
    """The client, with two revisions of a task definition `web`; the second one is broken."""
    ecs.register_task_definition(**FARGATE)
    ecs.register_task_definition(**{**FARGATE, "containerDefinitions": [{**APP, "image": BROKEN}]})
    return ecs


async def until(ecs: Any, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the service when it is as wanted."""
    async with asyncio.timeout(30):
        while True:
            service: dict[str, Any] = await asyncio.to_thread(describe_service, ecs)
            if holds(service):
                return service


async def test_update_replaces_the_tasks_without_a_gap(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    fewest = 2

    async def watch() -> None:
        nonlocal fewest
        while True:
            service = await asyncio.to_thread(describe_service, registered)
            fewest = min(fewest, service["runningCount"])

    async with at_work(simulated_agent):
        before = await asyncio.to_thread(create_service, registered, taskDefinition="web:1")
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
        watching = asyncio.create_task(watch())
        updated = await asyncio.to_thread(
            registered.update_service, service="web", taskDefinition="web:2"
        )
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
        watching.cancel()
    after = await asyncio.to_thread(describe_service, registered)
    tasks = await asyncio.to_thread(running, registered)

    deployments = updated["service"]["deployments"]
    assert [deployment["status"] for deployment in deployments] == ["PRIMARY", "ACTIVE"]
    assert deployments[1]["id"] == before["deployments"][0]["id"]
    assert after["taskDefinition"].endswith("web:2")
    assert {task["taskDefinitionArn"] for task in tasks} == {after["taskDefinition"]}
    assert after["deployments"][0]["rolloutState"] == "COMPLETED"
    assert fewest == 2


async def test_new_deployment_can_be_forced(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    async with at_work(simulated_agent):
        await asyncio.to_thread(create_service, registered, taskDefinition="web:1", desiredCount=1)
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
        first = await asyncio.to_thread(running, registered)
        await asyncio.to_thread(registered.update_service, service="web", forceNewDeployment=True)
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
        second = await asyncio.to_thread(running, registered)

    assert first[0]["taskArn"] != second[0]["taskArn"]
    assert first[0]["taskDefinitionArn"] == second[0]["taskDefinitionArn"]


def test_update_that_changes_nothing_of_the_tasks_makes_no_deployment(registered: Any) -> None:
    before = create_service(registered, taskDefinition="web:1", desiredCount=0)

    after = registered.update_service(
        service="web",
        taskDefinition="web:1",
        enableECSManagedTags=True,
        healthCheckGracePeriodSeconds=30,
        deploymentConfiguration={"maximumPercent": 150},
    )["service"]

    assert [d["id"] for d in after["deployments"]] == [before["deployments"][0]["id"]]
    assert (after["enableECSManagedTags"], after["healthCheckGracePeriodSeconds"]) == (True, 30)
    assert after["deploymentConfiguration"]["maximumPercent"] == 150
    assert after["deploymentConfiguration"]["minimumHealthyPercent"] == 100


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param({"taskDefinition": "nope"}, "TaskDefinition not found.", id="definition"),
        pytest.param({"desiredCount": -1}, "desiredCount must be", id="count"),
        pytest.param(
            {"serviceRegistries": [{"registryArn": "a"}]},
            "The service registry a does not exist.",
            id="registries",
        ),
    ],
)
def test_wrong_update_changes_nothing(registered: Any, change: dict[str, Any], text: str) -> None:
    before = create_service(registered, taskDefinition="web:1", desiredCount=0)

    with pytest.raises(ClientError, match=text):
        registered.update_service(service="web", forceNewDeployment=True, **change)

    after = describe_service(registered)
    assert [d["id"] for d in after["deployments"]] == [before["deployments"][0]["id"]]


async def test_circuit_breaker_rolls_back_to_what_worked(
    control_plane: ControlPlane, registered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "FIRST_DELAY_S", 0.1)
    async with BreakableAgent(control_plane) as agent, at_work(agent):
        await asyncio.to_thread(
            create_service, registered, taskDefinition="web:1", deploymentConfiguration=BREAKER
        )
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
        good = (await asyncio.to_thread(describe_service, registered))["deployments"][0]["id"]
        tasks = await asyncio.to_thread(running, registered)
        updated = await asyncio.to_thread(
            registered.update_service, service="web", taskDefinition="web:2"
        )
        bad = updated["service"]["deployments"][0]["id"]
        await until(registered, lambda found: found["deployments"][0]["id"] == good)
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
    after = await asyncio.to_thread(describe_service, registered)
    history = await asyncio.to_thread(registered.list_service_deployments, service="web")
    arns = [brief["serviceDeploymentArn"] for brief in history["serviceDeployments"]]
    described = await asyncio.to_thread(
        registered.describe_service_deployments, serviceDeploymentArns=arns
    )

    assert {t["taskArn"] for t in running(registered)} == {t["taskArn"] for t in tasks}
    assert after["taskDefinition"].endswith("web:1")
    assert after["deployments"][0]["rolloutState"] == "COMPLETED"
    said = messages(after)
    failed = f"(service web) (deployment {bad}) deployment failed: tasks failed to start."
    assert f"(service web) rolling back to deployment {good}." in said
    assert said.index(f"(service web) rolling back to deployment {good}.") < said.index(failed)
    assert [brief["status"] for brief in history["serviceDeployments"]] == [
        "ROLLBACK_SUCCESSFUL",
        "SUCCESSFUL",
    ]
    breakers = [d["deploymentCircuitBreaker"] for d in described["serviceDeployments"]]
    assert (breakers[0]["status"], breakers[0]["threshold"]) == ("TRIGGERED", 3)
    assert breakers[0]["failureCount"] in {3, 4}  # two at a time
    assert breakers[1]["status"] == "MONITORING_COMPLETE"


async def test_tasks_that_never_start_are_told_and_waited_for_longer_and_longer(
    control_plane: ControlPlane, registered: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "FIRST_DELAY_S", 0.3)
    async with BreakableAgent(control_plane) as agent, at_work(agent):
        await asyncio.to_thread(create_service, registered, taskDefinition="web:2", desiredCount=1)
        text = "(service web) is unable to consistently start tasks successfully."
        service = await until(registered, lambda found: text in messages(found))

    started = [
        event["createdAt"].timestamp()
        for event in reversed(service["events"])
        if "has started 1 tasks" in event["message"]
    ]
    assert len(started) == 3
    assert started[1] - started[0] >= 0.3
    assert started[2] - started[1] >= 0.6
    assert service["deployments"][0]["failedTasks"] == 3
    assert service["deployments"][0]["rolloutState"] == "IN_PROGRESS"


async def test_protected_task_outlives_scaling_in(
    control_plane: ControlPlane, registered: Any, simulated_agent: SimulatedAgent
) -> None:
    async with at_work(simulated_agent):
        await asyncio.to_thread(create_service, registered, taskDefinition="web:1")
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
        # the newest would go first
        newest = max(
            await asyncio.to_thread(running, registered), key=lambda task: task["createdAt"]
        )["taskArn"]
        await change_database(
            control_plane.database,
            "UPDATE tasks SET protected_until = 4e9 WHERE id = :id",
            id=newest.rpartition("/")[2],
        )
        await asyncio.to_thread(registered.update_service, service="web", desiredCount=1)
        await asyncio.to_thread(wait_for_service, registered, "services_stable")

    assert [t["taskArn"] for t in await asyncio.to_thread(running, registered)] == [newest]


async def test_deployments_and_revisions_are_described(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    async with at_work(simulated_agent):
        await asyncio.to_thread(create_service, registered, taskDefinition="web:1", desiredCount=1)
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
    service = await asyncio.to_thread(describe_service, registered)

    listed = await asyncio.to_thread(
        registered.list_service_deployments, service="web", status=["SUCCESSFUL"]
    )
    brief = listed["serviceDeployments"][0]
    revision_arn = brief["targetServiceRevisionArn"]
    revisions = registered.describe_service_revisions(serviceRevisionArns=[revision_arn])
    missing = registered.describe_service_deployments(serviceDeploymentArns=[revision_arn])

    assert brief["serviceDeploymentArn"] == service["currentServiceDeployment"]
    assert service["currentServiceRevisions"] == [
        {"arn": revision_arn, "requestedTaskCount": 1, "runningTaskCount": 1, "pendingTaskCount": 0}
    ]
    revision = revisions["serviceRevisions"][0]
    assert revision["taskDefinition"] == service["taskDefinition"]
    assert revision["containerImages"] == [{"containerName": "app", "image": APP["image"]}]
    assert missing["failures"] == [{"arn": revision_arn, "reason": "MISSING"}]
    empty = await asyncio.to_thread(
        registered.list_service_deployments, service="web", status=["STOPPED"]
    )
    assert empty["serviceDeployments"] == []


async def test_agent_is_told_the_name_of_the_service(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    await asyncio.to_thread(create_service, registered, taskDefinition="web:1", desiredCount=1)

    message = await simulated_agent.receive(PayloadMessage)

    assert (message.tasks[0]["serviceName"], message.tasks[0]["group"]) == ("web", "service:web")
