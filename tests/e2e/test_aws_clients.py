"""The AWS CLI and boto3, unchanged, against the programs: a task and a service, to their ends."""

import asyncio
import http.client
import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, WaiterError

from fargate_agent.network.namespaces import socket_in_netns
from tests.fixtures.awscli import AwsCli, stack_variables
from tests.fixtures.machine import wait_for
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import DEADLINE_S, REGISTRY, WEB_GROUP, Stack, tool

# the AWS CLI starts a dozen times, each time for seconds
pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(180)]

QUICK = {"Delay": 1, "MaxAttempts": 60}
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-outside"], "securityGroups": [WEB_GROUP]}}
EXEC_REFUSED = (
    "The execute command failed because execute command was not enabled when the task was run or "
    "the execute command agent isn’t running. Wait and try again or run a new task with execute "
    "command enabled and try again."
)
"""Source: ECS API, as users report it."""


@pytest.fixture
def aws(stack: Stack, tmp_path: Path) -> AwsCli:
    return AwsCli(stack.plane, tmp_path / "home")


@pytest.fixture
def ecs(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Any:
    """boto3's client, which is told nothing but by the environment."""
    for name, value in stack_variables(stack.plane).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    return boto3.session.Session().client("ecs")


async def test_cli_takes_a_task_from_its_definition_to_its_end(
    aws: AwsCli, stack: Stack, registry: FakeRegistry, tmp_path: Path
) -> None:
    file = write_definition(tmp_path, web("first"))
    registered = (await aws.run("register-task-definition", "--cli-input-json", file)).json()
    definition = registered["taskDefinition"]["taskDefinitionArn"]
    network = json.dumps(NETWORK)
    started = (
        await aws.run(
            *("run-task", "--task-definition", "web", "--launch-type", "FARGATE"),
            *("--network-configuration", network),
        )
    ).json()
    arn = started["tasks"][0]["taskArn"]

    waited = await aws.run("wait", "tasks-running", "--tasks", arn)
    shown = (await aws.run("describe-tasks", "--tasks", arn)).json()["tasks"][0]
    served = await asyncio.to_thread(fetch, stack, address_of(shown))
    refused = await aws.run(
        *("execute-command", "--task", arn, "--container", "web"),
        *("--interactive", "--command", "/bin/sh"),
    )

    assert started["failures"] == []
    assert (waited.code, waited.err) == (0, "")
    assert (shown["lastStatus"], shown["taskDefinitionArn"]) == ("RUNNING", definition)
    assert served == "first"
    assert refused.code != 0
    assert "(InvalidParameterException)" in refused.err
    assert EXEC_REFUSED in refused.err

    stopped = (await aws.run("stop-task", "--task", arn, "--reason", "seen enough")).json()
    ended = await aws.run("wait", "tasks-stopped", "--tasks", arn)
    last = (await aws.run("describe-tasks", "--tasks", arn)).json()["tasks"][0]
    gone = (await aws.run("deregister-task-definition", "--task-definition", definition)).json()

    assert stopped["task"]["desiredStatus"] == "STOPPED"
    assert ended.code == 0
    assert (last["stopCode"], last["stoppedReason"]) == ("UserInitiated", "seen enough")
    assert gone["taskDefinition"]["status"] == "INACTIVE"
    assert stack.leftovers(arn) == []


async def test_cli_says_why_a_task_never_runs(
    aws: AwsCli, stack: Stack, registry: FakeRegistry, tmp_path: Path
) -> None:
    file = write_definition(tmp_path, {**web("none"), "image": f"{REGISTRY}/tool:absent"})
    (await aws.run("register-task-definition", "--cli-input-json", file)).json()
    started = (
        await aws.run(
            *("run-task", "--task-definition", "web", "--network-configuration"),
            json.dumps(NETWORK),
        )
    ).json()
    arn = started["tasks"][0]["taskArn"]

    waited = await aws.run("wait", "tasks-running", "--tasks", arn)

    shown = (await aws.run("describe-tasks", "--tasks", arn)).json()["tasks"][0]
    assert waited.code == 255
    assert "Waiter TasksRunning failed" in waited.err
    assert shown["stopCode"] == "TaskFailedToStart"
    assert "CannotPullContainerError" in shown["stoppedReason"]


async def test_boto3_takes_a_task_from_its_definition_to_its_end(
    ecs: Any, stack: Stack, registry: FakeRegistry
) -> None:
    made = await asyncio.to_thread(register, ecs, web("from boto3"))
    started = await asyncio.to_thread(
        ecs.run_task, taskDefinition=made, launchType="FARGATE", networkConfiguration=NETWORK
    )
    arn = started["tasks"][0]["taskArn"]

    await wait(ecs, "tasks_running", tasks=[arn])
    shown = (await asyncio.to_thread(ecs.describe_tasks, tasks=[arn]))["tasks"][0]
    served = await asyncio.to_thread(fetch, stack, address_of(shown))
    with pytest.raises(ClientError) as refused:
        await asyncio.to_thread(
            ecs.execute_command, task=arn, container="web", interactive=True, command="/bin/sh"
        )
    await asyncio.to_thread(ecs.stop_task, task=arn, reason="seen enough")
    await wait(ecs, "tasks_stopped", tasks=[arn])
    last = (await asyncio.to_thread(ecs.describe_tasks, tasks=[arn]))["tasks"][0]
    gone = await asyncio.to_thread(ecs.deregister_task_definition, taskDefinition=made)

    assert served == "from boto3"
    assert refused.value.response["Error"] == {
        "Code": "InvalidParameterException",
        "Message": EXEC_REFUSED,
    }
    assert (last["stopCode"], last["stoppedReason"]) == ("UserInitiated", "seen enough")
    assert [container["lastStatus"] for container in last["containers"]] == ["STOPPED"]
    assert gone["taskDefinition"]["status"] == "INACTIVE"
    assert stack.leftovers(arn) == []


async def test_boto3_waiter_gives_up_on_a_task_that_ends_before_it_is_seen_running(
    ecs: Any, stack: Stack, registry: FakeRegistry
) -> None:
    made = await asyncio.to_thread(register, ecs, tool("main", "exit 3"))
    started = await asyncio.to_thread(
        ecs.run_task, taskDefinition=made, networkConfiguration=NETWORK
    )
    arns = [task["taskArn"] for task in started["tasks"]]
    await wait(ecs, "tasks_stopped", tasks=arns)

    with pytest.raises(WaiterError, match="we matched expected path"):
        await wait(ecs, "tasks_running", tasks=arns)

    shown = (await asyncio.to_thread(ecs.describe_tasks, tasks=arns))["tasks"][0]
    assert shown["containers"][0]["exitCode"] == 3
    assert shown["stopCode"] == "EssentialContainerExited"


async def test_service_is_made_replaced_and_deleted(
    ecs: Any, aws: AwsCli, stack: Stack, registry: FakeRegistry
) -> None:
    await asyncio.to_thread(register, ecs, web("old"))
    created = await asyncio.to_thread(
        ecs.create_service,
        serviceName="site",
        taskDefinition="web",
        desiredCount=2,
        launchType="FARGATE",
        networkConfiguration=NETWORK,
    )
    await wait(ecs, "services_stable", services=["site"])
    first = await tasks_of(ecs, "site")
    before = await asyncio.to_thread(fetch_each, stack, first)

    await asyncio.to_thread(register, ecs, web("new"))
    await asyncio.to_thread(ecs.update_service, service="site", taskDefinition="web")
    stable = await aws.run("wait", "services-stable", "--services", "site")
    second = await tasks_of(ecs, "site")
    after = await asyncio.to_thread(fetch_each, stack, second)
    (service,) = (await asyncio.to_thread(ecs.describe_services, services=["site"]))["services"]

    assert created["service"]["status"] == "ACTIVE"
    assert before == ["old", "old"]
    assert (stable.code, stable.err) == (0, "")
    assert after == ["new", "new"]
    assert not {task["taskArn"] for task in first} & {task["taskArn"] for task in second}
    assert (service["runningCount"], service["desiredCount"]) == (2, 2)
    assert service["taskDefinition"].endswith(":task-definition/web:2")

    await asyncio.to_thread(ecs.update_service, service="site", desiredCount=0)
    await asyncio.to_thread(ecs.delete_service, service="site")
    await wait(ecs, "services_inactive", services=["site"])
    arns = [task["taskArn"] for task in [*first, *second]]
    await wait(ecs, "tasks_stopped", tasks=arns)  # a service is gone when its tasks are stopping
    ended = (await asyncio.to_thread(ecs.describe_tasks, tasks=arns))["tasks"]

    assert [task["lastStatus"] for task in ended] == ["STOPPED"] * 4
    assert {task["stopCode"] for task in ended} == {"ServiceSchedulerInitiated"}
    for arn in arns:
        assert stack.leftovers(arn) == []


async def test_task_of_a_service_that_ends_is_replaced(
    ecs: Any, stack: Stack, registry: FakeRegistry
) -> None:
    await asyncio.to_thread(register, ecs, web("again"))
    await asyncio.to_thread(
        ecs.create_service,
        serviceName="site",
        taskDefinition="web",
        desiredCount=1,
        networkConfiguration=NETWORK,
    )
    await wait(ecs, "services_stable", services=["site"])
    (first,) = await tasks_of(ecs, "site")

    await asyncio.to_thread(ecs.stop_task, task=first["taskArn"])
    await wait(ecs, "tasks_stopped", tasks=[first["taskArn"]])
    await wait(ecs, "services_stable", services=["site"])
    (second,) = await tasks_of(ecs, "site")

    assert second["taskArn"] != first["taskArn"]
    assert await asyncio.to_thread(fetch, stack, address_of(second)) == "again"
    await asyncio.to_thread(ecs.delete_service, service="site", force=True)
    await wait(ecs, "services_inactive", services=["site"])


def web(says: str) -> dict[str, Any]:
    """Return a container that answers every request for `/` with a word."""
    return tool(
        "web",
        f"echo '{says}' >/www/index.html; exec httpd -f -p 8080 -h /www",
        portMappings=[{"containerPort": 8080}],
    )


def definition_of(container: dict[str, Any]) -> dict[str, Any]:
    return {
        "family": "web",
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": "256",
        "memory": "512",
        "containerDefinitions": [container],
    }


def register(ecs: Any, container: dict[str, Any]) -> str:
    made = ecs.register_task_definition(**definition_of(container))
    return str(made["taskDefinition"]["taskDefinitionArn"])


def write_definition(directory: Path, container: dict[str, Any]) -> str:
    file = directory / "definition.json"
    file.write_text(json.dumps(definition_of(container)))
    return f"file://{file}"


async def wait(ecs: Any, waiter: str, **what: list[str]) -> None:
    await asyncio.to_thread(ecs.get_waiter(waiter).wait, WaiterConfig=QUICK, **what)


async def tasks_of(ecs: Any, service: str) -> list[dict[str, Any]]:
    arns = (await asyncio.to_thread(ecs.list_tasks, serviceName=service))["taskArns"]
    return list((await asyncio.to_thread(ecs.describe_tasks, tasks=arns))["tasks"])


def address_of(task: dict[str, Any]) -> str:
    details = task["attachments"][0]["details"]
    return str(next(d["value"] for d in details if d["name"] == "privateIPv4Address"))


def fetch_each(stack: Stack, tasks: Iterable[dict[str, Any]]) -> list[str]:
    return [fetch(stack, address_of(task)) for task in tasks]


def fetch(stack: Stack, address: str) -> str:
    """Ask the container, from the network that its task is in, what it has to say."""
    wait_for(lambda: serves(stack, address), "the container to listen", DEADLINE_S)
    connection = http.client.HTTPConnection(address, 8080)
    with socket_in_netns(stack.outside, socket.AF_INET, socket.SOCK_STREAM) as opened:
        opened.settimeout(10)
        opened.connect((address, 8080))
        connection.sock = opened
        connection.request("GET", "/index.html")
        return connection.getresponse().read().decode().strip()


def serves(stack: Stack, address: str) -> bool:
    with socket_in_netns(stack.outside, socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(10)
        return probe.connect_ex((address, 8080)) == 0
