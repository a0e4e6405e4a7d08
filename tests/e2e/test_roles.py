"""The execution role of a task, from its definition to what the logger and the owner see of it."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from tests.fixtures.aws import ACCESS_KEY, REGION, ROLE, SECRET_KEY, Front, client, write_keys
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import DEADLINE_S, Stack, make_stack, tool
from tests.fixtures.tmds import BASE, Answer, fetch

# stand-ins for AWS start
pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(120)]

HEC = "http://10.213.64.9:8088"


@pytest.fixture
async def stack(
    tmp_path: Path, private_containerd: PrivateContainerd, outside: tuple[Path, str], front: Front
) -> AsyncIterator[Stack]:
    """A stack whose AWS is on the loopback of the host."""
    async with make_stack(
        tmp_path,
        private_containerd,
        outside,
        FARGATE_AGENT_AWS_ENDPOINT_URL=front.url,
        FARGATE_AGENT_AWS_CREDENTIALS_FILE=str(write_keys(tmp_path)),
    ) as made:
        yield made


@pytest.fixture
async def far_stack(
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    outside: tuple[Path, str],
    aws_outside: Front,
) -> AsyncIterator[Stack]:
    """A stack whose AWS only tasks can reach, so that no role can be assumed."""
    async with make_stack(
        tmp_path,
        private_containerd,
        outside,
        FARGATE_AGENT_AWS_ENDPOINT_URL=aws_outside.url,
        FARGATE_AGENT_AWS_CREDENTIALS_FILE=str(write_keys(tmp_path)),
        FARGATE_AGENT_ASSUME_ROLES="false",
    ) as made:
        yield made


async def fetch_when_there(netns: Path, path: str, status: int = 503) -> Answer:
    """Ask until an agent answers with this status."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with suppress(aiohttp.ClientError):
                answer = await fetch(netns, path)
                if answer.status == status:
                    return answer
            await asyncio.sleep(0.05)


async def test_keys_of_the_task_role_are_there_at_once_and_again_after_the_agent_s_restart(
    stack: Stack, registry: FakeRegistry, front: Front
) -> None:
    execution = f"{ROLE}-execution"
    arn = stack.run(
        tool("main", "env; exec sleep 1000"), taskRoleArn=ROLE, executionRoleArn=execution
    )
    await stack.wait_for(arn, "RUNNING")
    task_id = arn.rpartition("/")[2]
    record = (stack.root / "agent" / "records" / f"{task_id}.json").read_text()
    message = json.loads(record)["message"]
    netns = stack.root / "netns" / f"fargate-{task_id}"
    path = f"/v2/credentials/{message['role_credentials']['credentials_id']}"

    first = await fetch(netns, path)
    stack.agent.end(signal.SIGKILL)
    stack.control_plane.pause()
    stack.agent.start()
    waiting = await fetch_when_there(netns, path)
    stack.control_plane.resume()
    second = await fetch_when_there(netns, path, 200)
    execution_id = message["execution_role_credentials"]["credentials_id"]
    others = await fetch(netns, f"/v2/credentials/{execution_id}")

    assert (first.status, waiting.status, others.status) == (200, 503, 400)
    assert first.json["RoleArn"] == second.json["RoleArn"] == ROLE
    assert {call.request["RoleSessionName"] for call in front.calls} == {task_id}
    assert {call.request["RoleArn"] for call in front.calls} == {ROLE, execution}
    output = "".join(await stack.logs(arn))
    assert f"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI={path}" in output
    assert execution_id not in output
    kept = record + stack.agent.log.read_text() + output
    for secret in (SECRET_KEY, first.json["SecretAccessKey"], second.json["SecretAccessKey"]):
        assert secret not in kept
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")
    assert stack.leftovers(arn) == []


