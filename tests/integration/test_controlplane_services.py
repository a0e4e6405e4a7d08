"""Services by real clients and botocore's own waiters, with an agent that only talks."""

import asyncio
from ipaddress import IPv4Network
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fargate_agent.controlplane.services import scheduler
from fargate_agent.controlplane.vpc_settings import SubnetSettings
from tests.fixtures.agents import SimulatedAgent, at_work
from tests.fixtures.controlplane import ControlPlane, ControlPlaneProcess, StartControlPlane
from tests.fixtures.ecs import (
    FARGATE,
    NETWORK,
    NO_AGENT,
    NO_CAPACITY,
    create_service,
    describe_service,
    messages,
    run,
    running,
    wait_for_service,
)

TASK_PREFIX = "arn:aws:ecs:us-east-1:000000000000:task/default/"
SERVICE_ARN = "arn:aws:ecs:us-east-1:000000000000:service/default/web"


def test_new_service_has_the_shape_that_ecs_gives_it(registered: Any) -> None:
    service = create_service(registered, tags=[{"key": "team", "value": "a"}])

    deployment = service["deployments"][0]
    assert (service["serviceArn"], service["status"]) == (SERVICE_ARN, "ACTIVE")
    assert (service["desiredCount"], service["runningCount"], service["pendingCount"]) == (2, 0, 0)
    assert (service["launchType"], service["platformVersion"]) == ("FARGATE", "LATEST")
    assert (service["schedulingStrategy"], service["propagateTags"]) == ("REPLICA", "NONE")
    assert service["deploymentController"] == {"type": "ECS"}
    assert service["networkConfiguration"]["awsvpcConfiguration"]["assignPublicIp"] == "DISABLED"
    assert service["deploymentConfiguration"]["minimumHealthyPercent"] == 100
    assert service["deploymentConfiguration"]["maximumPercent"] == 200
    assert service["tags"] == [{"key": "team", "value": "a"}]
    assert service["taskDefinition"].endswith(":task-definition/web:1")
    assert deployment["id"].startswith("ecs-svc/")
    assert len(deployment["id"]) == len("ecs-svc/") + 19
    assert (deployment["status"], deployment["rolloutState"]) == ("PRIMARY", "IN_PROGRESS")
    assert deployment["rolloutStateReason"] == f"ECS deployment {deployment['id']} in progress."
    assert deployment["platformVersion"] == "1.4.0"


