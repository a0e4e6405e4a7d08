"""What RunTask and CreateService make of their requests, before anything is stored."""

from pathlib import Path
from typing import Any

import pytest

from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.tasks.launch import plan_launch
from fargate_agent.plan import plan_task
from fargate_agent.wire.attributes import EPHEMERAL_STORAGE
from tests.fixtures.ecs import APP, FARGATE, NETWORK
from tests.launches import launch_service, make_plane, make_vpc, register, tell
from tests.messages import site

TAGGED = {**FARGATE, "tags": [{"key": "team", "value": "a"}]}
SERVICE = {
    "serviceName": "web",
    "taskDefinition": "web",
    "desiredCount": 1,
    "networkConfiguration": NETWORK,
}


@pytest.mark.parametrize(
    ("request_", "group", "tags"),
    [
        pytest.param({}, "family:web", [], id="nothing"),
        pytest.param({"group": "batch"}, "batch", [], id="group"),
        pytest.param({"propagateTags": "TASK_DEFINITION"}, "family:web", TAGGED["tags"], id="tags"),
        pytest.param({"propagateTags": "NONE"}, "family:web", [], id="no tags"),
    ],
)
def test_task_has_what_the_request_says_of_it(
    request_: dict[str, Any], group: str, tags: list[Any]
) -> None:
    launch = plan_launch(
        make_plane(),
        make_vpc(make_plane()),
        "default",
        register(TAGGED),
        {"networkConfiguration": NETWORK, **request_},
    )

    assert (launch.group, tell(launch).group, launch.tags) == (group, group, tags)


def test_agent_is_told_what_the_definition_asks_of_the_kernel_and_of_the_process() -> None:
    control = {"namespace": "net.core.somaxconn", "value": "1"}
    app = {
        **APP,
        "interactive": True,
        "linuxParameters": {"initProcessEnabled": True},
        "systemControls": [control],
    }
    definition = {**FARGATE, "pidMode": "task", "containerDefinitions": [app]}
    request = {"networkConfiguration": NETWORK}

    message = tell(
        plan_launch(make_plane(), make_vpc(make_plane()), "default", register(definition), request)
    )
    task = plan_task(message, site(Path("/state")))

    (container,) = task.containers
    assert task.shares_pid_namespace
    assert container.init
    assert container.stdin == task.directory / "stdin" / "app"
    assert container.sysctls == {"net.core.somaxconn": "1"}


def test_container_has_the_sizes_of_the_overrides() -> None:
    override = {"name": "app", "cpu": 128, "memory": 256, "memoryReservation": 64}
    request = {
        "networkConfiguration": NETWORK,
        "overrides": {"containerOverrides": [override]},
    }

    (container,) = tell(
        plan_launch(make_plane(), make_vpc(make_plane()), "default", register(FARGATE), request)
    ).containers

    assert (container.cpu, container.memory, container.memory_reservation) == (128, 256, 64)


def test_the_ephemeral_storage_of_the_overrides_counts() -> None:
    definition = register({**FARGATE, "ephemeralStorage": {"sizeInGiB": 30}})
    request = {"networkConfiguration": NETWORK}
    other = {**request, "overrides": {"ephemeralStorage": {"sizeInGiB": 21}}}
    default = plan_launch(
        make_plane(), make_vpc(make_plane()), "default", register(FARGATE), request
    )
    own = plan_launch(make_plane(), make_vpc(make_plane()), "default", definition, request)
    overridden = plan_launch(
        make_plane(), make_vpc(make_plane()), "default", register(FARGATE), other
    )

    assert [tell(one).ephemeral_storage_gib for one in (default, own, overridden)] == [20, 30, 21]
    names = [{name for need in one.needs for name, _ in need.attributes} for one in (own, default)]
    assert names[0] - names[1] == {EPHEMERAL_STORAGE}
    assert overridden.needs == own.needs


def test_environment_files_of_the_overrides_replace_those_of_the_definition() -> None:
    files = [{"type": "s3", "value": f"arn:aws:s3:::bucket/{name}.env"} for name in "ab"]
    app = {**APP, "environmentFiles": files[:1]}
    role = "arn:aws:iam::000000000000:role/execution"
    definition = register({**FARGATE, "containerDefinitions": [app], "executionRoleArn": role})
    override = {"name": "app", "environmentFiles": files[1:]}

    told = [
        tell(
            plan_launch(make_plane(), make_vpc(make_plane()), "default", definition, request)
        ).containers[0]
        for request in (
            {"networkConfiguration": NETWORK},
            {
                "networkConfiguration": NETWORK,
                "overrides": {"containerOverrides": [override]},
            },
        )
    ]

    values = [[file.value for file in container.environment_files] for container in told]
    assert values == [[files[0]["value"]], [files[1]["value"]]]


def test_service_wants_a_platform_that_is_there() -> None:
    launch_service(make_plane(), register(FARGATE), {**SERVICE, "platformVersion": "1.4.0"})

    with pytest.raises(ApiError, match="The specified platform does not exist."):
        launch_service(make_plane(), register(FARGATE), {**SERVICE, "platformVersion": "1.3.0"})


def test_tasks_of_a_service_have_its_security_groups() -> None:
    plane = make_plane(security_groups=[{"id": "sg-1"}])
    network = {"awsvpcConfiguration": {"subnets": ["subnet-default"], "securityGroups": ["sg-1"]}}
    request = {**SERVICE, "networkConfiguration": network}

    assert launch_service(plane, register(FARGATE), request).security_groups == ("sg-1",)
