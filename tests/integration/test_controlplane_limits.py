"""Every list, size and name of the API at its limit and one beyond."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane
from tests.fixtures.ecs import (
    APP,
    FARGATE,
    NETWORK,
    create_service,
    refusal,
)
from tests.fixtures.events import history_of
from tests.fixtures.requests import post, signed

PARAMETER = "InvalidParameterException"
CLIENT = "ClientException"
BODY_BYTES = 1 << 20
ARN = "arn:aws:ecs:us-east-1:000000000000"
OVERRIDES_CHARS = 8192

Request = dict[str, Any]
Make = Callable[[int], Request]


@pytest.fixture
def served(registered: Any) -> Any:
    """The client, with a task definition and a service `web`, which wants no tasks."""
    create_service(registered, desiredCount=0)
    return registered


@pytest.mark.one_store
@pytest.mark.parametrize(
    ("operation", "request_", "most"),
    [
        pytest.param("list_clusters", {}, 100, id="clusters"),
        pytest.param("list_task_definitions", {}, 100, id="task definitions"),
        pytest.param("list_task_definition_families", {}, 100, id="families"),
        pytest.param("list_tasks", {}, 100, id="tasks"),
        pytest.param("list_services", {}, 100, id="services"),
        pytest.param("list_service_deployments", {"service": "web"}, 100, id="deployments"),
        pytest.param("list_container_instances", {}, 100, id="instances"),
        pytest.param("list_account_settings", {}, 10, id="account settings"),
        pytest.param("describe_capacity_providers", {}, 10, id="capacity providers"),
    ],
)
def test_page_has_one_item_at_least_and_so_many_at_most(
    operation: str, request_: Request, most: int, served: Any
) -> None:
    call = getattr(served, operation)

    for size in (1, most):
        call(**request_, maxResults=size)

    for size in (-1, 0, most + 1):
        assert refusal(call, **request_, maxResults=size)[0] == PARAMETER


def ids(count: int) -> list[str]:
    return [f"{number:032x}" for number in range(count)]


@pytest.mark.one_store
@pytest.mark.parametrize(
    ("operation", "make", "most"),
    [
        pytest.param("describe_tasks", lambda n: {"tasks": ids(n)}, 100, id="tasks"),
        pytest.param("describe_clusters", lambda n: {"clusters": ids(n)}, 100, id="clusters"),
        pytest.param("describe_services", lambda n: {"services": ids(n)}, 10, id="services"),
        pytest.param(
            "describe_container_instances",
            lambda n: {"containerInstances": ids(n)},
            100,
            id="instances",
        ),
        pytest.param(
            "update_container_instances_state",
            lambda n: {"containerInstances": ids(n), "status": "DRAINING"},
            10,
            id="instances to drain",
        ),
        pytest.param(
            "describe_service_deployments",
            lambda n: {
                "serviceDeploymentArns": [
                    f"{ARN}:service-deployment/default/web/{number}" for number in range(n)
                ]
            },
            20,
            id="deployments",
        ),
        pytest.param(
            "describe_service_revisions",
            lambda n: {
                "serviceRevisionArns": [
                    f"{ARN}:service-revision/default/web/{number}" for number in range(n)
                ]
            },
            20,
            id="revisions",
        ),
        pytest.param(
            "delete_task_definitions",
            lambda n: {"taskDefinitions": [f"gone:{number + 1}" for number in range(n)]},
            10,
            id="task definitions to delete",
        ),
        pytest.param(
            "get_task_protection",
            lambda n: {"cluster": "default", "tasks": ids(n)},
            100,
            id="protected tasks",
        ),
        pytest.param(
            "update_task_protection",
            lambda n: {"cluster": "default", "tasks": ids(n), "protectionEnabled": True},
            10,
            id="tasks to protect",
        ),
        pytest.param(
            "describe_capacity_providers",
            lambda n: {"capacityProviders": ids(n)},
            100,
            id="capacity providers",
        ),
    ],
)
def test_so_many_can_be_named_in_one_request(
    operation: str, make: Make, most: int, ecs: Any
) -> None:
    call = getattr(ecs, operation)

    answer = call(**make(most))

    assert len(answer["failures"]) == most
    assert refusal(call, **make(most + 1))[0] == PARAMETER


def tags(count: int) -> list[dict[str, str]]:
    return [{"key": f"k{number}", "value": "v"} for number in range(count)]


def definition(**members: Any) -> Request:
    return {**FARGATE, **members}


def container(**members: Any) -> Request:
    return definition(containerDefinitions=[{**APP, **members}])


def service(**members: Any) -> Request:
    return {
        "serviceName": "other",
        "taskDefinition": "web",
        "desiredCount": 0,
        "networkConfiguration": NETWORK,
        **members,
    }


def task(**members: Any) -> Request:
    return {"taskDefinition": "web", "networkConfiguration": NETWORK, **members}


def network(subnets: int = 1, security_groups: int = 0) -> Request:
    awsvpc = {
        "subnets": ["subnet-default"] * subnets,
        "securityGroups": ["sg-default"] * security_groups,
    }
    return task(networkConfiguration={"awsvpcConfiguration": awsvpc})


def overrides(chars: int) -> Request:
    """Return a request whose overrides have so many characters as the shortest JSON."""
    value: dict[str, Any] = {"containerOverrides": [{"name": "app", "command": [""]}]}
    empty = len(json.dumps(value, separators=(",", ":")))
    value["containerOverrides"][0]["command"] = ["x" * (chars - empty)]
    return task(overrides=value)


@pytest.mark.one_store
@pytest.mark.parametrize(
    ("operation", "make", "most", "kind"),
    [
        pytest.param(
            "register_container_instance",
            lambda n: {"attributes": [{"name": "a", "value": "v" * n}]},
            128,
            PARAMETER,
            id="attribute",
        ),
        pytest.param(
            "register_container_instance",
            lambda n: {"versionInfo": {"agentVersion": "1" * n}},
            255,
            PARAMETER,
            id="version of an agent",
        ),
        pytest.param(
            "register_container_instance",
            lambda n: {"totalResources": [{"name": "r" * n}]},
            255,
            PARAMETER,
            id="name of a resource",
        ),
        pytest.param("run_task", lambda n: task(count=n), 10, PARAMETER, id="tasks of a run"),
        pytest.param("run_task", lambda n: task(startedBy="x" * n), 128, PARAMETER, id="startedBy"),
        pytest.param("run_task", lambda n: task(group="x" * n), 255, PARAMETER, id="group"),
        pytest.param(
            "run_task", lambda n: task(clientToken="x" * n), 64, PARAMETER, id="token of a run"
        ),
        pytest.param("run_task", overrides, OVERRIDES_CHARS, PARAMETER, id="overrides"),
        pytest.param("run_task", network, 16, PARAMETER, id="subnets"),
        pytest.param(
            "run_task", lambda n: network(security_groups=n), 5, PARAMETER, id="security groups"
        ),
        pytest.param("run_task", lambda n: task(tags=tags(n)), 50, PARAMETER, id="tags of a run"),
        pytest.param(
            "create_service", lambda n: service(serviceName="s" * n), 255, PARAMETER, id="service"
        ),
        pytest.param(
            "create_service",
            lambda n: service(clientToken="x" * n),
            36,
            PARAMETER,
            id="token of a service",
        ),
        pytest.param(
            "create_service", lambda n: service(desiredCount=n), 5000, PARAMETER, id="desired count"
        ),
        pytest.param(
            "create_service",
            lambda n: service(healthCheckGracePeriodSeconds=n),
            2**31 - 1,
            "SerializationException",
            id="grace period",
        ),
        pytest.param(
            "create_service",
            lambda n: service(deploymentConfiguration={"minimumHealthyPercent": n}),
            200,
            PARAMETER,
            id="minimum percent",
        ),
        pytest.param(
            "create_service", lambda n: service(tags=tags(n)), 50, PARAMETER, id="tags of a service"
        ),
        pytest.param(
            "create_cluster", lambda n: {"clusterName": "c" * n}, 255, PARAMETER, id="cluster"
        ),
        pytest.param(
            "create_cluster", lambda n: {"tags": tags(n)}, 50, PARAMETER, id="tags of a cluster"
        ),
        pytest.param(
            "register_task_definition",
            lambda n: definition(family="f" * n),
            255,
            CLIENT,
            id="family",
        ),
        pytest.param(
            "register_task_definition",
            lambda n: container(name="n" * n),
            255,
            CLIENT,
            id="container",
        ),
        pytest.param(
            "register_task_definition", lambda n: container(image="i" * n), 255, CLIENT, id="image"
        ),
        pytest.param(
            "register_task_definition",
            lambda n: definition(
                containerDefinitions=[{**APP, "name": f"c{number}"} for number in range(n)]
            ),
            10,
            CLIENT,
            id="containers",
        ),
        pytest.param(
            "register_task_definition",
            lambda n: definition(tags=tags(n)),
            50,
            PARAMETER,
            id="tags of a definition",
        ),
        pytest.param(
            "tag_resource",
            lambda n: {
                "resourceArn": f"{ARN}:cluster/default",
                "tags": [{"key": "k" * n, "value": "v"}],
            },
            128,
            PARAMETER,
            id="key of a tag",
        ),
        pytest.param(
            "tag_resource",
            lambda n: {
                "resourceArn": f"{ARN}:cluster/default",
                "tags": [{"key": "k", "value": "v" * n}],
            },
            256,
            PARAMETER,
            id="value of a tag",
        ),
    ],
)
def test_size_is_taken_at_its_limit_and_refused_beyond(
    operation: str, make: Make, most: int, kind: str, registered: Any
) -> None:
    call = getattr(registered, operation)

    beyond = refusal(call, **make(most + 1))
    call(**make(most))

    assert beyond[0] == kind


@pytest.mark.one_store
def test_body_is_taken_at_a_mebibyte_and_refused_beyond(control_plane: ControlPlane) -> None:
    answers = []
    for size_bytes in (BODY_BYTES, BODY_BYTES + 1):
        body = b"{}".ljust(size_bytes)
        answers.append(post(control_plane, body, signed(control_plane, "ListClusters", body)))

    assert [status for status, _ in answers] == [200, 413]
    assert answers[1][1]["__type"] == "RequestEntityTooLargeException"


def test_list_that_is_one_longer_than_a_page_has_another_page(ecs: Any) -> None:
    for number in range(101):
        ecs.register_task_definition(**definition(family=f"f{number:03}"))

    for operation, member in (
        (ecs.list_task_definitions, "taskDefinitionArns"),
        (ecs.list_task_definition_families, "families"),
    ):
        first = operation()
        last = operation(nextToken=first["nextToken"])

        assert (len(first[member]), len(last[member])) == (100, 1)
        assert "nextToken" not in last


async def test_longest_names_go_everywhere_together(control_plane: ControlPlane, ecs: Any) -> None:
    cluster, family, name = (letter * 255 for letter in "cfs")
    await asyncio.to_thread(ecs.create_cluster, clusterName=cluster)
    await asyncio.to_thread(ecs.register_task_definition, **definition(family=family))
    async with SimulatedAgent(control_plane, cluster) as agent:
        await asyncio.to_thread(
            create_service,
            ecs,
            cluster=cluster,
            serviceName=name,
            taskDefinition=family,
            desiredCount=1,
        )
        told = await agent.take()
        await agent.bring_up(told)
        listed = await asyncio.to_thread(ecs.list_tasks, cluster=cluster, serviceName=name)
        shown = await asyncio.to_thread(
            ecs.describe_tasks, cluster=cluster, tasks=listed["taskArns"]
        )

    assert listed["taskArns"] == [told["arn"]]
    assert shown["tasks"][0]["lastStatus"] == "RUNNING"
    assert shown["tasks"][0]["group"] == f"service:{name}"
    events = [event["detail"] for event in await history_of(control_plane)]
    assert told["arn"] in {detail.get("taskArn") for detail in events}