async def test_service_lives_as_clients_see_it(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    async with at_work(simulated_agent):
        created = await asyncio.to_thread(create_service, registered)
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
        stable = await asyncio.to_thread(describe_service, registered)
        tasks = await asyncio.to_thread(running, registered)
        await asyncio.to_thread(registered.update_service, service="web", desiredCount=1)
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
        fewer = await asyncio.to_thread(running, registered)
        await asyncio.to_thread(registered.delete_service, service="web", force=True)
        await asyncio.to_thread(wait_for_service, registered, "services_inactive")
    gone = await asyncio.to_thread(describe_service, registered)

    deployment_id = created["deployments"][0]["id"]
    assert stable["deployments"][0]["rolloutState"] == "COMPLETED"
    assert {task["startedBy"] for task in tasks} == {deployment_id}
    assert {task["group"] for task in tasks} == {"service:web"}
    assert messages(stable)[:2] == [
        "(service web) has reached a steady state.",
        f"(service web) (deployment {deployment_id}) deployment completed.",
    ]
    started = messages(stable)[2]
    assert started.startswith("(service web) has started 2 tasks: (task ")
    assert all(task["taskArn"].removeprefix(TASK_PREFIX) in started for task in tasks)
    assert len(fewer) == 1
    stopped = next(task for task in tasks if task["taskArn"] != fewer[0]["taskArn"])
    shown = registered.describe_tasks(tasks=[stopped["taskArn"]])["tasks"][0]
    assert shown["stopCode"] == "ServiceSchedulerInitiated"
    assert shown["stoppedReason"] == f"Scaling activity initiated by (deployment {deployment_id})"
    assert (gone["status"], gone["desiredCount"], gone["runningCount"]) == ("INACTIVE", 0, 0)
    assert gone["deployments"] == []


async def test_task_that_ends_is_replaced(registered: Any, simulated_agent: SimulatedAgent) -> None:
    async with at_work(simulated_agent):
        await asyncio.to_thread(create_service, registered, desiredCount=1)
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
        first = (await asyncio.to_thread(running, registered))[0]["taskArn"]
        await asyncio.to_thread(registered.stop_task, task=first)
        await asyncio.to_thread(wait_for_another, registered, first)
        await asyncio.to_thread(wait_for_service, registered, "services_stable")

    assert len(await asyncio.to_thread(running, registered)) == 1


def wait_for_another(ecs: Any, arn: str) -> None:
    while [task["taskArn"] for task in running(ecs)] in ([], [arn]):
        pass


async def test_service_without_an_agent_says_so_and_starts_when_one_comes(
    start_control_plane: StartControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "PLACE_EVERY_S", 0.1)
    plane = await asyncio.to_thread(start_control_plane, agent_grace_s=0)
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    await asyncio.to_thread(create_service, ecs, desiredCount=1)
    while not (said := messages(await asyncio.to_thread(describe_service, ecs))):
        await asyncio.sleep(0)
    async with SimulatedAgent(plane) as agent, at_work(agent):
        await asyncio.to_thread(wait_for_service, ecs, "services_stable")

    assert said == [f"(service web) was unable to place a task. Reason: {NO_CAPACITY}. {NO_AGENT}"]


async def test_service_moves_its_tasks_off_a_drained_instance(
    registered: Any, control_plane: ControlPlane, simulated_agent: SimulatedAgent
) -> None:
    drained = simulated_agent.instance_arn
    async with at_work(simulated_agent):
        await asyncio.to_thread(create_service, registered)
        alone = (await asyncio.to_thread(run, registered))["tasks"][0]["taskArn"]
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
        async with SimulatedAgent(control_plane) as other, at_work(other):
            await asyncio.to_thread(
                registered.update_container_instances_state,
                containerInstances=[drained],
                status="DRAINING",
            )
            while len(await asyncio.to_thread(tasks_on, registered, drained)) > 1:
                await asyncio.sleep(0)
            await asyncio.to_thread(wait_for_service, registered, "services_stable")
            moved = await asyncio.to_thread(tasks_on, registered, other.instance_arn)

    assert await asyncio.to_thread(tasks_on, registered, drained) == [alone]
    assert len(moved) == 2


def tasks_on(ecs: Any, instance_arn: str) -> list[str]:
    arns: list[str] = ecs.list_tasks(containerInstance=instance_arn)["taskArns"]
    return arns


async def test_tags_reach_the_tasks(registered: Any, simulated_agent: SimulatedAgent) -> None:
    tags = [{"key": "team", "value": "a"}]
    async with at_work(simulated_agent):
        await asyncio.to_thread(
            create_service,
            registered,
            desiredCount=1,
            tags=tags,
            propagateTags="SERVICE",
            enableECSManagedTags=True,
        )
        await asyncio.to_thread(wait_for_service, registered, "services_stable")
    task = (await asyncio.to_thread(running, registered))[0]

    assert task["tags"] == [
        *tags,
        {"key": "aws:ecs:clusterName", "value": "default"},
        {"key": "aws:ecs:serviceName", "value": "web"},
    ]


def test_same_service_may_be_created_again_and_another_of_its_name_may_not(
    registered: Any,
) -> None:
    first = create_service(registered, desiredCount=0)
    again = create_service(registered, desiredCount=0)

    assert again["deployments"][0]["id"] == first["deployments"][0]["id"]
    with pytest.raises(ClientError, match="Creation of service was not idempotent."):
        create_service(registered, desiredCount=1)


def test_scaled_service_is_deleted_by_force_only(registered: Any) -> None:
    create_service(registered)

    with pytest.raises(ClientError) as error:
        registered.delete_service(service="web")
    drained = registered.delete_service(service=SERVICE_ARN, force=True)["service"]

    text = "The service cannot be stopped while it is scaled above 0."
    assert error.value.response["Error"]["Message"] == text
    assert (drained["status"], drained["desiredCount"]) == ("DRAINING", 0)


def test_service_whose_subnet_has_gone_is_only_scaled_down(
    start_control_plane: StartControlPlane,
) -> None:
    lan = SubnetSettings(id="subnet-lan", cidr=IPv4Network("192.168.7.0/24"))
    ecs = start_control_plane(subnets=(lan,)).client()
    ecs.register_task_definition(**FARGATE)
    network = {"awsvpcConfiguration": {"subnets": ["subnet-lan"]}}
    create_service(ecs, networkConfiguration=network)
    ecs = start_control_plane().client()

    for more in ({"desiredCount": 3}, {"forceNewDeployment": True}, {"propagateTags": "SERVICE"}):
        with pytest.raises(ClientError, match="subnet-lan"):
            ecs.update_service(service="web", **more)
    fewer = ecs.update_service(service="web", desiredCount=1, networkConfiguration=network)
    none = ecs.update_service(service="web", desiredCount=0)["service"]

    assert fewer["service"]["desiredCount"] == 1
    assert (none["desiredCount"], none["deployments"][0]["desiredCount"]) == (0, 0)
    assert len(none["deployments"]) == 1


async def test_name_of_a_service_that_is_gone_is_free(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    await asyncio.to_thread(create_service, registered, desiredCount=0)
    await asyncio.to_thread(registered.delete_service, service="web")
    await asyncio.to_thread(wait_for_service, registered, "services_inactive")

    with pytest.raises(ClientError, match="Service was not ACTIVE.") as inactive:
        await asyncio.to_thread(registered.update_service, service="web", desiredCount=1)
    with pytest.raises(ClientError, match="Service not found."):
        await asyncio.to_thread(registered.delete_service, service="web")
    await asyncio.to_thread(create_service, registered, desiredCount=0)

    assert inactive.value.response["Error"]["Code"] == "ServiceNotActiveException"
    assert (await asyncio.to_thread(describe_service, registered))["status"] == "ACTIVE"


def test_unknown_service_is_a_failure_or_an_error(ecs: Any) -> None:
    answer = ecs.describe_services(services=["web"])

    assert answer["services"] == []
    assert answer["failures"] == [{"arn": SERVICE_ARN, "reason": "MISSING"}]
    for operation in (ecs.update_service, ecs.delete_service, ecs.list_service_deployments):
        with pytest.raises(ClientError, match="Service not found.") as error:
            operation(service="web")
        assert error.value.response["Error"]["Code"] == "ServiceNotFoundException"


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        pytest.param(
            {"cluster": "x"}, "ClusterNotFoundException", "Cluster not found.", id="cluster"
        ),
        pytest.param({"serviceName": "a b"}, "InvalidParameterException", "serviceName", id="name"),
        pytest.param(
            {"taskDefinition": "x"}, "ClientException", "TaskDefinition not found.", id="definition"
        ),
        pytest.param({"desiredCount": -1}, "InvalidParameterException", "desiredCount", id="count"),
        pytest.param(
            {"schedulingStrategy": "DAEMON"}, "InvalidParameterException", "The daemon", id="daemon"
        ),
        pytest.param(
            {"capacityProviderStrategy": [{"capacityProvider": "FARGATE"}]},
            "InvalidParameterException",
            "Specifying both a launch type and capacity provider strategy is not supported. "
            "Remove one and try again.",
            id="launch type and strategy",
        ),
        pytest.param(
            {"placementConstraints": [{"type": "distinctInstance"}]},
            "InvalidParameterException",
            "Placement constraints are not supported with FARGATE launch type.",
            id="placement constraints",
        ),
        pytest.param(
            {"networkConfiguration": {}},
            "InvalidParameterException",
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
            id="no network",
        ),
        pytest.param(
            {"loadBalancers": [{"containerName": "app", "containerPort": 80}]},
            "UnsupportedFeatureException",
            "loadBalancers is not supported.",
            id="load balancer",
        ),
        pytest.param(
            {"deploymentController": {"type": "CODE_DEPLOY"}},
            "UnsupportedFeatureException",
            "deploymentController.type CODE_DEPLOY is not supported.",
            id="controller",
        ),
        pytest.param(
            {"deploymentConfiguration": {"strategy": "BLUE_GREEN"}},
            "UnsupportedFeatureException",
            "deploymentConfiguration.strategy BLUE_GREEN is not supported.",
            id="strategy",
        ),
        pytest.param(
            {"deploymentConfiguration": {"minimumHealthyPercent": 100, "maximumPercent": 100}},
            "InvalidParameterException",
            "Both maximumPercent and minimumHealthyPercent cannot be 100",
            id="percentages",
        ),
    ],
)
def test_service_is_refused_in_the_words_of_aws(
    changes: dict[str, Any], kind: str, text: str, registered: Any
) -> None:
    with pytest.raises(ClientError) as error:
        create_service(registered, **changes)

    assert error.value.response["Error"]["Code"] == kind
    assert error.value.response["Error"]["Message"].startswith(text)