async def test_secret_of_a_log_option_is_read_through_the_interface_of_the_task(
    tmp_path: Path, far_stack: Stack, registry: FakeRegistry, aws_outside: Front, moto: str
) -> None:
    secret = client(moto, "secretsmanager").create_secret(
        Name=f"splunk-{tmp_path.name}", SecretString='{"token": "splunk-secret"}'
    )["ARN"]
    log = {
        "logDriver": "splunk",
        "options": {"splunk-url": HEC},
        "secretOptions": [{"name": "splunk-token", "valueFrom": f"{secret}:wrong::"}],
    }
    arn = far_stack.run(
        tool("main", "exec sleep 1000", logConfiguration=log), executionRoleArn=ROLE
    )
    task = await far_stack.wait_for(arn, "STOPPED")

    details = task["attachments"][0]["details"]
    address = next(d["value"] for d in details if d["name"] == "privateIPv4Address")
    assert task["stoppedReason"] == (
        "ResourceInitializationError: unable to pull secrets or registry auth: "
        "execution resource retrieval failed: unable to retrieve secret from asm: "
        "service call has been retried 1 time(s): "
        "retrieved secret from Secrets Manager did not contain json key wrong"
    )
    assert [(c.name, c.key, c.peer) for c in aws_outside.calls] == [
        ("GetSecretValue", ACCESS_KEY, address)
    ]
    assert "splunk-secret" not in far_stack.agent.log.read_text()
    assert far_stack.leftovers(arn) == []


async def test_awslogs_sends_with_the_execution_role_through_the_interface_of_the_task(
    tmp_path: Path, far_stack: Stack, registry: FakeRegistry, aws_outside: Front, moto: str
) -> None:
    options = {
        "awslogs-group": f"/app/{tmp_path.name}",
        "awslogs-create-group": "true",
        "awslogs-region": REGION,
        "awslogs-stream-prefix": "app",
    }
    log = {"logDriver": "awslogs", "options": options}
    arn = far_stack.run(
        tool("main", "echo one; echo two", logConfiguration=log), executionRoleArn=ROLE
    )
    task = await far_stack.wait_for(arn, "STOPPED")

    stream = f"app/main/{arn.rpartition('/')[2]}"
    events = client(moto, "logs").get_log_events(
        logGroupName=options["awslogs-group"], logStreamName=stream
    )["events"]
    address = task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]
    assert [event["message"] for event in events] == ["one", "two"]
    assert {(call.key, call.peer) for call in aws_outside.calls} == {(ACCESS_KEY, address)}
    assert await far_stack.logs(arn) == ["main: one", "main: two"]
    assert far_stack.leftovers(arn) == []


READ_KEY = f"wget -q -O - {BASE}$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"


async def test_definition_of_production_runs_on_a_machine_without_aws_and_keeps_its_output(
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    outside: tuple[Path, str],
    registry: FakeRegistry,
) -> None:
    options = {"awslogs-group": "/app", "awslogs-region": REGION, "awslogs-stream-prefix": "app"}
    log = {"logDriver": "awslogs", "options": options}
    endpoint = '[local_roles."*"]\nendpoint_url = "http://aws.test"\n'
    async with make_stack(
        tmp_path,
        private_containerd,
        outside,
        subnet_toml=endpoint,
        FARGATE_AGENT_AWS="local",
        FARGATE_AGENT_LOG_COPY="false",
    ) as stack:
        script = f'{READ_KEY}; echo; echo "at $AWS_ENDPOINT_URL"; exec sleep 1000'
        container = tool("main", script, logConfiguration=log)
        arn = stack.run(container, taskRoleArn=ROLE, executionRoleArn=ROLE)
        lines = await stack.wait_for_log(arn, "main: at http://aws.test")
        task = await stack.wait_for(arn, "RUNNING")
        stack.stop(arn)
        await stack.wait_for(arn, "STOPPED")

    keys = next(line.removeprefix("main: ") for line in lines if "AccessKeyId" in line)
    assert json.loads(keys)["AccessKeyId"].startswith("ASIA")
    assert task["containers"][0]["lastStatus"] == "RUNNING"
