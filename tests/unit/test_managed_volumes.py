"""Volumes that are configured at launch: what may be asked for, what is told and shown."""

from pathlib import Path
from typing import Any

import pytest

from fargate_agent.controlplane.agents.needs import find_missing
from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.services.rules import complete, replaces_tasks
from fargate_agent.controlplane.state.model import ContainerInstance, Task
from fargate_agent.controlplane.tasks.launch import Launch, plan_launch
from fargate_agent.controlplane.tasks.managed_volumes import mint_volumes, render_attachments
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import plan_task
from fargate_agent.wire.volume_kinds import VolumeKind
from tests.fixtures.ecs import APP, FARGATE, NETWORK
from tests.launches import launch_service, make_plane, make_vpc, register, tell
from tests.messages import site, task_message

ROLE = "arn:aws:iam::000000000000:role/ecsInfrastructureRole"
SNAPSHOT = "snap-0123456789abcdef0"
MOUNT = {"sourceVolume": "data", "containerPath": "/data"}
DEFINITION = {
    **FARGATE,
    "containerDefinitions": [{**APP, "mountPoints": [MOUNT]}],
    "volumes": [{"name": "data", "configuredAtLaunch": True}],
}


def configure(**ebs: Any) -> dict[str, Any]:
    return {"name": "data", "managedEBSVolume": {"roleArn": ROLE, "sizeInGiB": 20, **ebs}}


def launch(*configurations: Any, definition: dict[str, Any] = DEFINITION) -> Launch:
    request = {"networkConfiguration": NETWORK, "volumeConfigurations": list(configurations)}
    return plan_launch(
        make_plane(), make_vpc(make_plane()), "default", register(definition), request
    )


def refusal(*configurations: Any, definition: dict[str, Any] = DEFINITION) -> str:
    with pytest.raises(ApiError) as error:
        launch(*configurations, definition=definition)
    assert error.value.kind == "InvalidParameterException"
    return str(error.value)


def test_exactly_the_volumes_that_are_left_open_are_configured() -> None:
    (volume,) = launch(configure()).volumes

    assert volume.name == "data"
    assert "'data' of the task definition is configured at launch" in refusal()
    assert "must be unique" in refusal(configure(), configure())
    assert "The volume name 'nope' in your request does not have a matching volume" in refusal(
        {**configure(), "name": "nope"}
    )
    assert "no matching configuredAtLaunch volume found" in refusal(
        configure(), definition={**DEFINITION, "volumes": [{"name": "data"}]}
    )
    assert "managedEBSVolume must be specified" in refusal({"name": "data"})


@pytest.mark.parametrize(
    ("ebs", "text"),
    [
        ({"roleArn": "role"}, "roleArn must be the ARN of an IAM role"),
        ({"volumeType": "standard"}, "standard is not supported on Fargate"),
        ({"volumeType": "gp9"}, "volumeType must be one of gp2, gp3, io1, io2, st1, sc1"),
        ({"sizeInGiB": 0}, "sizeInGiB must be from 1 to 16384 for the volumeType gp3"),
        ({"sizeInGiB": 16385}, "sizeInGiB must be from 1 to 16384"),
        ({"volumeType": "io1", "iops": 100, "sizeInGiB": 3}, "sizeInGiB must be from 4 to 16384"),
        ({"volumeType": "st1", "sizeInGiB": 124}, "sizeInGiB must be from 125 to 16384"),
        ({"snapshotId": "vol-1"}, "snapshotId must be the id of a snapshot"),
        ({"volumeType": "io2"}, "iops is required for the volumeType io2"),
        ({"volumeType": "gp2", "iops": 100}, "iops is not supported for the volumeType gp2"),
        ({"iops": 2999}, "iops must be from 3000 to 16000 for the volumeType gp3"),
        ({"volumeType": "io1", "iops": 64001}, "iops must be from 100 to 64000"),
        ({"volumeType": "gp2", "throughput": 125}, "throughput is only supported for the volume"),
        ({"throughput": 1001}, "throughput must be from 125 to 1000"),
        ({"filesystemType": "ntfs"}, "filesystemType must be one of ext3, ext4, xfs"),
        ({"volumeInitializationRate": 100}, "only for volumes from a snapshot"),
        (
            {"volumeInitializationRate": 301, "snapshotId": SNAPSHOT},
            "volumeInitializationRate must be from 100 to 300",
        ),
        (
            {"tagSpecifications": [{"tags": [{"key": "AmazonECSManaged", "value": "x"}]}]},
            "the tag key AmazonECSManaged is reserved",
        ),
        ({"tagSpecifications": [{"tags": [{"key": "aws:x"}]}]}, "which is reserved"),
        (
            {"tagSpecifications": [{"propagateTags": "SERVICE"}]},
            "propagateTags SERVICE is only for volumes of a service",
        ),
    ],
)
def test_configuration_that_can_not_be_is_refused(ebs: dict[str, Any], text: str) -> None:
    assert text in refusal(configure(**ebs))


def test_volume_has_a_size_or_is_made_from_a_snapshot() -> None:
    neither = {"name": "data", "managedEBSVolume": {"roleArn": ROLE}}
    snapshot = {"name": "data", "managedEBSVolume": {"roleArn": ROLE, "snapshotId": SNAPSHOT}}

    (volume,) = launch(snapshot).volumes

    assert "sizeInGiB or snapshotId must be specified" in refusal(neither)
    assert (volume.size_gib, volume.snapshot_id) == (None, SNAPSHOT)


