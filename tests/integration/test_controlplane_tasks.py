"""RunTask, StopTask, DescribeTasks and ListTasks by real clients, with an agent that only talks."""

import asyncio
import json
from datetime import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fargate_agent.wire.messages import TaskMessage
from tests.fixtures.agents import SimulatedAgent, at_work
from tests.fixtures.ecs import FARGATE, describe_task, details, run, wait_for_task

LOG_OPTIONS = {"awslogs-group": "g", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p"}


async def test_new_task_has_the_shape_that_fargate_gives_it(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    answer = await asyncio.to_thread(run, registered, startedBy="me")

    task = answer["tasks"][0]
    assert answer["failures"] == []
    assert task["taskArn"].startswith("arn:aws:ecs:us-east-1:000000000000:task/default/")
    assert len(task["taskArn"].rpartition("/")[2]) == 32
    assert (task["lastStatus"], task["desiredStatus"]) == ("PROVISIONING", "RUNNING")
    assert (task["cpu"], task["memory"], task["version"]) == ("256", "512", 1)
    assert (task["group"], task["startedBy"]) == ("family:web", "me")
    assert (task["launchType"], task["platformVersion"]) == ("FARGATE", "1.4.0")
    assert task["overrides"] == {
        "containerOverrides": [{"name": "app"}],
        "inferenceAcceleratorOverrides": [],
    }
    assert task["attachments"][0]["status"] == "PRECREATED"
    assert details(task) == {"subnetId": "subnet-default"}
    assert task["containers"][0]["lastStatus"] == "PENDING"
    assert task["ephemeralStorage"] == {"sizeInGiB": 20}


async def test_task_goes_through_its_life_as_clients_see_it(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    async with at_work(simulated_agent):
        made = (await asyncio.to_thread(run, registered))["tasks"][0]
        arn = made["taskArn"]
        await asyncio.to_thread(wait_for_task, registered, "tasks_running", arn)
        running = await asyncio.to_thread(describe_task, registered, arn)
        await asyncio.to_thread(registered.stop_task, task=arn, reason="enough")
        await asyncio.to_thread(wait_for_task, registered, "tasks_stopped", arn)
    stopped = await asyncio.to_thread(describe_task, registered, arn)

    eni = details(running)
    assert list(eni) == [
        "subnetId",
        "networkInterfaceId",
        "macAddress",
        "privateDnsName",
        "privateIPv4Address",
    ]
    assert eni["privateDnsName"] == f"ip-{eni['privateIPv4Address'].replace('.', '-')}.ec2.internal"
    assert running["connectivity"] == "CONNECTED"
    assert running["attachments"][0]["status"] == "ATTACHED"
    assert running["containers"][0]["networkInterfaces"] == [
        {
            "attachmentId": running["attachments"][0]["id"],
            "privateIpv4Address": eni["privateIPv4Address"],
        }
    ]
    assert running["containers"][0]["runtimeId"].startswith(arn[-32:])
    assert (stopped["stopCode"], stopped["stoppedReason"]) == ("UserInitiated", "enough")
    assert stopped["containers"][0]["exitCode"] == 0
    assert stopped["attachments"][0]["status"] == "DELETED"
    assert stopped["version"] > running["version"] > made["version"]
    assert times(stopped) == sorted(times(stopped))
    assert len(times(stopped)) == 8


def times(task: dict[str, Any]) -> list[datetime]:
    order = (
        "createdAt",
        "pullStartedAt",
        "connectivityAt",
        "pullStoppedAt",
        "startedAt",
        "stoppingAt",
        "executionStoppedAt",
        "stoppedAt",
    )
    return [task[name] for name in order if name in task]


async def test_task_whose_essential_container_exits_says_so(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    async with at_work(simulated_agent, exit_code=3):
        arn = (await asyncio.to_thread(run, registered))["tasks"][0]["taskArn"]
        await asyncio.to_thread(wait_for_task, registered, "tasks_stopped", arn)

    task = await asyncio.to_thread(describe_task, registered, arn)
    assert task["stopCode"] == "EssentialContainerExited"
    assert task["stoppedReason"] == "Essential container in task exited"
    assert task["containers"][0]["exitCode"] == 3


async def test_agent_is_told_definition_overrides_and_eni(
    ecs: Any, simulated_agent: SimulatedAgent
) -> None:
    container = {
        "name": "app",
        "image": "busybox",
        "command": ["a"],
        "environment": [{"name": "KEPT", "value": "1"}, {"name": "CHANGED", "value": "1"}],
        "logConfiguration": {"logDriver": "awslogs", "options": LOG_OPTIONS},
    }
    definition = {**FARGATE, "executionRoleArn": "execution", "containerDefinitions": [container]}
    await asyncio.to_thread(ecs.register_task_definition, **definition)
    override = {
        "name": "app",
        "command": ["b"],
        "environment": [{"name": "CHANGED", "value": "2"}, {"name": "NEW", "value": "3"}],
    }
    overrides = {"containerOverrides": [override], "cpu": "512", "memory": "1 GB"}
    made = await asyncio.to_thread(run, ecs, overrides=overrides)

    message = TaskMessage.model_validate(await simulated_agent.take())

    told, eni = message.containers[0], message.elastic_network_interfaces[0]
    assert (message.cpu, message.memory) == (0.5, 1024)
    assert told.command == ("b",)
    assert told.environment == {"KEPT": "1", "CHANGED": "2", "NEW": "3"}
    assert told.log_configuration is not None
    assert told.log_configuration.options == LOG_OPTIONS
    assert told.container_arn == made["tasks"][0]["containers"][0]["containerArn"]
    assert str(eni.subnet_gateway_ipv4_address) == "10.0.0.1/20"
    assert str(eni.ipv4_addresses[0].private_address) == "10.0.0.4"
    assert eni.interface_association_protocol == "veth"
    assert int(eni.mac_address[:2], 16) & 3 == 2
    assert made["tasks"][0]["overrides"]["containerOverrides"] == [override]
    assert (made["tasks"][0]["cpu"], made["tasks"][0]["memory"]) == ("512", "1024")


@pytest.mark.parametrize("name", ["definition", "override"])
async def test_agent_is_told_both_roles_under_ids_of_each_task(
    ecs: Any, simulated_agent: SimulatedAgent, name: str
) -> None:
    other = "arn:aws:iam::111122223333:role/override"
    roles_of_task = {"executionRoleArn": other, "taskRoleArn": other}
    overrides = roles_of_task if name == "override" else {}
    definition = {**FARGATE, "executionRoleArn": "definition", "taskRoleArn": "definition"}
    await asyncio.to_thread(ecs.register_task_definition, **definition)
    for _ in range(2):
        await asyncio.to_thread(run, ecs, overrides=overrides)

    messages = [TaskMessage.model_validate(await simulated_agent.take()) for _ in range(2)]

    found = [message.execution_role_credentials for message in messages]
    found += [message.role_credentials for message in messages]
    roles = [role for role in found if role is not None]
    assert all(role.role_arn.endswith(f":role/{name}") for role in roles)
    assert all(role.role_arn.startswith("arn:aws:iam::") for role in roles)
    assert len({role.credentials_id for role in roles}) == 4
    assert len({role.access_key_id for role in roles}) == 4


@pytest.mark.parametrize(
    ("request_change", "kind", "text"),
    [
        pytest.param(
            {"cluster": "nope"}, "ClusterNotFoundException", "Cluster not found.", id="cluster"
        ),
        pytest.param(
            {"taskDefinition": "nope"},
            "ClientException",
            "TaskDefinition not found.",
            id="definition",
        ),
        pytest.param({"count": 0}, "InvalidParameterException", "count must be", id="count 0"),
        pytest.param({"count": 11}, "InvalidParameterException", "count must be", id="count 11"),
        pytest.param(
            {"networkConfiguration": {}},
            "InvalidParameterException",
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
            id="no network",
        ),
        pytest.param(
            {"networkConfiguration": {"awsvpcConfiguration": {"subnets": []}}},
            "InvalidParameterException",
            "subnets can not be empty.",
            id="no subnets",
        ),
        pytest.param(
            {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-x"]}}},
            "InvalidParameterException",
            "Error retrieving subnet information for [subnet-x]: The subnet ID 'subnet-x' does not "
            "exist (ErrorCode: InvalidSubnetID.NotFound)",
            id="unknown subnet",
        ),
        pytest.param(
            {"overrides": {"containerOverrides": [{"name": "nope"}]}},
            "InvalidParameterException",
            "Override for container named nope is not a container in the TaskDefinition.",
            id="override of an unknown container",
        ),
        pytest.param(
            {"overrides": {"cpu": "512"}},
            "ClientException",
            "No Fargate configuration exists for given values: 512 CPU, 512 memory.",
            id="override gives no pair",
        ),
        pytest.param(
            {"overrides": {"containerOverrides": [{"name": "app", "command": ["x" * 8192]}]}},
            "InvalidParameterException",
            "Container Overrides length must be at most 8192",
            id="long overrides",
        ),
        pytest.param(
            {"platformVersion": "1.3.0"}, "PlatformUnknownException", "", id="old platform"
        ),
    ],
)
def test_run_is_refused_in_the_words_of_aws(
    request_change: dict[str, Any], kind: str, text: str, registered: Any
) -> None:
    with pytest.raises(ClientError) as error:
        run(registered, **request_change)

    assert error.value.response["Error"]["Code"] == kind
    assert error.value.response["Error"]["Message"].startswith(text)


def test_definition_for_other_launch_types_does_not_run(ecs: Any) -> None:
    ecs.register_task_definition(
        family="web", containerDefinitions=[{"name": "app", "image": "x", "memory": 64}]
    )

    with pytest.raises(ClientError, match="Task definition does not support launch_type FARGATE."):
        run(ecs)


async def test_stop_may_be_repeated(registered: Any, simulated_agent: SimulatedAgent) -> None:
    arn = (await asyncio.to_thread(run, registered))["tasks"][0]["taskArn"]
    await simulated_agent.take()

    first = await asyncio.to_thread(registered.stop_task, task=arn)
    second = await asyncio.to_thread(registered.stop_task, task=arn.rpartition("/")[2], reason="x")

    assert first["task"]["stoppedReason"] == second["task"]["stoppedReason"]
    assert first["task"]["stoppedReason"] == "Task stopped by user"
    assert second["task"]["desiredStatus"] == "STOPPED"


def test_unknown_task_can_not_be_stopped(ecs: Any) -> None:
    with pytest.raises(ClientError, match="The referenced task was not found."):
        ecs.stop_task(task="0" * 32)


def test_missing_task_is_a_failure_and_a_bad_id_an_error(ecs: Any) -> None:
    answer = ecs.describe_tasks(tasks=["0" * 32])

    arn = f"arn:aws:ecs:us-east-1:000000000000:task/default/{'0' * 32}"
    assert (answer["tasks"], answer["failures"]) == ([], [{"arn": arn, "reason": "MISSING"}])
    with pytest.raises(ClientError, match=r"taskId length should be one of \[32,36\]"):
        ecs.describe_tasks(tasks=["../../etc"])
    with pytest.raises(ClientError, match="Tasks cannot be empty."):
        ecs.describe_tasks(tasks=[])


async def test_task_of_another_cluster_is_a_failure(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    (task,) = (await asyncio.to_thread(run, registered))["tasks"]
    task_id = (await simulated_agent.take())["arn"].rpartition("/")[2]
    await asyncio.to_thread(registered.create_cluster, clusterName="other")

    described = await asyncio.to_thread(registered.describe_tasks, cluster="other", tasks=[task_id])
    protected = await asyncio.to_thread(
        registered.get_task_protection, cluster="other", tasks=[task_id]
    )

    arn = task["taskArn"].replace("/default/", "/other/")
    assert (described["tasks"], protected["protectedTasks"]) == ([], [])
    assert described["failures"] == protected["failures"] == [{"arn": arn, "reason": "MISSING"}]


async def test_tasks_are_listed_by_what_they_are(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    mine = await asyncio.to_thread(run, registered, count=3, startedBy="me")
    other = await asyncio.to_thread(run, registered)
    arns = sorted(task["taskArn"] for task in mine["tasks"])
    for _ in range(4):
        await simulated_agent.take()
    await simulated_agent.submit(other["tasks"][0]["taskArn"], "STOPPED")

    def listed(**filters: Any) -> list[str]:
        pages = registered.get_paginator("list_tasks").paginate(
            PaginationConfig={"PageSize": 2}, **filters
        )
        return [arn for page in pages for arn in page["taskArns"]]

    assert await asyncio.to_thread(listed) == arns
    assert await asyncio.to_thread(listed, startedBy="me") == arns
    assert await asyncio.to_thread(listed, family="web") == arns
    assert await asyncio.to_thread(listed, family="other") == []
    assert await asyncio.to_thread(listed, desiredStatus="PENDING") == []
    assert await asyncio.to_thread(listed, launchType="EC2") == []
    stopped = await asyncio.to_thread(listed, desiredStatus="STOPPED")
    assert stopped == [other["tasks"][0]["taskArn"]]


async def test_tags_are_shown_when_asked_for(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    tags = [{"key": "team", "value": "a"}]
    made = await asyncio.to_thread(run, registered, tags=tags, enableECSManagedTags=True)
    arn = made["tasks"][0]["taskArn"]

    plain = await asyncio.to_thread(describe_task, registered, arn)
    tagged = await asyncio.to_thread(registered.describe_tasks, tasks=[arn], include=["TAGS"])

    assert plain["tags"] == []
    assert tagged["tasks"][0]["tags"] == [
        *tags,
        {"key": "aws:ecs:clusterName", "value": "default"},
    ]


def test_reserved_tag_is_refused(registered: Any) -> None:
    with pytest.raises(ClientError, match="reserved"):
        run(registered, tags=[{"key": "aws:x", "value": json.dumps({})}])
