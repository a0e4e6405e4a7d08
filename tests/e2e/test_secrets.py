"""What a container is given by reference, from the definition to what the container sees."""

import json
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.aws import ROLE, Front, client, write_keys
from tests.fixtures.cli import Cli, plain_env
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.machine import wait_for
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import DEADLINE_S, Stack, make_stack, tool

# stand-ins for AWS start
pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(120)]

SHOW = 'for name in A B C D E F G H; do eval "echo $name=\\$$name"; done'


@pytest.fixture
async def stack(
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    outside: tuple[Path, str],
    aws_outside: Front,
) -> AsyncIterator[Stack]:
    """A stack whose AWS only tasks can reach, so that it can't assume roles."""
    async with make_stack(
        tmp_path,
        private_containerd,
        outside,
        FARGATE_AGENT_AWS_ENDPOINT_URL=aws_outside.url,
        FARGATE_AGENT_AWS_CREDENTIALS_FILE=str(write_keys(tmp_path)),
        FARGATE_AGENT_ASSUME_ROLES="false",
    ) as made:
        yield made


async def test_container_has_the_values_of_its_secrets_and_environment_files(
    stack: Stack, registry: FakeRegistry, aws_outside: Front, moto: str
) -> None:
    mark = secrets.token_hex(4)
    manager, ssm, s3 = (client(moto, name) for name in ("secretsmanager", "ssm", "s3"))
    text = '{"user": "db-user", "port": 5432}'
    secret = manager.create_secret(Name=f"db-{mark}", SecretString=text)["ARN"]
    ssm.put_parameter(Name=f"/app/{mark}", Value="parameter-value", Type="SecureString")
    s3.create_bucket(Bucket=f"env-{mark}")
    files = {"1.env": b"A=first file\nB=file\nC=file\r\n", "2.env": b"A=second file\nD=a=b\n"}
    for name, content in files.items():
        s3.put_object(Bucket=f"env-{mark}", Key=name, Body=content)
    arn = stack.run(
        tool(
            "main",
            SHOW,
            environment=[{"name": "B", "value": "environment"}],
            environmentFiles=[
                {"type": "s3", "value": f"arn:aws:s3:::env-{mark}/{name}"} for name in files
            ],
            secrets=[
                {"name": "C", "valueFrom": f"{secret}:user::"},
                {"name": "E", "valueFrom": f"{secret}:port::"},
                {"name": "F", "valueFrom": f"/app/{mark}"},
                {"name": "G", "valueFrom": secret},
            ],
        ),
        tool(
            "other",
            SHOW,
            essential=False,
            secrets=[{"name": "H", "valueFrom": f"{secret}:user::"}],
        ),
        executionRoleArn=ROLE,
    )
    task = await stack.wait_for(arn, "STOPPED")

    lines = await stack.logs(arn)
    assert task["containers"][0]["exitCode"] == 0, task
    assert {line for line in lines if line.startswith("main: ") and line[-1] != "="} == {
        "main: A=first file",
        "main: B=environment",
        "main: C=db-user",
        "main: D=a=b",
        "main: E=5432",
        "main: F=parameter-value",
        f"main: G={text}",
    }
    calls = [call.name for call in aws_outside.calls]
    assert sorted(calls) == ["GetObject", "GetObject", "GetParameters", "GetSecretValue"]
    address = task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]
    assert {call.peer for call in aws_outside.calls} == {address}
    assert stack.leftovers(arn) == []


async def test_task_ends_at_once_when_a_value_of_a_container_that_waits_is_not_to_be_had(
    stack: Stack, registry: FakeRegistry, moto: str
) -> None:
    name = f"/gone/{secrets.token_hex(4)}"
    arn = stack.run(
        tool("first", "exec sleep 1000", essential=False),
        tool(
            "second",
            "exit 0",
            dependsOn=[{"containerName": "first", "condition": "SUCCESS"}],
            secrets=[{"name": "A", "valueFrom": name}],
        ),
        executionRoleArn=ROLE,
    )

    task = await stack.wait_for(arn, "STOPPED")

    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"] == (
        "ResourceInitializationError: unable to pull secrets or registry auth: execution resource "
        "retrieval failed: unable to retrieve secrets from ssm: service call has been retried 1 "
        f"time(s): invalid ssm parameters: {name}"
    )
    assert stack.leftovers(arn) == []


async def test_next_agent_fetches_for_the_containers_that_were_not_made_yet(
    stack: Stack, registry: FakeRegistry, aws_outside: Front, moto: str
) -> None:
    name = f"/app/{secrets.token_hex(4)}"
    client(moto, "ssm").put_parameter(Name=name, Value="parameter-value", Type="SecureString")
    waits = "echo ready; while [ ! -e /data/go ]; do sleep 0.1; done"
    arn = stack.run(
        tool(
            "first",
            waits,
            essential=False,
            mountPoints=[{"sourceVolume": "data", "containerPath": "/data"}],
        ),
        tool(
            "second",
            "echo A=$A",
            dependsOn=[{"containerName": "first", "condition": "SUCCESS"}],
            secrets=[{"name": "A", "valueFrom": name}],
        ),
        executionRoleArn=ROLE,
        volumes=[{"name": "data"}],
    )
    await stack.wait_for_log(arn, "ready")

    stack.agent.end(signal.SIGKILL)
    before = len(aws_outside.named("GetParameters"))
    stack.agent.start()
    wait_for(lambda: stack.agent.wrote("connected to"), "the next agent", DEADLINE_S)
    task_id = arn.rpartition("/")[2]
    (stack.root / "agent" / "tasks" / task_id / "storage" / "volumes" / "data" / "go").touch()
    await stack.wait_for(arn, "STOPPED")

    assert (before, len(aws_outside.named("GetParameters"))) == (1, 2)
    assert "second: A=parameter-value" in await stack.logs(arn)
    assert stack.leftovers(arn) == []


