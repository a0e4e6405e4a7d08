"""Credentials of roles on their way to an agent: with a task, pushed, and asked for anew."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.controlplane.agents import role_delivery
from fargate_agent.controlplane.roles import minting
from fargate_agent.wire.messages import (
    IAMRoleCredentialsAckRequest,
    IAMRoleCredentialsMessage,
    PayloadMessage,
    RoleCredentialsMessage,
    TaskManifestMessage,
    TaskMessage,
)
from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.aws import SECRET_KEY, Front, write_keys
from tests.fixtures.controlplane import ControlPlane, Pair, StartControlPlane
from tests.fixtures.ecs import FARGATE, describe_task, run

REFUSAL = (
    "<ErrorResponse xmlns='urn:sts'><Error><Type>Sender</Type>"
    "<Code>AccessDenied</Code><Message>not for you</Message></Error></ErrorResponse>"
)
ROLES = {"executionRoleArn": "execution", "taskRoleArn": "app"}
TIMES = minting.MintTimes


@pytest.fixture
async def agent(control_plane: ControlPlane) -> AsyncIterator[SimulatedAgent]:
    async with SimulatedAgent(control_plane) as made:
        yield made


@pytest.fixture
def settings(front: Front, tmp_path: Path) -> dict[str, Any]:
    """Of a control plane that assumes roles at moto's STS."""
    keys = write_keys(tmp_path)
    return {"aws_endpoint_url": front.url, "aws_credentials_file": keys, "resend_s": 0.2}


async def run_with(plane: ControlPlane, **roles: str) -> str:
    ecs = plane.client()
    await asyncio.to_thread(ecs.register_task_definition, **{**FARGATE, **roles})
    answer = await asyncio.to_thread(run, ecs)
    return str(answer["tasks"][0]["taskArn"])


def secret_of(role: RoleCredentialsMessage | None) -> str:
    assert role is not None
    assert role.secret_access_key is not None
    assert role.session_token is not None
    return role.secret_access_key.get_secret_value()


async def acknowledge(agent: SimulatedAgent, pushed: IAMRoleCredentialsMessage) -> None:
    await agent.send(
        IAMRoleCredentialsAckRequest(
            message_id=pushed.message_id,
            credentials_id=pushed.role_credentials.credentials_id,
            expiration=str(pushed.role_credentials.expiration),
        )
    )


async def is_silent(agent: SimulatedAgent, for_s: float) -> bool:
    """Whether nothing is pushed for a while."""
    agent.deadline_s = for_s
    try:
        await agent.receive(IAMRoleCredentialsMessage)
    except TimeoutError:
        return True
    return False


