"""What RegisterTaskDefinition says when it refuses a definition: AWS's texts, to the letter.

Source: texts as measured on the ECS API in August and September 2026.
"""

import json
from typing import Any

import pytest

from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.rules.definition import check_definition
from fargate_agent.controlplane.rules.draft import Draft

ACCOUNT = "000000000000"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/execution"
APP = {"name": "app", "image": "busybox"}
FARGATE = {
    "family": "web",
    "networkMode": "awsvpc",
    "requiresCompatibilities": ["FARGATE"],
    "cpu": "1024",
    "memory": "2048",
    "containerDefinitions": [APP],
}
AWSLOGS = {"awslogs-group": "g", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p"}


def definition(**changes: Any) -> dict[str, Any]:
    """A definition for Fargate with some members changed; None takes one away."""
    return {name: member for name, member in {**FARGATE, **changes}.items() if member is not None}


def app(**members: Any) -> dict[str, Any]:
    """The change that gives the only container more members."""
    return {"containerDefinitions": [{**APP, **members}]}


def sidecar(of: dict[str, Any], **members: Any) -> dict[str, Any]:
    """The change that adds a second container `side`, not essential, to the first."""
    side = {"name": "side", "image": "busybox", "essential": False, **members}
    return {"containerDefinitions": [{**APP, **of}, side]}


def linux(**parameters: Any) -> dict[str, Any]:
    return app(linuxParameters=parameters)


def logs(driver: str, **options: str) -> dict[str, Any]:
    return app(logConfiguration={"logDriver": driver, "options": options})


def volume(*, mounted: bool = True, **members: Any) -> dict[str, Any]:
    points = [{"sourceVolume": "v", "containerPath": "/v"}] if mounted else []
    return {"volumes": [{"name": "v", **members}], **app(mountPoints=points)}


def efs(**members: Any) -> dict[str, Any]:
    return volume(efsVolumeConfiguration={"fileSystemId": "fs-1", **members})


def secret(source: str) -> dict[str, Any]:
    return {
        "executionRoleArn": ROLE,
        **app(secrets=[{"name": "KEY", "valueFrom": source}]),
    }


def ports(*mappings: dict[str, Any]) -> dict[str, Any]:
    return app(portMappings=list(mappings))


def proxy(**properties: str) -> dict[str, Any]:
    pairs = [{"name": name, "value": value} for name, value in properties.items()]
    return {"proxyConfiguration": {"containerName": "app", "properties": pairs}}


TASK = [
    pytest.param({"family": "a b"}, "Family contains invalid characters.", id="family"),
    pytest.param({"family": "a" * 256}, "Family contains invalid characters.", id="long family"),
    pytest.param({"taskRoleArn": "a b"}, "Role is not valid", id="task role"),
    pytest.param({"executionRoleArn": "arn:aws:iam::1:user/x"}, "Role is not valid", id="no role"),
    pytest.param(
        {"networkMode": "bridge"}, "Fargate only supports network mode ‘awsvpc’.", id="bridge"
    ),
    pytest.param(
        {"networkMode": None}, "Fargate only supports network mode ‘awsvpc’.", id="no network mode"
    ),
    pytest.param(
        {"containerDefinitions": []}, "Container list cannot be empty.", id="no containers"
    ),
    pytest.param(
        {"placementConstraints": [{"type": "memberOf", "expression": "x"}]},
        "Fargate compatible task definitions do not support constraints",
        id="placement constraints",
    ),
    pytest.param(
        {"cpu": None}, "Fargate requires that 'cpu' be defined at the task level.", id="no cpu"
    ),
    pytest.param(
        {"cpu": "lots"},
        "Invalid 'cpu' setting for task. For more information, see the Troubleshooting section of "
        "the Amazon ECS Developer Guide.",
        id="cpu that is no number",
    ),
    pytest.param(
        {"memory": None, **app(memory=64)},
        "Fargate requires that 'memory' be defined at the task level.",
        id="no memory",
    ),
    pytest.param(
        {"cpu": "256", "memory": "4096"},
        "No Fargate configuration exists for given values: 256 CPU, 4096 memory. See the Amazon "
        "ECS documentation for the valid values.",
        id="pair",
    ),
    pytest.param(
        {"cpu": "512", "runtimePlatform": {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}},
        "No Fargate configuration exists for given values: 512 CPU, 2048 memory. See the Amazon "
        "ECS documentation for the valid values.",
        id="small Windows",
    ),
    pytest.param(
        {
            "runtimePlatform": {
                "operatingSystemFamily": "WINDOWS_SERVER_2022_CORE",
                "cpuArchitecture": "ARM64",
            }
        },
        "No Fargate configuration exists for given values: 1024 CPU, 2048 memory. See the Amazon "
        "ECS documentation for the valid values.",
        id="Windows on ARM",
    ),
    pytest.param(
        {"pidMode": "host"},
        "Tasks using the Fargate launch type do not support pidMode 'host'. The supported value "
        "for pidMode is 'task'.",
        id="pid mode",
    ),
    pytest.param(
        {"ipcMode": "none"},
        "Fargate compatible task definitions do not support ipcMode",
        id="ipc mode",
    ),
    pytest.param(
        {"proxyConfiguration": {"containerName": "envoy"}},
        "Proxy container [envoy] does not exist.",
        id="proxy container",
    ),
    pytest.param(proxy(ProxyEgressPort="15001"), "Ingress port not found", id="proxy port"),
    pytest.param(
        {"inferenceAccelerators": [{"deviceName": "d", "deviceType": "t"}]},
        "Unsupported field 'inferenceAccelerators'.",
        id="inference accelerators",
    ),
    pytest.param(
        {"ephemeralStorage": {"sizeInGiB": 20}},
        "EphemeralStorage size should be at least 21",
        id="little storage",
    ),
    pytest.param(
        {"ephemeralStorage": {"sizeInGiB": 201}},
        "EphemeralStorage size should be at most 200",
        id="much storage",
    ),
    pytest.param(
        {"ephemeralStorage": {"sizeInGiB": 30}, "requiresCompatibilities": ["EC2"]},
        "Tasks using the EC2 launch type do not support EphemeralStorage.",
        id="storage without Fargate",
    ),
]

CONTAINER = [
    pytest.param(
        {"containerDefinitions": [{"image": "x"}]},
        "Container.name should not be null or empty.",
        id="no name",
    ),
    pytest.param(
        {"containerDefinitions": [APP, APP]},
        "Container names must be unique within a task definition",
        id="name twice",
    ),
    pytest.param(app(image=""), "Container.image should not be null or empty.", id="no image"),
    pytest.param(
        app(cpu=1025),
        "The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'.",
        id="cpu sum",
    ),
    pytest.param(
        app(memory=2049),
        "The 'memory' setting for container 'app' is greater than for the task.",
        id="large container",
    ),
    pytest.param(
        {"memory": None},
        "Invalid setting for container 'app'. At least one of 'memory' or 'memoryReservation' must "
        "be specified.",
        id="no memory anywhere",
    ),
    pytest.param(
        app(memory=64, memoryReservation=65),
        "Invalid setting for container 'app'. 'memory' must be greater than or equal to "
        "'memoryReservation'.",
        id="reservation over limit",
    ),
    pytest.param(
        app(essential=False),
        "Task definition doesn't have any essential container.",
        id="none essential",
    ),
    pytest.param(
        app(restartPolicy={"enabled": True, "restartAttemptPeriod": 59}),
        "The 'restartAttemptPeriod' setting for container 'app' must be between 60 and 1800.",
        id="restart period",
    ),
    pytest.param(
        app(startTimeout=1),
        "Granular start timeout on container 'app' must be at least 2 seconds.",
        id="short start timeout",
    ),
    pytest.param(
        app(stopTimeout=1),
        "Granular stop timeout on container 'app' must be at least 2 seconds.",
        id="short stop timeout",
    ),
    pytest.param(
        app(stopTimeout=121),
        "Tasks using the Fargate launch type must have a container stop timeout of less than 120 "
        "seconds.",
        id="long stop timeout",
    ),
    *(
        pytest.param(
            app(healthCheck={"command": ["CMD", "true"], member: most + 1}),
            f"Health check {member} must be less than or equal to the maximum allowed value {most} "
            "for container 'app'",
            id=f"health check {member}",
        )
        for member, most in (
            ("interval", 300),
            ("timeout", 60),
            ("retries", 10),
            ("startPeriod", 300),
        )
    ),
    pytest.param(
        app(privileged=True),
        "Fargate requires that the ‘privileged’ setting be ‘false’ at the container level.",
        id="privileged",
    ),
    pytest.param(
        app(dockerSecurityOptions=["no-new-privileges"]),
        "Fargate compatible task definitions do not support dockerSecurityOptions",
        id="security options",
    ),
    pytest.param(
        app(resourceRequirements=[{"type": "GPU", "value": "1"}]),
        "Tasks using the Fargate launch type do not support GPU resource requirements.",
        id="GPU",
    ),
    pytest.param(
        app(ulimits=[{"name": "nofile", "softLimit": 2, "hardLimit": 1}]),
        "Soft limit exceeds hard limit for ulimit nofile",
        id="ulimit",
    ),
    pytest.param(
        app(image="123456789012.dkr.ecr.us-east-1.amazonaws.com/web:1"),
        "Fargate requires task definition to have execution role ARN to support ECR images.",
        id="ECR image without role",
    ),
]


@pytest.mark.parametrize(
    ("change", "text"),
    [*TASK, *CONTAINER],
)
def test_definition_is_refused_in_the_words_of_aws(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ApiError) as error:
        check_definition(Draft(definition(**change), ACCOUNT))

    assert (error.value.kind, error.value.message) == ("ClientException", text)


@pytest.mark.parametrize("character", ["x", "é", '"'])
def test_definition_may_have_64_kib_and_no_more(character: str) -> None:
    """As JSON without spaces, in UTF-8, and without its tags."""

    def length(request: dict[str, Any]) -> int:
        return len(json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode())

    def variable(value: str) -> dict[str, Any]:
        return definition(**app(environment=[{"name": "V", "value": value}]))

    room = 65_536 - length(variable(character))
    largest = variable(character + "x" * room)

    check_definition(Draft({**largest, "tags": [{"key": "k", "value": "v"}]}, ACCOUNT))
    with pytest.raises(ApiError) as error:
        check_definition(Draft(variable(character + "x" * (room + 1)), ACCOUNT))

    assert (error.value.kind, error.value.message) == (
        "ClientException",
        "Actual length: '65537'. Max allowed length is '65536' bytes.",
    )