async def test_labels_make_files_of_secrets_and_variables_of_their_members(
    stack: Stack, registry: FakeRegistry, moto: str
) -> None:
    mark = secrets.token_hex(4)
    manager = client(moto, "secretsmanager")
    text = '{"user": "db-user", "port": 5432}'
    secret = manager.create_secret(Name=f"db-{mark}", SecretString=text)["ARN"]
    waits = "echo ready; while [ ! -e /data/go ]; do sleep 0.1; done"
    shows = "cat /run/secrets/user /etc/app.conf; echo $A_user:$A_port:$USER_OF_DB:$ALL"
    arn = stack.run(
        tool(
            "main",
            f"{shows}; {waits}; {shows}",
            mountPoints=[{"sourceVolume": "data", "containerPath": "/data"}],
            secrets=[
                {"name": "USER_OF_DB", "valueFrom": f"{secret}:user::"},
                {"name": "ALL", "valueFrom": secret},
            ],
            dockerLabels={
                "fargate.secret-file.USER_OF_DB": "/run/secrets/user",
                "fargate.secret-keys.ALL": "A_",
                "fargate.text-file./etc/app.conf": "\nthe text\n",
            },
        ),
        executionRoleArn=ROLE,
        volumes=[{"name": "data"}],
    )
    await stack.wait_for_log(arn, "ready")
    task_id = arn.rpartition("/")[2]
    tmpfs = stack.root / "agent" / "tasks" / task_id / "secret-files"

    stack.agent.end(signal.SIGKILL)
    left = (tmpfs / "main" / "0").read_text()
    stack.agent.start()
    wait_for(lambda: stack.agent.wrote("connected to"), "the next agent", DEADLINE_S)
    (stack.root / "agent" / "tasks" / task_id / "storage" / "volumes" / "data" / "go").touch()
    task = await stack.wait_for(arn, "STOPPED")

    assert task["containers"][0]["exitCode"] == 0, task
    assert left == "db-user"
    shown = ["main: db-user", "main: the text", "main: db-user:5432::"]
    assert await stack.logs(arn) == [*shown, "main: ready", *shown]
    assert not tmpfs.exists()
    assert stack.leftovers(arn) == []


@pytest.fixture
async def laptop(
    tmp_path: Path, private_containerd: PrivateContainerd, outside: tuple[Path, str]
) -> AsyncIterator[Stack]:
    """A stack that has never heard of AWS."""
    (tmp_path / "bucket" / "app").mkdir(parents=True)
    (tmp_path / "bucket" / "app" / "prod.env").write_text("A=from a file\n")
    async with make_stack(
        tmp_path,
        private_containerd,
        outside,
        FARGATE_AGENT_LOCAL_BUCKETS=json.dumps({"prod-bucket": str(tmp_path / "bucket")}),
    ) as made:
        yield made


async def set_secret(stack: Stack, name: str, value: str) -> None:
    """Set a value as a person would."""
    cli = Cli(plain_env(FARGATE_AGENT_SOCKET=str(stack.socket)))
    done = await cli.run("secrets", "set", name, stdin=value)
    assert (done.code, done.err) == (0, "")


async def test_definition_from_production_gets_the_values_of_a_machine_without_aws(
    laptop: Stack, registry: FakeRegistry
) -> None:
    secret = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-AbC1eF"
    definition = tool(
        "main",
        SHOW,
        environmentFiles=[{"type": "s3", "value": "arn:aws:s3:::prod-bucket/app/prod.env"}],
        secrets=[
            {"name": "C", "valueFrom": f"{secret}:user::"},
            {"name": "D", "valueFrom": "/prod/key"},
            {
                "name": "E",
                "valueFrom": "arn:aws:ssm:eu-west-1:123456789012:parameter/prod/other",
            },
        ],
    )
    first = laptop.run(definition, executionRoleArn=ROLE)
    missing = await laptop.wait_for(first, "STOPPED")
    await set_secret(laptop, "prod/db", '{"user": "db-user"}')
    await set_secret(laptop, "/prod/key", "parameter-value")
    await set_secret(laptop, "prod/other", "other-value")
    second = laptop.run(definition, executionRoleArn=ROLE)
    await laptop.wait_for(second, "STOPPED")

    assert missing["stoppedReason"] == (
        "ResourceInitializationError: unable to pull secrets or registry auth: secrets "
        "/prod/key, prod/db, /prod/other have no value on this machine, which does without AWS: "
        "set each with fargate secrets set NAME"
    )
    lines = await laptop.logs(second)
    assert {line for line in lines if line[-1] != "="} == {
        "main: A=from a file",
        "main: C=db-user",
        "main: D=parameter-value",
        "main: E=other-value",
    }
    log = laptop.agent.log.read_text()
    for value in ("db-user", "parameter-value", "other-value", "from a file"):
        assert value not in log
    assert laptop.leftovers(second) == []
