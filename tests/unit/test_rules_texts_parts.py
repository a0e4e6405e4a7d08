"""What RegisterTaskDefinition says about the parts of containers, to the letter.

Source: texts as measured on the ECS API in August and September 2026.
"""

from typing import Any

import pytest

from fargate_agent.controlplane.errors import ApiError
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
    secret,
    sidecar,
    volume,
)

NETWORK = [
    pytest.param(
        app(links=["other"]), "Links are not supported when networkMode=awsvpc.", id="links"
    ),
    pytest.param(
        app(hostname="h"),
        "hostname is not supported on container when networkMode=awsvpc.",
        id="hostname",
    ),
    pytest.param(
        app(disableNetworking=True),
        "Disable Networking is not supported on container when networkMode=awsvpc.",
        id="disabled networking",
    ),
    pytest.param(
        app(dnsServers=["10.0.0.2"]),
        "DNS servers are not supported on container when networkMode=awsvpc.",
        id="DNS servers",
    ),
    pytest.param(
        app(extraHosts=[{"hostname": "h", "ipAddress": "10.0.0.2"}]),
        "Extra hosts are not supported on container when networkMode=awsvpc.",
        id="extra hosts",
    ),
    pytest.param(
        ports({"containerPort": 80, "hostPort": 8080}),
        "When networkMode=awsvpc, the host ports and container ports in port mappings must match.",
        id="other host port",
    ),
    pytest.param(
        ports({"containerPort": 8085}, {"containerPort": 8085, "protocol": "tcp"}),
        "TCP container port '8085' is used multiple times in task when networkMode=awsvpc.",
        id="port twice",
    ),
    pytest.param(
        ports({"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}),
        "When networkMode=awsvpc, port mapping name is already used",
        id="port name twice",
    ),
    pytest.param(
        ports({"containerPortRange": "90-80"}),
        "Invalid 'containerPortRange' setting for container 'app'.",
        id="port range backwards",
    ),
    pytest.param(
        ports({"containerPortRange": "80-90", "containerPort": 80}),
        "Invalid port mapping for container 'app', cannot specify both single port and port range.",
        id="port and range",
    ),
]

LINUX = [
    pytest.param(
        linux(capabilities={"add": ["NET_ADMIN"]}),
        "NET_ADMIN is not allowed on Fargate.",
        id="capability",
    ),
    pytest.param(
        linux(devices=[{"hostPath": "/dev/kvm"}]),
        "Fargate compatible task definitions do not support devices",
        id="devices",
    ),
    pytest.param(
        linux(sharedMemorySize=64),
        "Fargate compatible task definitions do not support sharedMemorySize",
        id="shared memory",
    ),
    pytest.param(
        linux(maxSwap=0),
        "Fargate compatible task definitions do not support maxSwap",
        id="swap",
    ),
]

SECRETS = [
    pytest.param(
        app(secrets=[{"name": "KEY", "valueFrom": "/k"}]),
        "When you are specifying container secrets, you must also specify a value for "
        "'executionRoleArn'.",
        id="secret without role",
    ),
    pytest.param(
        secret("name:json-key::"),
        "The Systems Manager parameter name specified for secret KEY is invalid.",
        id="secret of Secrets Manager by bare name",
    ),
    *(
        pytest.param(
            app(repositoryCredentials={"credentialsParameter": login}),
            "The credentialsParameter of container 'app' must be the ARN or the name of a secret "
            "of Secrets Manager.",
            id=f"login at {login}",
        )
        for login in (
            "two words",
            "arn:aws:ssm:us-east-1:111111111111:parameter/k",
            "arn:aws:secretsmanager:a.b/:111111111111:secret:k",
            "arn:aws:secretsmanager:us-east-1:111111111111:secret:k:user::",
        )
    ),
    pytest.param(
        app(environmentFiles=[{"type": "s3", "value": "arn:aws:s3:::b/k.env"}] * 11),
        "The maximum number of environment files was exceeded. Specify ten or less and try again.",
        id="environment files",
    ),
    pytest.param(
        app(environmentFiles=[{"type": "s3", "value": "s3://b/k.env"}]),
        "Invalid arn syntax.",
        id="environment file by URL",
    ),
    pytest.param(
        {
            "executionRoleArn": ROLE,
            **app(secrets=[{"name": "KEY", "valueFrom": f"/{number}"} for number in range(2)]),
        },
        "Duplicate secret names found: KEY. Each secret name must be unique.",
        id="secret twice",
    ),
    pytest.param(
        {
            "executionRoleArn": ROLE,
            **app(
                secrets=[{"name": "KEY", "valueFrom": "/k"}],
                environment=[{"name": "KEY", "value": "v"}],
            ),
        },
        "The secret name must be unique and not shared with any new or existing environment "
        "variables set on the container, such as 'KEY'.",
        id="secret and variable",
    ),
]

TOGETHER = [
    pytest.param(
        app(dependsOn=[{"containerName": "nope", "condition": "START"}]),
        "Cannot depend on container + 'nope' because it does not exist",
        id="unknown dependency",
    ),
    *(
        pytest.param(
            sidecar({}, dependsOn=[{"containerName": "app", "condition": condition}]),
            "A dependency container with SUCCESS or COMPLETE condition cannot be an essential "
            "container",
            id=f"essential dependency {condition}",
        )
        for condition in ("SUCCESS", "COMPLETE")
    ),
    pytest.param(
        sidecar({}, dependsOn=[{"containerName": "app", "condition": "HEALTHY"}]),
        "A dependency container with HEALTHY condition must have health check configured",
        id="dependency without health check",
    ),
    pytest.param(
        sidecar(
            {"healthCheck": {"command": ["NONE"]}},
            dependsOn=[{"containerName": "app", "condition": "HEALTHY"}],
        ),
        "A dependency container with HEALTHY condition must have health check configured",
        id="dependency whose health check is none",
    ),
    pytest.param(
        app(volumesFrom=[{"sourceContainer": "nope"}]),
        "Invalid 'volumesFrom' setting. Unknown container: 'nope'.",
        id="volumes of an unknown container",
    ),
]

LOGS = [
    pytest.param(
        logs("json-file"),
        "json-file is not a valid log driver. Must be one of [awslogs,splunk,awsfirelens]",
        id="log driver",
    ),
    pytest.param(
        logs("awslogs", **{"awslogs-region": "us-east-1"}),
        "Log driver awslogs requires options: awslogs-group",
        id="no log group",
    ),
    pytest.param(
        logs("awslogs", **AWSLOGS, tag="x"),
        "Log driver awslogs disallows options: tag",
        id="unknown log option",
    ),
    pytest.param(
        {
            "executionRoleArn": ROLE,
            **logs("awslogs", **{"awslogs-group": "g", "awslogs-region": "us-east-1"}),
        },
        "Fargate requires log configuration options to include awslogs-stream-prefix to support "
        "log driver awslogs.",
        id="no stream prefix",
    ),
    pytest.param(
        logs("awslogs", **AWSLOGS),
        "Fargate requires task definition to have execution role ARN to support log driver "
        "awslogs.",
        id="awslogs without role",
    ),
    pytest.param(
        logs("awsfirelens"),
        "When awsfirelens log driver is specified in log configuration, a firelens configuration "
        "object must be configured in one of the containers.",
        id="no router",
    ),
    pytest.param(
        app(
            firelensConfiguration={
                "type": "fluentbit",
                "options": {"config-file-type": "s3", "config-file-value": "arn:aws:s3:::b/k"},
            }
        ),
        "Fargate launch type does not support FirelensConfiguration config file from 's3'",
        id="router configured from S3",
    ),
]

VOLUMES = [
    pytest.param(
        volume(mounted=False),
        "Volumes [v] are not referenced by any of the containers",
        id="unused volume",
    ),
    pytest.param(
        app(mountPoints=[{"sourceVolume": "nope", "containerPath": "/x"}]),
        "Unknown volume 'nope'.",
        id="unknown volume",
    ),
    pytest.param(
        volume(host={"sourcePath": "/etc"}),
        "Fargate compatible task definitions do not support sourcePath",
        id="host path",
    ),
    pytest.param(
        volume(dockerVolumeConfiguration={"scope": "task"}),
        "Fargate compatible task definitions do not support dockerVolumeConfiguration",
        id="docker volume",
    ),
    pytest.param(
        efs(authorizationConfig={"iam": "ENABLED"}),
        "EFS IAM authorization requires TransitEncryption to be enabled.",
        id="EFS with IAM in the clear",
    ),
    pytest.param(
        efs(transitEncryptionPort=2049),
        "TransitEncryptionPort requires that TransitEncryption is enabled.",
        id="EFS port in the clear",
    ),
    pytest.param(
        efs(
            transitEncryption="ENABLED",
            rootDirectory="/data",
            authorizationConfig={"accessPointId": "fsap-1"},
        ),
        'When using an EFS access point, the root directory must either be set to "/" or be '
        "omitted.",
        id="EFS access point below a directory",
    ),
]


@pytest.mark.parametrize(
    ("change", "text"),
    [*NETWORK, *LINUX, *SECRETS, *TOGETHER, *LOGS, *VOLUMES],
)
def test_part_is_refused_in_the_words_of_aws(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ApiError) as error:
        check_definition(Draft(definition(**change), ACCOUNT))

    assert (error.value.kind, error.value.message) == ("ClientException", text)


def test_parameter_of_another_account_is_refused_where_the_account_is_set() -> None:
    other = secret("arn:aws:ssm:us-east-1:111111111111:parameter/k")

    with pytest.raises(ApiError) as error:
        check_definition(Draft(definition(**other), "222222222222"))

    assert error.value.message == (
        "The Systems Manager parameter ARN has a different account ID than the current account. "
        "The current account ID is 222222222222 and the ARN account ID is 111111111111. "
        "Cross-account access for ARNs is not currently supported."
    )
