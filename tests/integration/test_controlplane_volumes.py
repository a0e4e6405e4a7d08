"""EBS volumes that are configured at launch, as clients of the API see them."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.wire.messages import TaskMessage
from tests.fixtures.agents import SimulatedAgent, at_work
from tests.fixtures.controlplane import StartControlPlane, add_principal
from tests.fixtures.ecs import (
    APP,
    FARGATE,
    create_service,
    describe_service,
    describe_task,
    refusal,
    run,
    running,
    wait_for_service,
    wait_for_task,
)

ROLE = "arn:aws:iam::000000000000:role/ecsInfrastructureRole"
DEFINITION = {
    **FARGATE,
    "containerDefinitions": [
        {**APP, "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}]}
    ],
    "volumes": [{"name": "data", "configuredAtLaunch": True}],
}


def configure(**ebs: Any) -> list[dict[str, Any]]:
    return [{"name": "data", "managedEBSVolume": {"roleArn": ROLE, "sizeInGiB": 1, **ebs}}]


@pytest.fixture
def with_volume(ecs: Any) -> Any:
    """The client, with a definition `web` that leaves a volume to be configured."""
    ecs.register_task_definition(**DEFINITION)
    return ecs


def show_volume(task: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the status of a task's volume, and its details."""
    eni, volume = task["attachments"]
    assert eni["type"] == "ElasticNetworkInterface"
    assert volume["type"] == "AmazonElasticBlockStorage"
    return volume["status"], {one["name"]: one["value"] for one in volume["details"]}


@pytest.mark.parametrize(("kept", "end"), [(False, "DELETED"), (True, "DETACHED")])
async def test_task_shows_its_volume_as_ecs_does(
    with_volume: Any, simulated_agent: SimulatedAgent, kept: bool, end: str
) -> None:
    policy = {"terminationPolicy": {"deleteOnTermination": not kept}}

    async with at_work(simulated_agent):
        answer = await asyncio.to_thread(run, with_volume, volumeConfigurations=configure(**policy))
        arn = answer["tasks"][0]["taskArn"]
        await asyncio.to_thread(wait_for_task, with_volume, "tasks_running", arn)
        attached = await asyncio.to_thread(describe_task, with_volume, arn)
        await asyncio.to_thread(with_volume.stop_task, task=arn)
        await asyncio.to_thread(wait_for_task, with_volume, "tasks_stopped", arn)
    stopped = await asyncio.to_thread(describe_task, with_volume, arn)

    told = {"roleArn": ROLE, "deleteOnTermination": str(not kept).lower(), "volumeName": "data"}
    status, details = show_volume(attached)
    assert show_volume(answer["tasks"][0]) == ("PRECREATED", told)
    assert (status, details) == ("ATTACHED", told | {"volumeId": details["volumeId"]})
    assert show_volume(stopped) == (end, details)


async def test_agent_is_told_the_volume_that_the_task_shows(
    with_volume: Any, simulated_agent: SimulatedAgent
) -> None:
    wanted = configure(filesystemType="ext4", snapshotId="snap-0123456789abcdef0")

    arn = (await asyncio.to_thread(run, with_volume, volumeConfigurations=wanted))["tasks"][0][
        "taskArn"
    ]
    (volume,) = TaskMessage.model_validate(await simulated_agent.take()).volumes
    _, details = show_volume(await asyncio.to_thread(describe_task, with_volume, arn))

    assert volume.configured_at_launch  # an agent of before refuses it by that
    assert volume.ebs is not None
    assert volume.ebs.volume_id == details["volumeId"]
    assert volume.ebs.filesystem_type == "ext4"
    assert volume.ebs.snapshot_id == "snap-0123456789abcdef0"


async def test_each_task_of_a_service_has_a_volume_of_its_own(
    with_volume: Any, simulated_agent: SimulatedAgent
) -> None:
    def configurations() -> list[Any]:
        service = describe_service(with_volume)
        assert "volumeConfigurations" not in service
        return [one.get("volumeConfigurations") for one in service["deployments"]]

    async with at_work(simulated_agent):
        await asyncio.to_thread(
            create_service, with_volume, volumeConfigurations=configure(), desiredCount=2
        )
        await asyncio.to_thread(wait_for_service, with_volume, "services_stable")
        before = await asyncio.to_thread(running, with_volume)
        first = await asyncio.to_thread(configurations)
        larger = configure(sizeInGiB=2)
        await asyncio.to_thread(
            with_volume.update_service, service="web", volumeConfigurations=larger
        )
        await asyncio.to_thread(wait_for_service, with_volume, "services_stable")
        after = await asyncio.to_thread(running, with_volume)
        second = await asyncio.to_thread(configurations)

    volumes = [show_volume(task)[1]["volumeId"] for task in (*before, *after)]
    assert len(set(volumes)) == len(before) + len(after) == 4
    assert (first, second) == ([configure()], [larger])


def test_examples_are_run_as_they_are(ecs: Any, simulated_agent: SimulatedAgent) -> None:
    examples = Path(__file__).parents[2] / "examples"
    volume = json.loads((examples / "ebs-volume.json").read_text())
    for name, configurations in (("efs", []), ("ebs", [volume])):
        ecs.register_task_definition(**json.loads((examples / f"{name}.json").read_text()))
        answer = run(ecs, taskDefinition=name, volumeConfigurations=configurations)
        assert answer["failures"] == []


def test_service_of_such_a_definition_configures_its_volume(with_volume: Any) -> None:
    code, text = refusal(partial(create_service, with_volume))

    assert code == "InvalidParameterException"
    assert "'data' of the task definition is configured at launch" in text


def test_volume_s_role_is_passed_with_permission_alone(
    state_dir: Path, start_control_plane: StartControlPlane
) -> None:
    passes = {
        "Effect": "Allow",
        "Action": "iam:PassRole",
        "Resource": ROLE,
        "Condition": {"StringEquals": {"iam:PassedToService": "ecs.amazonaws.com"}},
    }
    add_principal(state_dir, [{"Effect": "Allow", "Action": "ecs:*", "Resource": "*"}, passes])
    plane = start_control_plane()
    ci, other = plane.client("ci"), configure(roleArn=f"{ROLE}2")
    ci.register_task_definition(**DEFINITION)

    for call in (
        partial(run, ci),
        partial(create_service, ci, desiredCount=0),
        partial(ci.update_service, service="web"),
    ):
        call(volumeConfigurations=configure())
        code, text = refusal(call, volumeConfigurations=other)
        assert code == "AccessDeniedException"
        assert f"{ROLE}2" in text
