"""awslogs from RunTask to CloudWatch Logs: keys of the execution role, and the task's interface."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.aws import ACCESS_KEY, REGION, ROLE, Front, client, write_keys
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import Stack, make_stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root]


@pytest.fixture
async def stack(
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    outside: tuple[Path, str],
    front: Front,
    aws_outside: Front,
) -> AsyncIterator[Stack]:
    async with make_stack(
        tmp_path,
        private_containerd,
        outside,
        FARGATE_AGENT_AWS_ENDPOINT_URL=front.url,
        FARGATE_AGENT_AWS_CREDENTIALS_FILE=str(write_keys(tmp_path)),
        FARGATE_AGENT_AWSLOGS_ENDPOINT=aws_outside.url,
    ) as made:
        yield made


def run(stack: Stack, script: str, group: str) -> str:
    options = {
        "awslogs-group": group,
        "awslogs-region": REGION,
        "awslogs-stream-prefix": "web",
    }
    log = {"logConfiguration": {"logDriver": "awslogs", "options": options}}
    return stack.run(tool("main", script, **log), executionRoleArn=ROLE)


async def test_output_arrives_signed_by_the_execution_role_and_from_the_task(
    stack: Stack, registry: FakeRegistry, front: Front, aws_outside: Front, moto: str
) -> None:
    logs: Any = client(moto, "logs")
    logs.create_log_group(logGroupName="/test/there")

    arn = run(stack, "for i in 1 2 3; do echo line $i; done; exit 4", "/test/there")
    task = await stack.wait_for(arn, "STOPPED")

    stream = f"web/main/{arn.rpartition('/')[2]}"
    events = logs.get_log_events(
        logGroupName="/test/there", logStreamName=stream, startFromHead=True
    )["events"]
    assert [event["message"] for event in events] == ["line 1", "line 2", "line 3"]
    assert task["containers"][0]["exitCode"] == 4
    assert await stack.logs(arn) == ["main: line 1", "main: line 2", "main: line 3"]
    assert front.named("AssumeRole")[0].key == ACCESS_KEY
    details = task["attachments"][0]["details"]
    address = next(one["value"] for one in details if one["name"] == "privateIPv4Address")
    assert {(call.peer, call.token is None) for call in aws_outside.calls} == {(address, False)}
    assert ACCESS_KEY not in {call.key for call in aws_outside.calls}
    assert stack.leftovers(arn) == []


async def test_group_that_is_missing_is_told_as_fargate_tells_it(
    stack: Stack, registry: FakeRegistry
) -> None:
    arn = run(stack, "echo started", "/test/missing")

    task = await stack.wait_for(arn, "STOPPED")

    assert task["stoppedReason"] == (
        "ResourceInitializationError: failed to validate logger args: create stream has been "
        "retried 1 times: failed to create Cloudwatch log stream: ResourceNotFoundException: The "
        "specified log group does not exist. : exit status 1"
    )
    assert task["stopCode"] == "TaskFailedToStart"
    assert "exitCode" not in task["containers"][0]
    assert stack.leftovers(arn) == []
