"""What AWS adds to a task definition."""

from typing import Any

import pytest

from fargate_agent.controlplane.rules.computed import complete
from fargate_agent.controlplane.rules.draft import Draft
from tests.unit.test_rules_texts import (
    ACCOUNT,
    APP,
    AWSLOGS,
    ROLE,
    app,
    definition,
    logs,
    secret,
    sidecar,
)

CAPABILITY = "com.amazonaws.ecs.capability"
ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com/web:1"
ALWAYS = {"ecs.capability.task-eni", f"{CAPABILITY}.docker-remote-api.1.18"}
SECRET = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:name-AbCdEf"


def computed(**changes: Any) -> dict[str, Any]:
    return complete(Draft(definition(**changes), ACCOUNT))


def test_container_gets_its_defaults() -> None:
    container = computed()["containerDefinitions"][0]

    assert container == {
        **APP,
        "cpu": 0,
        "essential": True,
        "environment": [],
        "mountPoints": [],
        "volumesFrom": [],
        "portMappings": [],
        "systemControls": [],
    }


def test_health_check_gets_its_defaults() -> None:
    check = computed(**app(healthCheck={"command": ["CMD", "true"], "timeout": 9}))

    found = check["containerDefinitions"][0]["healthCheck"]
    assert found == {"command": ["CMD", "true"], "interval": 30, "timeout": 9, "retries": 3}


@pytest.mark.parametrize(
    ("mode", "host_port"),
    [pytest.param("awsvpc", 80, id="ENI"), pytest.param("bridge", 0, id="bridge")],
)
def test_port_gets_a_host_port_and_a_protocol(mode: str, host_port: int) -> None:
    found = computed(networkMode=mode, **app(portMappings=[{"containerPort": 80}]))

    assert found["containerDefinitions"][0]["portMappings"] == [
        {"containerPort": 80, "hostPort": host_port, "protocol": "tcp"}
    ]


def test_range_of_ports_gets_no_host_port() -> None:
    found = computed(**app(portMappings=[{"containerPortRange": "80-90"}]))

    assert found["containerDefinitions"][0]["portMappings"] == [
        {"containerPortRange": "80-90", "protocol": "tcp"}
    ]


def test_sizes_become_digits() -> None:
    found = computed(cpu=" .5 vcpu", memory="1 GB")

    assert (found["cpu"], found["memory"]) == ("512", "1024")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, ["EC2", "FARGATE", "MANAGED_INSTANCES"], id="all"),
        pytest.param({"networkMode": "host"}, ["EC2", "MANAGED_INSTANCES"], id="not Fargate"),
        pytest.param(
            {"runtimePlatform": {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}},
            ["EC2", "FARGATE"],
            id="Windows",
        ),
    ],
)
def test_compatibilities_say_where_tasks_can_run(
    change: dict[str, Any], expected: list[str]
) -> None:
    assert computed(**change)["compatibilities"] == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, set(), id="nothing more"),
        pytest.param({"taskRoleArn": ROLE}, {f"{CAPABILITY}.task-iam-role"}, id="task role"),
        pytest.param(
            {"executionRoleArn": ROLE, **logs("awslogs", **AWSLOGS)},
            {
                f"{CAPABILITY}.logging-driver.awslogs",
                f"{CAPABILITY}.docker-remote-api.1.19",
                "ecs.capability.execution-role-awslogs",
            },
            id="awslogs",
        ),
        pytest.param(
            {"executionRoleArn": ROLE, **app(image=ECR)},
            {f"{CAPABILITY}.ecr-auth", "ecs.capability.execution-role-ecr-pull"},
            id="ECR",
        ),
        pytest.param(
            sidecar(
                {"healthCheck": {"command": ["CMD", "true"]}},
                dependsOn=[{"containerName": "app", "condition": "HEALTHY"}],
            ),
            {"ecs.capability.container-ordering", "ecs.capability.container-health-check"},
            id="order and health",
        ),
        pytest.param(
            {"pidMode": "task"}, {"ecs.capability.pid-ipc-namespace-sharing"}, id="PID namespace"
        ),
        pytest.param(
            app(restartPolicy={"enabled": True}),
            {"ecs.capability.container-restart-policy"},
            id="restarts",
        ),
        pytest.param(app(restartPolicy={"enabled": False}), set(), id="no restarts"),
        pytest.param(
            secret(SECRET), {"ecs.capability.secrets.asm.environment-variables"}, id="secret"
        ),
        pytest.param(
            secret("/k"), {"ecs.capability.secrets.ssm.environment-variables"}, id="parameter"
        ),
        pytest.param(
            app(environmentFiles=[{"type": "s3", "value": "arn:aws:s3:::b/k.env"}]),
            {"ecs.capability.env-files.s3"},
            id="environment file",
        ),
    ],
)
def test_attributes_say_what_a_host_needs(change: dict[str, Any], expected: set[str]) -> None:
    names = [attribute["name"] for attribute in computed(**change)["requiresAttributes"]]

    assert set(names) == ALWAYS | expected
    assert len(set(names)) == len(names)
