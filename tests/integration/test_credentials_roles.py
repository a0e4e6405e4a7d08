"""Roles are assumed at moto's STS, and kept for a while."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fargate_agent.aws.calls import AwsSite
from fargate_agent.aws.errors import RoleError
from fargate_agent.credentials.roles import Roles, RoleSettings
from fargate_agent.parallel import together
from fargate_agent.plan import RolePlan, TaskPlan, plan_task
from fargate_agent.role_keys import RoleKeys
from tests.fixtures.aws import ACCESS_KEY, REGION, ROLE, SECRET_KEY, Front, write_keys
from tests.messages import site, task_arn, task_message

REFUSAL = (
    "<ErrorResponse xmlns='urn:sts'><Error><Type>Sender</Type>"
    "<Code>AccessDenied</Code><Message>User is not authorized</Message></Error></ErrorResponse>"
)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def settings(tmp_path: Path) -> RoleSettings:
    return RoleSettings(credentials_file=write_keys(tmp_path), retry_after_s=0)


def plan() -> tuple[TaskPlan, RolePlan]:
    role = {"credentialsId": str(uuid.uuid4()), "roleArn": ROLE}
    message = task_message(arn=task_arn(uuid.uuid4().hex), executionRoleCredentials=role)
    task = plan_task(message, site(Path("/nowhere")))
    assert task.execution_role is not None
    return task, task.execution_role


def make_roles(http: aiohttp.ClientSession, url: str, settings: RoleSettings) -> Roles:
    return Roles(http, AwsSite(region=REGION, endpoint_url=url), settings)


async def test_role_is_assumed_once_with_the_machine_s_keys_in_the_name_of_the_task(
    http: aiohttp.ClientSession, front: Front, settings: RoleSettings
) -> None:
    task, role = plan()
    roles = make_roles(http, front.url, settings)

    first, second = await roles.keys(task, role), await roles.keys(task, role)

    (call,) = front.calls
    assert (call.name, call.key, call.token) == ("AssumeRole", ACCESS_KEY, None)
    assert call.request["RoleArn"] == ROLE
    assert call.request["RoleSessionName"] == task.id
    assert first == second
    assert first.access_key.startswith("ASIA")
    assert first.token
    left = first.expires_at - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)


async def test_many_who_ask_at_once_share_one_call(
    http: aiohttp.ClientSession, front: Front, settings: RoleSettings
) -> None:
    task, role = plan()
    roles = make_roles(http, front.url, settings)
    got: list[RoleKeys] = []

    async def ask() -> None:
        got.append(await roles.keys(task, role))

    await together(ask() for _ in range(50))

    assert len(front.calls) == 1
    assert len(got) == 50
    assert len({keys.access_key for keys in got}) == 1


async def test_tasks_do_not_share_credentials_of_the_same_role(
    http: aiohttp.ClientSession, front: Front, settings: RoleSettings
) -> None:
    roles = make_roles(http, front.url, settings)

    keys = [await roles.keys(*plan()) for _ in range(2)]

    assert keys[0].access_key != keys[1].access_key
    assert len({call.request["RoleSessionName"] for call in front.calls}) == 2


async def test_credentials_are_new_well_before_the_old_ones_expire(
    http: aiohttp.ClientSession, front: Front, settings: RoleSettings
) -> None:
    task, role = plan()
    roles = make_roles(http, front.url, replace(settings, duration_s=6))
    first = await roles.keys(task, role)

    async with asyncio.timeout(10):
        while (second := await roles.keys(task, role)) == first:
            await asyncio.sleep(0.02)
    now = datetime.now(UTC)

    assert len(front.calls) == 2
    assert first.expires_at > now + timedelta(seconds=0.5)
    assert second.expires_at > first.expires_at


async def test_old_credentials_do_until_their_end_when_sts_refuses_to_refresh(
    http: aiohttp.ClientSession, front: Front, settings: RoleSettings
) -> None:
    task, role = plan()
    roles = make_roles(http, front.url, replace(settings, duration_s=3, retry_after_s=0.1))
    first = await roles.keys(task, role)
    front.faults.extend([(503, "")] * 10_000)

    async def ask_on() -> None:
        while await roles.keys(task, role) == first:
            await asyncio.sleep(0.01)

    with pytest.raises(RoleError, match="ServiceUnavailable"):
        await ask_on()

    assert datetime.now(UTC) >= first.expires_at
    assert 2 < len(front.calls) < 40  # a failure stands for a while, however often it is asked


async def test_refused_role_says_so_in_the_words_of_ecs(
    http: aiohttp.ClientSession,
    front: Front,
    settings: RoleSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    task, role = plan()
    front.faults.append((403, REFUSAL))

    with (
        caplog.at_level(logging.INFO),
        pytest.raises(RoleError, match="ECS was unable to assume the role") as caught,
    ):
        await make_roles(http, front.url, settings).keys(task, role)

    assert str(caught.value).endswith("pass this role. AccessDenied: User is not authorized")
    assert not caught.value.may_pass
    (record,) = [one for one in caplog.records if one.name.startswith("fargate_agent")]
    assert f"no credentials of role {ROLE}: ECS was unable" in record.message
    assert SECRET_KEY not in caplog.text


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        pytest.param(200, "<a>no credentials</a>", "with what are no credentials", id="no members"),
        pytest.param(200, "no XML", "with what are no credentials", id="no XML"),
        pytest.param(502, "<html>", "ServiceUnavailable: HTTP 502", id="proxy"),
        pytest.param(400, REFUSAL.replace("AccessDenied", "Throttling"), "Throttling", id="busy"),
    ],
)
async def test_answer_that_makes_no_sense_may_pass(
    http: aiohttp.ClientSession,
    front: Front,
    settings: RoleSettings,
    status: int,
    body: str,
    text: str,
) -> None:
    task, role = plan()
    roles = make_roles(http, front.url, settings)
    front.faults.append((status, body))

    with pytest.raises(RoleError, match=text) as caught:
        await roles.keys(task, role)

    assert caught.value.may_pass
    assert (await roles.keys(task, role)).token


async def test_sts_that_is_not_there_is_named(
    http: aiohttp.ClientSession, settings: RoleSettings
) -> None:
    task, role = plan()
    roles = make_roles(http, "http://127.0.0.1:1", settings)

    with pytest.raises(RoleError) as caught:
        await roles.keys(task, role)

    assert str(caught.value) == (
        'STS can\'t be asked: Post "http://127.0.0.1:1/": '
        "dial tcp 127.0.0.1:1: connect: connection refused"
    )


async def test_sts_that_does_not_answer_is_given_up(
    http: aiohttp.ClientSession, front: Front, settings: RoleSettings
) -> None:
    task, role = plan()
    roles = make_roles(http, front.url, replace(settings, timeout_s=0.2))
    front.go.clear()

    with pytest.raises(RoleError, match=r"STS has not answered within 0\.2 s"):
        await roles.keys(task, role)


async def test_machine_s_own_keys_are_handed_out_where_roles_are_not_assumed(
    http: aiohttp.ClientSession, front: Front, settings: RoleSettings
) -> None:
    task, role = plan()

    keys = await make_roles(http, front.url, replace(settings, assume=False)).keys(task, role)

    assert (keys.access_key, keys.secret_key, keys.token) == (ACCESS_KEY, SECRET_KEY, None)
    assert keys.expires_at > datetime.now(UTC) + timedelta(minutes=59)
    assert front.calls == []


async def test_credentials_of_the_message_win_while_they_last(
    http: aiohttp.ClientSession, front: Front, settings: RoleSettings
) -> None:
    task, role = plan()
    lasting, ending = (
        RoleKeys(
            access_key="GIVEN",
            secret_key="given",
            token=None,
            expires_at=datetime.now(UTC) + timedelta(minutes=left),
        )
        for left in (60, 10)
    )
    roles = make_roles(http, front.url, settings)

    first = await roles.keys(task, replace(role, given=lasting))
    calls = len(front.calls)
    second = await roles.keys(task, replace(role, given=ending))

    assert (first, calls) == (lasting, 0)
    assert second.access_key.startswith("ASIA")


async def test_forgotten_task_leaves_nothing(
    http: aiohttp.ClientSession, front: Front, settings: RoleSettings
) -> None:
    task, role = plan()
    roles = make_roles(http, front.url, settings)
    first: Any = await roles.keys(task, role)

    roles.forget(task)

    assert await roles.keys(task, role) != first
    assert len(front.calls) == 2
