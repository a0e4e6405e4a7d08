"""What RegisterTaskDefinition refuses without known words, in which order, and for whom."""

from typing import Any

import pytest

from fargate_agent.controlplane.errors import ApiError
from fargate_agent.controlplane.rules.definition import check_definition, is_fargate_compatible
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.rules.fargate import is_ecr_image
from tests.unit.test_rules_texts import (
    ACCOUNT,
    APP,
    AWSLOGS,
    ROLE,
    app,
    definition,
    linux,
    logs,
    ports,
    proxy,
    secret,
    sidecar,
    volume,
)

SECRET = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:name-AbCdEf"
CIRCLE = [
    {**APP, "dependsOn": [{"containerName": "b", "condition": "START"}]},
    {"name": "b", "image": "x", "dependsOn": [{"containerName": "app", "condition": "START"}]},
]


def check(**changes: Any) -> None:
    check_definition(Draft(definition(**changes), ACCOUNT))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        pytest.param(
            {"containerDefinitions": [{**APP, "name": f"c{n}"} for n in range(11)]},
            "at most 10 containers",
            id="containers",
        ),
        pytest.param(app(name="a b"), "Container.name contains", id="name"),
        pytest.param(app(image="a b"), "Container.image contains", id="image"),
        pytest.param(app(image=f"a@sha256:{'0' * 63}"), "Container.image contains", id="digest"),
        pytest.param(app(image="a" * 256), "Container.image contains", id="long image"),
        pytest.param(app(memory=3), "'memory' must be at least 4", id="memory"),
        pytest.param(app(cpu=-1), "'cpu' must not be negative", id="cpu"),
        pytest.param(
            sidecar({"memoryReservation": 2000}, memoryReservation=49),
            "sum of all container 'memoryReservation'",
            id="sum of reservations",
        ),
        pytest.param(
            app(dnsSearchDomains=["local"]), "DNS search domains are not", id="search domains"
        ),
        pytest.param(ports({"containerPort": 65536}), "Invalid port mapping", id="port"),
        pytest.param(ports({"containerPort": 0}), "Invalid port mapping", id="port 0"),
        pytest.param(ports({"hostPort": 80}), "Invalid port mapping", id="no container port"),
        pytest.param(
            ports({"containerPort": 1, "name": "-a"}), "Invalid port mapping name", id="port name"
        ),
        pytest.param(
            ports({"containerPort": 85}, {"containerPortRange": "80-90"}),
            "TCP container port '85' is used multiple times",
            id="port in a range",
        ),
        pytest.param(
            ports(*({"containerPortRange": f"{n}-{n + 1}"} for n in range(1, 203, 2))),
            "Invalid 'containerPortRange'",
            id="port ranges",
        ),
        pytest.param(
            app(restartPolicy={"enabled": True, "ignoredExitCodes": [1] * 51}),
            "'ignoredExitCodes'",
            id="ignored exit codes",
        ),
        pytest.param(app(environment=[{"value": "v"}]), "Environment variable name", id="variable"),
        pytest.param(secret(f"{SECRET}::::"), "Invalid arn syntax", id="four colons"),
        pytest.param(secret(f"{SECRET}:key"), "Invalid arn syntax", id="missing colons"),
        pytest.param(secret("arn:aws:s3:::bucket/key"), "Invalid arn syntax", id="other service"),
        pytest.param(
            secret(f"arn:aws:ssm:us-east-1:{ACCOUNT}:document/d"), "parameter name", id="document"
        ),
        pytest.param(linux(swappiness=60), "do not support swappiness", id="swappiness"),
        pytest.param(
            linux(tmpfs=[{"containerPath": "/t", "size": 0}]), "Invalid 'tmpfs'", id="tmpfs"
        ),
        pytest.param(
            linux(tmpfs=[{"containerPath": "/t", "size": 1, "mountOptions": ["x"]}]),
            "Invalid 'tmpfs'",
            id="option of a tmpfs",
        ),
        pytest.param({"containerDefinitions": CIRCLE}, "form a circle: app, b", id="circle"),
        pytest.param(
            app(dependsOn=[{"containerName": "app", "condition": "START"}]),
            "form a circle: app",
            id="depends on itself",
        ),
        pytest.param(
            app(volumesFrom=[{"sourceContainer": "app"}]),
            "form a circle: app",
            id="takes its own volumes",
        ),
        pytest.param(
            sidecar(
                {"volumesFrom": [{"sourceContainer": "side"}]},
                dependsOn=[{"containerName": "app", "condition": "START"}],
            ),
            "form a circle: app, side",
            id="takes the volumes of what waits for it",
        ),
        pytest.param(app(startTimeout=121), "container start timeout", id="start timeout"),
        pytest.param(
            app(ulimits=[{"name": "nofile", "softLimit": 1, "hardLimit": 1048577}]),
            "1048576 open files",
            id="open files",
        ),
        pytest.param(logs("splunk"), "splunk-url, splunk-token", id="splunk"),
        pytest.param(
            {"executionRoleArn": ROLE, **logs("awslogs", **AWSLOGS, mode="x")},
            "invalid value for option: mode",
            id="log mode",
        ),
        pytest.param(
            {"executionRoleArn": ROLE, **logs("awslogs", **AWSLOGS, **{"max-buffer-size": "ten"})},
            "Log driver awslogs has an invalid value for option: max-buffer-size",
            id="log buffer",
        ),
        *(
            pytest.param(
                sidecar(
                    {
                        "logConfiguration": {
                            "logDriver": "awsfirelens",
                            "options": {"log-driver-buffer-limit": limit},
                        }
                    },
                    firelensConfiguration={"type": "fluentbit"},
                ),
                "Log driver awsfirelens has an invalid value for option: log-driver-buffer-limit",
                id=f"router buffer of {limit}",
            )
            for limit in ("536870913", "9999999999", "-1")
        ),
        pytest.param(
            app(
                logConfiguration={
                    "logDriver": "splunk",
                    "options": {"splunk-url": "https://hec.test"},
                    "secretOptions": [{"name": "splunk-token", "valueFrom": "token"}],
                }
            ),
            "you must also specify a value for 'executionRoleArn'",
            id="splunk secret without role",
        ),
        pytest.param(
            sidecar(
                {"firelensConfiguration": {"type": "fluentd"}},
                firelensConfiguration={"type": "fluentd"},
            ),
            "at most one firelens",
            id="two routers",
        ),
        pytest.param(
            app(firelensConfiguration={"type": "fluentd", "options": {"x": "y"}}),
            "FirelensConfiguration options: x",
            id="option of a router",
        ),
        pytest.param(
            app(firelensConfiguration={"type": "fluentd", "options": {"config-file-type": "file"}}),
            "given together",
            id="router without its file",
        ),
        pytest.param(
            app(healthCheck={"command": ["true"]}), "must start with CMD", id="health command"
        ),
        pytest.param(
            app(healthCheck={"command": ["NONE", "x"]}), "must start with CMD", id="none of what"
        ),
        pytest.param(
            app(healthCheck={"command": []}), "must start with CMD", id="empty health command"
        ),
        pytest.param(
            app(healthCheck={"command": ["CMD", "true"], "interval": 4}),
            "minimum allowed value 5",
            id="health interval",
        ),
        pytest.param(
            app(systemControls=[{"namespace": "vm.swappiness", "value": "1"}]),
            "'systemControls' setting for container 'app': 'vm.swappiness' is no parameter",
            id="system control",
        ),
        pytest.param(
            app(systemControls=[{"namespace": "net.core.somaxconn"}]),
            "'net.core.somaxconn' has no value",
            id="system control without a value",
        ),
        pytest.param(
            app(resourceRequirements=[{"type": "NeuronDevice", "value": "1"}]),
            "NeuronDevice resource requirements",
            id="Neuron device",
        ),
        pytest.param(
            app(credentialSpecs=["credentialspec:x"]), "credentialSpecs", id="credential specs"
        ),
        pytest.param(
            {"trustedExecutionConfiguration": {"isolationMode": "SHARED"}},
            "trustedExecutionConfiguration",
            id="trusted execution",
        ),
        pytest.param(
            proxy(ProxyIngressPort="1"), "Egress port not found", id="proxy's egress port"
        ),
        pytest.param(
            {"volumes": [{"name": "v"}, {"name": "v"}]}, "Volume names must be unique", id="volumes"
        ),
        pytest.param({"volumes": [{"name": "a/b"}]}, "Volume name should be", id="volume"),
        pytest.param(
            app(mountPoints=[{"sourceVolume": "v"}]) | {"volumes": [{"name": "v"}]},
            "MountPoint.containerPath",
            id="mounted nowhere",
        ),
        pytest.param(
            volume(host={"x": "y"}, configuredAtLaunch=True),
            "more than one configuration",
            id="two kinds of volume",
        ),
        pytest.param(
            {"volumes": [{"name": n, "configuredAtLaunch": True} for n in "ab"]},
            "at most one volume configured at launch",
            id="volumes configured at launch",
        ),
        pytest.param(
            volume(s3filesVolumeConfiguration={"fileSystemArn": "x"}),
            "taskRoleArn",
            id="S3 files without role",
        ),
        pytest.param(
            volume(fsxWindowsFileServerVolumeConfiguration={"fileSystemId": "x"}),
            "fsxWindowsFileServerVolumeConfiguration",
            id="FSx",
        ),
    ],
)
def test_definition_that_can_not_be_is_refused(change: dict[str, Any], part: str) -> None:
    with pytest.raises(ApiError) as error:
        check(**change)

    assert part in error.value.message