def test_services_are_listed_in_pages_by_what_they_are(registered: Any) -> None:
    for number in range(3):
        create_service(registered, serviceName=f"s{number}", desiredCount=0)
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    registered.create_service(
        serviceName="spot",
        taskDefinition="web",
        desiredCount=0,
        capacityProviderStrategy=strategy,
        networkConfiguration=NETWORK,
    )

    def listed(**filters: Any) -> list[str]:
        pages = registered.get_paginator("list_services").paginate(
            PaginationConfig={"PageSize": 2}, **filters
        )
        return [arn.rpartition("/")[2] for page in pages for arn in page["serviceArns"]]

    assert listed() == ["s0", "s1", "s2", "spot"]
    assert listed(launchType="FARGATE") == ["s0", "s1", "s2"]
    assert listed(schedulingStrategy="DAEMON") == []


async def test_killed_control_plane_starts_no_task_twice(
    control_plane_process: ControlPlaneProcess,
) -> None:
    count, instance_arn = 12, ""
    for round_number in range(4):
        plane = await asyncio.to_thread(control_plane_process.start)
        ecs = plane.client()
        agent = SimulatedAgent(plane)
        agent.instance_arn = instance_arn
        async with agent:
            instance_arn = agent.instance_arn
            if round_number == 0:
                await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
                await asyncio.to_thread(create_service, ecs, desiredCount=count)
            if round_number < 3:
                await asyncio.sleep(0.05 * round_number)
                await asyncio.to_thread(control_plane_process.kill)
                continue
            async with at_work(agent):
                await asyncio.to_thread(wait_for_service, ecs, "services_stable")
            await check_each_task_was_started_once(plane, count)


async def check_each_task_was_started_once(plane: ControlPlane, count: int) -> None:
    ecs = plane.client()
    tasks = await asyncio.to_thread(running, ecs)
    stopped = await asyncio.to_thread(ecs.list_tasks, desiredStatus="STOPPED")
    service = await asyncio.to_thread(describe_service, ecs)
    told = " ".join(message for message in messages(service) if "has started" in message)

    assert len(tasks) == service["runningCount"] == count
    assert stopped["taskArns"] == []
    assert sorted(told.count(task["taskArn"].rpartition("/")[2]) for task in tasks) == [1] * count
    assert told.count("(task ") == count