async def test_credentials_come_with_the_task_and_stand_nowhere_else(
    start_control_plane: StartControlPlane,
    settings: dict[str, Any],
    state_dir: Path,
    front: Front,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    plane = await asyncio.to_thread(start_control_plane, database=None, **settings)
    async with SimulatedAgent(plane) as agent:
        arn = await run_with(plane, **ROLES)
        task = TaskMessage.model_validate(await agent.take())

    found = (task.execution_role_credentials, task.role_credentials)
    kept = b"".join(file.read_bytes() for file in state_dir.rglob("*") if file.is_file())
    assert task.arn == arn
    assert len({secret_of(role) for role in found}) == 2
    assert {call.request["RoleArn"].rpartition("/")[2] for call in front.calls} == {
        "execution",
        "app",
    }
    for role in found:
        assert role is not None
        assert role.session_token is not None
        assert role.credentials_id.encode() in kept
        for secret in (secret_of(role), role.session_token.get_secret_value(), SECRET_KEY):
            assert secret.encode() not in kept
            assert secret not in caplog.text


async def test_what_replaced_the_role_comes_along(start_control_plane: StartControlPlane) -> None:
    roles = {"app": {"endpoint_urls": {"s3": "http://127.0.0.1:9000"}}}
    plane = await asyncio.to_thread(start_control_plane, local_roles=roles)
    async with SimulatedAgent(plane) as agent:
        await run_with(plane, **ROLES)
        task = TaskMessage.model_validate(await agent.take())

    assert task.role_credentials is not None
    assert task.execution_role_credentials is not None
    assert task.role_credentials.endpoint_urls == {"S3": "http://127.0.0.1:9000"}
    assert task.role_credentials.made_from == f"{minting.MADE_UP}, for http://127.0.0.1:9000"
    assert task.execution_role_credentials.made_from == minting.MADE_UP


async def test_slow_sts_holds_up_neither_run_task_nor_the_task_for_long(
    start_control_plane: StartControlPlane,
    settings: dict[str, Any],
    front: Front,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What containers need from their beginning, which is no secret, comes with the task."""
    monkeypatch.setattr(role_delivery, "WAIT_S", 0.3)
    roles = {"app": {"endpoint_url": "http://10.0.0.1:4566"}}
    plane = await asyncio.to_thread(start_control_plane, local_roles=roles, **settings)
    front.go.clear()
    async with SimulatedAgent(plane) as agent:
        await run_with(plane, taskRoleArn="app")
        plain = await run_with(plane, family="plain")
        first = await agent.receive(PayloadMessage)
        assert first.tasks[0]["arn"] != plain
        assert "secretAccessKey" not in first.tasks[0]["roleCredentials"]
        assert first.tasks[0]["roleCredentials"]["endpointUrls"] == {"": "http://10.0.0.1:4566"}
        await agent.ack(first)
        front.go.set()
        pushed = await agent.receive(IAMRoleCredentialsMessage)

    assert pushed.role_type == "TaskApplication"
    assert pushed.task_arn == first.tasks[0]["arn"]
    stated = first.tasks[0]["roleCredentials"]["credentialsId"]
    assert pushed.role_credentials.credentials_id == stated
    assert secret_of(pushed.role_credentials)


async def test_failure_that_passes_at_once_is_not_noticed(
    start_control_plane: StartControlPlane, settings: dict[str, Any], front: Front
) -> None:
    plane = await asyncio.to_thread(start_control_plane, **settings)
    front.faults.append((503, ""))
    async with SimulatedAgent(plane) as agent:
        await run_with(plane, taskRoleArn="app")
        task = TaskMessage.model_validate(await agent.take())

    assert secret_of(task.role_credentials)
    assert len(front.calls) == 2


async def test_task_without_roles_does_not_wait_for_the_roles_of_others(
    start_control_plane: StartControlPlane, settings: dict[str, Any], front: Front
) -> None:
    plane = await asyncio.to_thread(start_control_plane, **settings)
    front.go.clear()
    async with SimulatedAgent(plane) as agent:
        waiting = await run_with(plane, taskRoleArn="app")
        ecs = plane.client()
        await asyncio.to_thread(ecs.register_task_definition, **{**FARGATE, "family": "plain"})
        answer = await asyncio.to_thread(run, ecs, taskDefinition="plain")
        first = await agent.take()
        front.go.set()
        second = await agent.take()

    assert (first["arn"], second["arn"]) == (answer["tasks"][0]["taskArn"], waiting)
    assert second["roleCredentials"]["secretAccessKey"]


async def test_push_is_repeated_until_it_is_acknowledged(
    start_control_plane: StartControlPlane, settings: dict[str, Any]
) -> None:
    plane = await asyncio.to_thread(start_control_plane, **settings)
    async with SimulatedAgent(plane) as agent:
        await run_with(plane, taskRoleArn="app")
        await agent.take()
        await wait_until_answered_for(agent)
        first = await agent.receive(IAMRoleCredentialsMessage)
        again = await agent.receive(IAMRoleCredentialsMessage)
        await acknowledge(agent, again)

        assert first == again
        assert await is_silent(agent, for_s=1)


async def wait_until_answered_for(agent: SimulatedAgent, lacks: bool = True) -> None:
    """Connect anew until the manifest has the task."""
    async with asyncio.timeout(10):
        while True:
            await agent.disconnect()
            await agent.connect(sendCredentials=str(lacks).lower())
            if (await agent.receive(TaskManifestMessage)).tasks:
                return


@pytest.mark.parametrize("lacks", [True, False])
async def test_agent_that_has_lost_its_credentials_gets_them_after_the_manifest(
    start_control_plane: StartControlPlane, settings: dict[str, Any], front: Front, lacks: bool
) -> None:
    plane = await asyncio.to_thread(start_control_plane, **settings)
    async with SimulatedAgent(plane) as agent:
        await run_with(plane, **ROLES)
        task = TaskMessage.model_validate(await agent.take())
        await wait_until_answered_for(agent, lacks)

        if not lacks:
            assert await is_silent(agent, for_s=1)
            return
        pushed = [await agent.receive(IAMRoleCredentialsMessage) for _ in range(2)]

    assert {one.role_type for one in pushed} == {"TaskApplication", "TaskExecution"}
    assert {secret_of(one.role_credentials) for one in pushed} == {
        secret_of(task.role_credentials),
        secret_of(task.execution_role_credentials),
    }
    assert len(front.calls) == 2


async def test_new_credentials_are_pushed_before_the_old_ones_expire(
    start_control_plane: StartControlPlane,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(minting, "MintTimes", lambda: TIMES(duration_s=6))
    plane = await asyncio.to_thread(start_control_plane, **settings)
    async with SimulatedAgent(plane) as agent:
        await run_with(plane, taskRoleArn="app")
        old = TaskMessage.model_validate(await agent.take()).role_credentials
        pushed = await agent.receive(IAMRoleCredentialsMessage)

    new = pushed.role_credentials
    assert old is not None
    assert old.expiration is not None
    assert new.expiration is not None
    assert secret_of(new) != secret_of(old)
    assert new.credentials_id == old.credentials_id
    assert datetime.now(UTC) < old.expiration < new.expiration


async def test_refused_role_ends_the_task_in_the_words_of_ecs(
    start_control_plane: StartControlPlane, settings: dict[str, Any], front: Front
) -> None:
    plane = await asyncio.to_thread(start_control_plane, **settings)
    front.faults.append((403, REFUSAL))
    async with SimulatedAgent(plane) as agent:
        arn = await run_with(plane, taskRoleArn="app")
        task = await agent.take()
        await agent.submit(arn, "STOPPED", reason="Task stopped by user")
    found = await asyncio.to_thread(describe_task, plane.client(), arn)

    assert (task["arn"], task["desiredStatus"]) == (arn, "STOPPED")
    assert (found["lastStatus"], found["stopCode"]) == ("STOPPED", "TaskFailedToStart")
    assert found["stoppedReason"].startswith(
        "ECS was unable to assume the role 'arn:aws:iam::000000000000:role/app' that was provided "
        "for this task. Please verify"
    )
    assert found["stoppedReason"].endswith("AccessDenied: not for you")


async def test_running_task_does_not_end_when_its_role_is_refused_later(
    start_control_plane: StartControlPlane,
    settings: dict[str, Any],
    front: Front,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(minting, "MintTimes", lambda: TIMES(duration_s=2))
    plane = await asyncio.to_thread(start_control_plane, **settings)
    async with SimulatedAgent(plane) as agent:
        arn = await run_with(plane, taskRoleArn="app")
        await agent.bring_up(await agent.take())
        front.faults.extend([(403, REFUSAL)] * 3)
        while caplog.text.count("not for you") < 3:  # some may have been pushed before
            await agent.receive(IAMRoleCredentialsMessage)
        pushed = await agent.receive(IAMRoleCredentialsMessage)
    found = await asyncio.to_thread(describe_task, plane.client(), arn)

    assert caplog.text.count("not for you") == 3
    assert secret_of(pushed.role_credentials)
    assert (found["lastStatus"], found["desiredStatus"]) == ("RUNNING", "RUNNING")


async def test_nothing_is_minted_for_a_task_that_has_ended(
    start_control_plane: StartControlPlane,
    settings: dict[str, Any],
    front: Front,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(minting, "MintTimes", lambda: TIMES(duration_s=12))  # longer than a look
    plane = await asyncio.to_thread(start_control_plane, **settings)
    async with SimulatedAgent(plane) as agent:
        arn = await run_with(plane, taskRoleArn="app")
        await agent.bring_up(await agent.take())
        await agent.bring_down({"arn": arn, "containers": []}, exit_code=0)

        assert await is_silent(agent, for_s=9)

    assert len(front.calls) == 1


async def test_other_control_plane_mints_when_the_agent_comes_to_it(pair: Pair) -> None:
    one, two = await asyncio.to_thread(pair.start)
    async with SimulatedAgent(one) as agent:
        await run_with(one, taskRoleArn="app")
        task = TaskMessage.model_validate(await agent.take())
        await wait_until_answered_for(agent)
        await agent.disconnect()
        agent._plane = two
        agent.client = two.client("agent")
        await agent.connect(sendCredentials="false")
        pushed = await agent.receive(IAMRoleCredentialsMessage)

    assert task.role_credentials is not None
    assert pushed.role_credentials.credentials_id == task.role_credentials.credentials_id
    assert secret_of(pushed.role_credentials) != secret_of(task.role_credentials)
