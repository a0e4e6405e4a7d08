"""What RunTask refuses, in which order and in which words; and clusters where it refuses less."""

import asyncio
import re
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fargate_agent.wire.messages import TaskMessage
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.controlplane import ControlPlane, StartControlPlane, make_ec2
from tests.fixtures.ecs import APP, FARGATE, NETWORK, run

PARAMETER = "InvalidParameterException"
RELAXED = {"name": "fargate.relaxed", "value": "true"}
UNKNOWN_GROUP = {"subnets": ["subnet-default"], "securityGroups": ["sg-x"]}
BRIDGE = {"family": "ec2", "containerDefinitions": [{**APP, "memory": 64}]}
WITH_VOLUME = {
    **FARGATE,
    "family": "volumes",
    "containerDefinitions": [
        {**APP, "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}]}
    ],
    "volumes": [{"name": "data", "configuredAtLaunch": True}],
}
WINDOWS = {
    **FARGATE,
    "family": "windows",
    "cpu": "1024",
    "memory": "2048",
    "runtimePlatform": {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"},
}
WRONG = {"overrides": {"containerOverrides": [{"name": "nope"}]}, "startedBy": "x" * 129}


@pytest.fixture
def registered(ecs: Any) -> Any:
    """The client, with a definition for Fargate, one that was taken back, and some that don't run
    here."""
    for family in ("web", "old"):
        ecs.register_task_definition(**{**FARGATE, "family": family})
    ecs.deregister_task_definition(taskDefinition="old:1")
    for definition in (BRIDGE, WITH_VOLUME, WINDOWS):
        ecs.register_task_definition(**definition)
    return ecs


def refusal(ecs: Any, **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        ecs.run_task(**{"taskDefinition": "web", "networkConfiguration": NETWORK, **request})
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


@pytest.mark.parametrize(
    ("request_change", "kind", "text"),
    [
        pytest.param(
            {"taskDefinition": "old:1", **WRONG},
            "ClientException",
            "TaskDefinition is inactive",
            id="inactive definition",
        ),
        pytest.param(
            {
                "launchType": "FARGATE",
                "capacityProviderStrategy": [{"capacityProvider": "FARGATE"}],
                "count": 0,
                **WRONG,
            },
            PARAMETER,
            "Specifying both a launch type and capacity provider strategy is not supported. "
            "Remove one and try again.",
            id="launch type and strategy",
        ),
        pytest.param({"count": 11, **WRONG}, PARAMETER, "count must be", id="count"),
        pytest.param(
            {"networkConfiguration": {}, **WRONG},
            PARAMETER,
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
            id="no network",
        ),
        pytest.param(
            {"networkConfiguration": {"awsvpcConfiguration": UNKNOWN_GROUP}, **WRONG},
            PARAMETER,
            "Error retrieving security group information for [sg-x]: ",
            id="unknown security group",
        ),
        pytest.param(
            {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-default"] * 17}}},
            PARAMETER,
            "subnets can have at most 16 items.",
            id="too many subnets",
        ),
        pytest.param(
            {"taskDefinition": "ec2", **WRONG},
            PARAMETER,
            "Network Configuration is not valid for the given networkMode of this task definition.",
            id="network of a definition without",
        ),
        pytest.param(
            {"taskDefinition": "ec2", "launchType": "FARGATE", **WRONG},
            PARAMETER,
            "Task definition does not support launch_type FARGATE.",
            id="definition for another launch type",
        ),
        pytest.param(
            {"placementConstraints": [{"type": "distinctInstance"}], **WRONG},
            PARAMETER,
            "Placement constraints are not supported with FARGATE launch type.",
            id="placement constraints",
        ),
        pytest.param(
            {"placementStrategy": [{"type": "random"}], **WRONG},
            PARAMETER,
            "Placement strategies are not supported with FARGATE launch type.",
            id="placement strategies",
        ),
        pytest.param(
            {"platformVersion": "1.3.0", **WRONG}, "PlatformUnknownException", "", id="platform"
        ),
        pytest.param(
            WRONG,
            PARAMETER,
            "Override for container named nope is not a container in the TaskDefinition.",
            id="override of an unknown container",
        ),
        pytest.param(
            {"overrides": {"containerOverrides": [{"name": "app", "command": ["x" * 8192]}]}},
            PARAMETER,
            "Container Overrides length must be at most 8192",
            id="long overrides",
        ),
        pytest.param(
            {"propagateTags": "SERVICE", "startedBy": "x" * 129},
            PARAMETER,
            "propagateTags SERVICE",
            id="tags of no service",
        ),
        pytest.param(
            {"enableExecuteCommand": True},
            PARAMETER,
            "The execute command failed because a valid task role is not being used. Specify a "
            "valid task role in your task definition or as a task override and try again.",
            id="no role",
        ),
        pytest.param(
            {"overrides": {"containerOverrides": [{"name": "app", "memory": 1024}]}},
            "ClientException",
            "The 'memory' setting for container 'app' is greater than for the task.",
            id="memory of an override over the task's",
        ),
        pytest.param(
            {"overrides": {"containerOverrides": [{"name": "app", "memory": -5}]}},
            "ClientException",
            "Invalid setting for container 'app'.",
            id="negative memory of an override",
        ),
        pytest.param(
            {"overrides": {"containerOverrides": [{"name": "app", "cpu": 512}]}},
            "ClientException",
            "The sum of all container 'cpu' values cannot be greater than the value of the task "
            "'cpu'.",
            id="cpu of an override over the task's",
        ),
        pytest.param(
            {"overrides": {"taskRoleArn": "no role!"}},
            "ClientException",
            "Role is not valid",
            id="role of the overrides",
        ),
        pytest.param(
            {"overrides": {"inferenceAcceleratorOverrides": [{"deviceName": "x"}]}},
            "UnsupportedFeatureException",
            "overrides.inferenceAcceleratorOverrides is not supported.",
            id="accelerators of the overrides",
        ),
        pytest.param(
            {"volumeConfigurations": [{"name": "nope"}]},
            PARAMETER,
            "Volume configuration provided but no matching configuredAtLaunch volume found in task "
            "definition.",
            id="volume that isn't configured at launch",
        ),
        pytest.param(
            {"taskDefinition": "volumes", "volumeConfigurations": [{"name": "nope"}]},
            PARAMETER,
            "The volume name 'nope' in your request does not have a matching volume in your Task "
            "Definition that is configurable at launch.",
            id="unknown volume",
        ),
        pytest.param(
            {"taskDefinition": "volumes", "volumeConfigurations": [{"name": "data"}]},
            PARAMETER,
            "managedEBSVolume must be specified for the volume 'data'.",
            id="volume",
        ),
        pytest.param(
            {"taskDefinition": "windows"},
            "PlatformTaskDefinitionIncompatibilityException",
            "The specified platform does not satisfy",
            id="other operating system",
        ),
        pytest.param({"startedBy": "x" * 129}, PARAMETER, "startedBy can have", id="startedBy"),
        pytest.param(
            {"group": "service:web"}, PARAMETER, "Invalid namespace for group.", id="group"
        ),
        pytest.param({"clientToken": "x" * 65}, PARAMETER, "clientToken must", id="long token"),
        pytest.param({"clientToken": "ä"}, PARAMETER, "clientToken can only", id="odd token"),
    ],
)
def test_first_thing_that_is_wrong_is_said(
    request_change: dict[str, Any], kind: str, text: str, registered: Any
) -> None:
    found_kind, found_text = refusal(registered, **request_change)

    assert (found_kind, found_text[: len(text)]) == (kind, text)


async def test_new_task_lists_everything_that_fargate_does(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    task = (await asyncio.to_thread(run, registered))["tasks"][0]

    container = task["containers"][0]
    assert sorted(task) == [
        "attachments", "attributes", "availabilityZone", "clusterArn", "containers", "cpu",
        "createdAt", "desiredStatus", "enableExecuteCommand", "ephemeralStorage",
        "fargateEphemeralStorage", "group", "healthStatus", "lastStatus", "launchType", "memory",
        "overrides", "platformFamily", "platformVersion", "tags", "taskArn", "taskDefinitionArn",
        "version",
    ]  # fmt: skip
    assert task["attributes"] == [{"name": "ecs.cpu-architecture", "value": "x86_64"}]
    assert (container["cpu"], container["lastStatus"], container["networkInterfaces"]) == (
        "0",
        "PENDING",
        [],
    )
    assert re.fullmatch(
        r"arn:aws:ecs:us-east-1:000000000000:container/default/[0-9a-f]{32}/[0-9a-f-]{36}",
        container["containerArn"],
    )
    assert "memory" not in container


async def test_security_groups_are_those_that_were_asked_for(
    start_control_plane: StartControlPlane,
) -> None:
    plane = await asyncio.to_thread(start_control_plane, security_groups=[{"id": "sg-1"}])
    ecs, ec2 = plane.client(), await asyncio.to_thread(make_ec2, plane)
    network = {"awsvpcConfiguration": {"subnets": ["subnet-default"], "securityGroups": ["sg-1"]}}
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(plane):
        await asyncio.to_thread(run, ecs, networkConfiguration=network)
        await asyncio.to_thread(run, ecs)
        found = await asyncio.to_thread(ec2.describe_network_interfaces)

    groups = [[g["GroupId"] for g in eni["Groups"]] for eni in found["NetworkInterfaces"]]
    assert sorted(groups) == [["sg-1"], ["sg-default"]]


@pytest.fixture
def relaxed(start_control_plane: StartControlPlane) -> ControlPlane:
    """A control plane whose default cluster admits what Fargate refuses."""
    plane = start_control_plane(relaxed_clusters=("default",))
    plane.client().create_cluster(clusterName="strict")
    return plane


@pytest.mark.parametrize(
    ("definition", "overrides", "size"),
    [
        pytest.param(
            {"containerDefinitions": [{**APP, "cpu": 100, "memory": 300}]},
            {},
            ("100", "300"),
            id="sizes of its containers",
        ),
        pytest.param(
            {"containerDefinitions": [{**APP, "memoryReservation": 64}]},
            {},
            ("256", "64"),
            id="reservation of its container",
        ),
        pytest.param(FARGATE, {"cpu": "512", "memory": "700"}, ("512", "700"), id="odd override"),
    ],
)
async def test_relaxed_cluster_runs_what_fargate_refuses_and_says_so(
    relaxed: ControlPlane,
    definition: dict[str, Any],
    overrides: dict[str, Any],
    size: tuple[str, str],
) -> None:
    ecs = relaxed.client()
    await asyncio.to_thread(ecs.register_task_definition, **{"family": "web", **definition})
    async with SimulatedAgent(relaxed) as agent:
        request = {"taskDefinition": "web", "networkConfiguration": NETWORK, "overrides": overrides}
        made = await asyncio.to_thread(ecs.run_task, **request)
        message = TaskMessage.model_validate(await agent.take())
        strict = await asyncio.to_thread(refusal, ecs, cluster="strict", overrides=overrides)

    task = made["tasks"][0]
    assert (task["cpu"], task["memory"]) == size
    assert RELAXED in task["attributes"]
    assert (message.cpu, message.memory) == (int(size[0]) / 1024, int(size[1]))
    assert strict[0] in {"InvalidParameterException", "ClientException"}


async def test_task_that_fargate_admits_is_not_marked_in_a_relaxed_cluster(
    relaxed: ControlPlane,
) -> None:
    ecs = relaxed.client()
    await asyncio.to_thread(ecs.register_task_definition, **FARGATE)
    async with SimulatedAgent(relaxed):
        made = await asyncio.to_thread(run, ecs)

    assert RELAXED not in made["tasks"][0]["attributes"]


def test_relaxed_cluster_has_no_other_network_modes(relaxed: ControlPlane) -> None:
    ecs = relaxed.client()
    ecs.register_task_definition(**BRIDGE, networkMode="host")

    kind, text = refusal(ecs, taskDefinition="ec2")

    assert kind == "UnsupportedFeatureException"
    assert text == "networkMode host is not supported: each task has an ENI of its own."


def test_task_can_not_be_started_on_a_chosen_instance(registered: Any) -> None:
    with pytest.raises(ClientError) as error:
        registered.start_task(taskDefinition="web", containerInstances=["0" * 32])

    assert error.value.response["Error"]["Code"] == "UnsupportedFeatureException"


async def test_command_is_refused_in_the_words_of_aws(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    arn = (await asyncio.to_thread(run, registered))["tasks"][0]["taskArn"]

    def refused(**changes: Any) -> str:
        request = {"task": arn, "command": "sh", "interactive": True, **changes}
        with pytest.raises(ClientError) as error:
            registered.execute_command(**request)
        message: str = error.value.response["Error"]["Message"]
        return message

    enabled = "The execute command failed because execute command was not enabled when the task "
    assert (await asyncio.to_thread(refused)).startswith(enabled)
    assert await asyncio.to_thread(refused, cluster="x", task="0" * 32) == "Cluster not found."
    assert await asyncio.to_thread(refused, task="0" * 32) == "The referenced task was not found."
    assert "container was not found" in await asyncio.to_thread(refused, container="x")


async def test_reason_of_a_stop_has_a_limit(
    registered: Any, simulated_agent: SimulatedAgent
) -> None:
    arn = (await asyncio.to_thread(run, registered))["tasks"][0]["taskArn"]

    longest = await asyncio.to_thread(registered.stop_task, task=arn, reason="x" * 255)
    with pytest.raises(ClientError, match="reason can have at most 255 characters."):
        await asyncio.to_thread(registered.stop_task, task=arn, reason="x" * 256)

    assert longest["task"]["stoppedReason"] == "x" * 255