@pytest.mark.parametrize(
    ("change", "part"),
    [
        pytest.param({"family": "a b", "containerDefinitions": []}, "Family", id="family first"),
        pytest.param(app(name="", essential=False), "Container.name", id="name before essential"),
        pytest.param(
            {"networkMode": "host", **app(essential=False)}, "essential", id="essential, then mode"
        ),
        pytest.param({"networkMode": "host", **app(image="")}, "network mode", id="mode, image"),
        pytest.param({"cpu": None, "memory": None}, "'memoryReservation'", id="container, cpu"),
        pytest.param(
            {"cpu": None, **app(dependsOn=[{"containerName": "x", "condition": "START"}])},
            "Cannot depend",
            id="dependency before cpu",
        ),
        pytest.param(
            {"cpu": None, "memory": None, **app(memory=64)}, "'cpu'", id="cpu before memory"
        ),
        pytest.param(
            {"cpu": "256", "memory": "9999", "ephemeralStorage": {"sizeInGiB": 1}},
            "No Fargate configuration",
            id="size before storage",
        ),
        pytest.param(
            {"ephemeralStorage": {"sizeInGiB": 1}, "volumes": [{"name": "v"}]},
            "EphemeralStorage",
            id="storage before volumes",
        ),
    ],
)
def test_first_of_two_faults_is_told(change: dict[str, Any], part: str) -> None:
    with pytest.raises(ApiError) as error:
        check(**change)

    assert part in error.value.message


