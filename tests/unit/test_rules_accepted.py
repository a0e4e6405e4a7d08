"""What RegisterTaskDefinition takes for Fargate."""

from typing import Any

import pytest

from fargate_agent.controlplane.rules.definition import check_definition
from fargate_agent.controlplane.rules.draft import Draft
from tests.unit.test_rules_texts import (
    ACCOUNT,
    AWSLOGS,
    ROLE,
    app,
    definition,
    efs,
    linux,
    logs,
    ports,
    proxy,
    secret,
    sidecar,
    volume,
)

SECRET = f"arn:aws:secretsmanager:us-east-1:{ACCOUNT}:secret:name-AbCdEf"
PROXY = {
    "ProxyIngressPort": "15000",
    "ProxyEgressPort": "15001",
    "AppPorts": "80",
    "IgnoredUID": "1337",
}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"taskRoleArn": "short-name"}, id="role by name"),
        pytest.param({"executionRoleArn": f"arn:aws-cn:iam::{ACCOUNT}:role/a/b"}, id="role's path"),
        pytest.param({"pidMode": "task"}, id="one pid namespace"),
        pytest.param({"cpu": "32 vCPU", "memory": "244 GB"}, id="32 vCPU"),
        pytest.param({"ephemeralStorage": {"sizeInGiB": 21}}, id="least storage"),
        pytest.param({"ephemeralStorage": {"sizeInGiB": 200}}, id="most storage"),
        pytest.param({"enableFaultInjection": True}, id="fault injection"),
        pytest.param({"runtimePlatform": {"cpuArchitecture": "ARM64"}}, id="ARM"),
        pytest.param(
            {"runtimePlatform": {"operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}}, id="Windows"
        ),
        pytest.param(proxy(**PROXY), id="proxy"),
        pytest.param(app(image=f"busybox@sha256:{'0' * 64}"), id="digest"),
        pytest.param(app(image=f"host:5000/a/{'b' * 200}:1.0_x-y"), id="long image"),
        pytest.param(app(stopTimeout=120, startTimeout=120), id="longest timeouts"),
        pytest.param(app(cpu=1024, memory=2048, memoryReservation=2048), id="all of the task"),
        pytest.param(app(user="1000:1000", workingDirectory="/x", interactive=True), id="user"),
        pytest.param(app(healthCheck={"command": ["CMD-SHELL", "true"]}), id="health check"),
        pytest.param(app(healthCheck={"command": ["NONE"]}), id="no health check"),
        pytest.param(app(restartPolicy={"enabled": True, "ignoredExitCodes": [0]}), id="restarts"),
        pytest.param(app(privileged=False, links=[], dnsServers=[]), id="said to be absent"),
        pytest.param(
            ports({"containerPort": 53}, {"containerPort": 53, "protocol": "udp"}),
            id="a port of each protocol",
        ),
        pytest.param(
            ports({"containerPort": 80, "hostPort": 0}, {"containerPortRange": "81-90"}),
            id="range beside a port",
        ),
        pytest.param(linux(capabilities={"add": ["SYS_PTRACE"], "drop": ["ALL"]}), id="ptrace"),
        pytest.param(linux(initProcessEnabled=True), id="init process"),
        pytest.param(
            linux(tmpfs=[{"containerPath": "/t", "size": 1, "mountOptions": ["mode=1777", "ro"]}]),
            id="tmpfs",
        ),
        pytest.param(
            app(ulimits=[{"name": "core", "softLimit": -1, "hardLimit": -1}]), id="unlimited core"
        ),
        pytest.param(
            app(
                systemControls=[
                    {"namespace": "net.core.somaxconn", "value": "1"},
                    {"namespace": "kernel.shm_rmid_forced", "value": "1"},
                    {"namespace": "fs.mqueue.msg_max", "value": "1"},
                ]
            ),
            id="system controls",
        ),
        pytest.param(secret(SECRET), id="whole secret"),
        pytest.param(secret(f"{SECRET}:username::"), id="key of a secret"),
        pytest.param(secret(f"{SECRET}::AWSPREVIOUS:"), id="stage of a secret"),
        pytest.param(secret(f"{SECRET}:::0-1-2"), id="version of a secret"),
        pytest.param(secret(f"{SECRET}:key:AWSPREVIOUS:0-1-2"), id="stage and version of a secret"),
        *(
            pytest.param(secret(f"{SECRET}{':' * count}"), id=f"secret with {count} colons")
            for count in (1, 2, 3)
        ),
        pytest.param(secret("name"), id="parameter"),
        pytest.param(secret("/path/to/name"), id="path of a parameter"),
        pytest.param(secret(f"arn:aws:ssm:eu-west-1:{ACCOUNT}:parameter/a/b"), id="parameter ARN"),
        pytest.param(
            secret("arn:aws:ssm:us-east-1:111111111111:parameter/k"),
            id="parameter of another account, where none is set",
        ),
        pytest.param(secret("/path/to/name:3"), id="version of a parameter"),
        pytest.param(secret("name:label-1"), id="label of a parameter"),
        pytest.param(
            secret(f"arn:aws:ssm:eu-west-1:{ACCOUNT}:parameter/a/b:3"), id="version by ARN"
        ),
        pytest.param({"executionRoleArn": ROLE, **logs("awslogs", **AWSLOGS)}, id="awslogs"),
        pytest.param(
            {
                "executionRoleArn": ROLE,
                **app(
                    logConfiguration={
                        "logDriver": "splunk",
                        "options": {"splunk-url": "https://s"},
                        "secretOptions": [{"name": "splunk-token", "valueFrom": "/token"}],
                    }
                ),
            },
            id="splunk",
        ),
        pytest.param(
            sidecar(
                {"logConfiguration": {"logDriver": "awsfirelens"}},
                firelensConfiguration={
                    "type": "fluentbit",
                    "options": {"config-file-type": "file", "config-file-value": "/x.conf"},
                },
            ),
            id="firelens",
        ),
        pytest.param(volume(), id="scratch volume"),
        pytest.param(volume(host={}), id="scratch volume of the host"),
        pytest.param(volume(configuredAtLaunch=True), id="volume configured at launch"),
        pytest.param(efs(), id="EFS"),
        pytest.param(
            efs(
                transitEncryption="ENABLED",
                transitEncryptionPort=2049,
                rootDirectory="/",
                authorizationConfig={"accessPointId": "fsap-1", "iam": "ENABLED"},
            ),
            id="EFS access point",
        ),
        pytest.param(
            {
                "taskRoleArn": ROLE,
                **volume(s3filesVolumeConfiguration={"fileSystemArn": "arn:aws:s3files:::fs/1"}),
            },
            id="S3 files",
        ),
    ],
)
def test_definition_that_fargate_takes_is_taken(change: dict[str, Any]) -> None:
    check_definition(Draft(definition(**change), ACCOUNT))