def test_agent_is_told_the_volume_and_plans_it(tmp_path: Path) -> None:
    told = tell(
        launch(
            configure(
                snapshotId=SNAPSHOT,
                filesystemType="ext4",
                terminationPolicy={"deleteOnTermination": False},
            )
        )
    )

    task = plan_task(told, site(tmp_path))
    (volume,) = task.volumes

    assert volume.kind is VolumeKind.EBS
    assert volume.source == task.directory / "ebs" / "data"
    assert volume.ebs is not None
    assert (volume.ebs.size_gib, volume.ebs.snapshot_id) == (20, SNAPSHOT)
    assert volume.ebs.filesystem_type == "ext4"
    assert not volume.ebs.delete_on_termination
    (replaced,) = task.replacements
    assert (replaced.kind, replaced.what) == ("ebs-volume", f"{volume.ebs.volume_id} (data)")


def test_volume_is_xfs_and_goes_with_its_task_unless_something_else_is_said(
    tmp_path: Path,
) -> None:
    (volume,) = plan_task(tell(launch(configure())), site(tmp_path)).volumes

    assert volume.ebs is not None
    assert (volume.ebs.filesystem_type, volume.ebs.delete_on_termination) == ("xfs", True)


def test_volume_that_nobody_configured_is_refused_by_the_agent(tmp_path: Path) -> None:
    message = task_message(volumes=[{"name": "data", "configuredAtLaunch": True}])

    with pytest.raises(ResourceInitializationError, match="configuredAtLaunch without"):
        plan_task(message, site(tmp_path))


def test_task_is_for_agents_that_can_make_its_volume() -> None:
    needs = launch(configure(filesystemType="ext4")).needs
    names = ["ecs.capability.task-eni", "ecs.capability.storage.ebs-task-volume-attach"]
    attributes = [
        {"name": "ecs.cpu-architecture", "value": "x86_64"},
        *({"name": name} for name in names),
    ]
    file_system = {"name": "fargate.capability.ebs-file-system.ext4"}
    without = ContainerInstance(document={"attributes": attributes})
    able = ContainerInstance(document={"attributes": [*attributes, file_system]})

    assert [need.what for need in find_missing(without, needs)] == ["EBS volumes with ext4"]
    assert find_missing(able, needs) == []


def test_room_is_reserved_for_the_volume_too() -> None:
    size = launch(configure()).size

    assert (size.ephemeral_storage_gib, size.storage_gib) == (20, 40)


def test_no_two_tasks_have_the_same_volume() -> None:
    volumes = launch(configure()).volumes
    (one,), (other,) = mint_volumes(volumes), mint_volumes(volumes)

    assert one["id"] != other["id"]
    assert one["details"][-1] != other["details"][-1]


@pytest.mark.parametrize(
    ("kept", "delivery", "last_status", "status"),
    [
        (False, "WAITING", "PROVISIONING", "PRECREATED"),
        (False, "SENT", "PROVISIONING", "ATTACHING"),
        (False, "ACKED", "PENDING", "ATTACHED"),
        (False, "ACKED", "RUNNING", "ATTACHED"),
        (False, "ACKED", "STOPPING", "ATTACHED"),
        (False, "ACKED", "STOPPED", "DELETED"),
        (True, "ACKED", "STOPPED", "DETACHED"),
        (True, "WAITING", "STOPPED", "DELETED"),
    ],
)
def test_attachment_goes_the_way_of_its_task(
    kept: bool, delivery: str, last_status: str, status: str
) -> None:
    policy = {"terminationPolicy": {"deleteOnTermination": not kept}}
    attachments = mint_volumes(launch(configure(**policy)).volumes)
    task = Task(document={"attachments": attachments}, delivery=delivery, last_status=last_status)

    (shown,) = render_attachments(task)
    details = {one["name"]: one["value"] for one in shown["details"]}

    assert (shown["type"], shown["status"]) == ("AmazonElasticBlockStorage", status)
    assert details["deleteOnTermination"] == str(not kept).lower()
    assert (details["roleArn"], details["volumeName"]) == (ROLE, "data")
    assert ("volumeId" in details) == (status != "PRECREATED")


def test_volumes_of_a_service_always_go_with_their_tasks_and_may_have_its_tags() -> None:
    service = {
        "serviceName": "web",
        "taskDefinition": "web",
        "desiredCount": 1,
        "networkConfiguration": NETWORK,
        "volumeConfigurations": [
            configure(tagSpecifications=[{"resourceType": "volume", "propagateTags": "SERVICE"}])
        ],
    }

    (volume,) = launch_service(make_plane(), register(DEFINITION), service).volumes

    assert volume.delete_on_termination


def test_other_volumes_replace_the_tasks_of_a_service_and_none_take_them_away() -> None:
    network = {"networkConfiguration": NETWORK}
    known = complete({**network, "volumeConfigurations": [configure()]}, {}, "arn")

    same = complete({}, known, "arn")
    other = complete({"volumeConfigurations": [configure(sizeInGiB=21)]}, known, "arn")
    none = complete({"volumeConfigurations": []}, known, "arn")

    assert not replaces_tasks(same, known)
    assert replaces_tasks(other, known)
    assert "volumeConfigurations" not in none