FOR_OTHERS = [
    pytest.param({"networkMode": "bridge"}, id="bridge"),
    pytest.param({"cpu": None}, id="no cpu"),
    pytest.param({"memory": "9999"}, id="other pair"),
    pytest.param({"pidMode": "host"}, id="pid mode"),
    pytest.param({"ipcMode": "task"}, id="ipc mode"),
    pytest.param(app(stopTimeout=121), id="long stop timeout"),
    pytest.param(app(privileged=True), id="privileged"),
    pytest.param(linux(sharedMemorySize=128), id="shared memory"),
    *(
        pytest.param(logs(driver), id=driver)
        for driver in ("json-file", "journald", "syslog", "gelf", "fluentd")
    ),
    pytest.param(logs("awslogs", **AWSLOGS), id="awslogs without role"),
    *(
        pytest.param(
            {"executionRoleArn": ROLE, **logs("awslogs", **AWSLOGS, **{option: "x"})}, id=option
        )
        for option in ("awslogs-create-stream", "awslogs-endpoint", "awslogs-format")
    ),
    pytest.param(volume(host={"sourcePath": "/etc"}), id="host path"),
]


@pytest.mark.parametrize("change", FOR_OTHERS)
def test_what_only_fargate_refuses_is_registered_without_it(change: dict[str, Any]) -> None:
    draft = Draft(definition(**change, requiresCompatibilities=None), ACCOUNT)

    check_definition(draft)

    assert not is_fargate_compatible(draft)


@pytest.mark.parametrize("change", FOR_OTHERS)
def test_what_only_fargate_refuses_is_refused_with_it(change: dict[str, Any]) -> None:
    with pytest.raises(ApiError):
        check(**change)


def test_definition_that_fits_fargate_is_compatible_without_asking() -> None:
    draft = Draft(definition(requiresCompatibilities=None), ACCOUNT)

    check_definition(draft)

    assert is_fargate_compatible(draft)


def test_bridge_lets_containers_use_the_same_port() -> None:
    mapping = {"portMappings": [{"containerPort": 80, "hostPort": 8080}]}

    check(
        networkMode="bridge",
        requiresCompatibilities=None,
        **sidecar(mapping, portMappings=[{"containerPort": 80}]),
    )


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com/web:1", True),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/web", True),
        ("123456789012.dkr-ecr.us-east-1.on.aws/web", True),
        ("public.ecr.aws/nginx/nginx", False),
        ("busybox", False),
    ],
)
def test_image_of_a_private_ecr_registry_is_known_by_its_name(image: str, expected: bool) -> None:
    assert is_ecr_image(image) is expected
