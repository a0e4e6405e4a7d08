"""Credentials that the control plane has sent, kept in memory until the task is over."""

import asyncio
import logging
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fargate_agent.aws.errors import RoleError
from fargate_agent.credentials.roles import Roles
from fargate_agent.plan import RolePlan, TaskPlan, plan_task
from fargate_agent.role_keys import RoleKeys
from tests.fixtures.aws import ROLE, role_json
from tests.messages import site, task_arn, task_message


def make_keys(name: str, lasts_s: float = 3600) -> RoleKeys:
    return RoleKeys(
        access_key=name,
        secret_key=f"secret-of-{name}",
        token=f"token-of-{name}",
        expires_at=datetime.now(UTC) + timedelta(seconds=lasts_s),
    )


def plan(key: str | None = None) -> tuple[TaskPlan, RolePlan]:
    role = role_json(key=key)
    message = task_message(arn=task_arn(uuid.uuid4().hex), executionRoleCredentials=role)
    task = plan_task(message, site(Path("/nowhere")))
    assert task.execution_role is not None
    return task, task.execution_role


async def test_keys_that_were_sent_are_there_at_once_and_newer_ones_take_their_place() -> None:
    roles, (task, role) = Roles(), plan()
    roles.deliver(task.id, role.credentials_id, make_keys("first"))

    first = await roles.keys(task, role)
    roles.deliver(task.id, role.credentials_id, make_keys("second"))
    second = await roles.keys(task, role)

    assert (first.access_key, second.access_key) == ("first", "second")


async def test_keys_of_the_message_do_until_others_come() -> None:
    roles, (task, role) = Roles(), plan("with-the-message")

    first = await roles.keys(task, role)
    roles.deliver(task.id, role.credentials_id, make_keys("later"))

    assert first.access_key == "with-the-message"
    assert (await roles.keys(task, role)).access_key == "later"


async def test_all_who_wait_get_the_keys_that_come() -> None:
    roles, (task, role) = Roles(), plan()
    other, other_role = plan()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(roles.keys(task, role)) for _ in range(20)]
        await asyncio.sleep(0)

        roles.deliver(other.id, other_role.credentials_id, make_keys("of-another"))
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        roles.deliver(task.id, role.credentials_id, make_keys("own"))

    assert {one.result().access_key for one in waiting} == {"own"}


async def test_keys_that_do_not_come_in_time_are_an_error_that_names_the_role(
    caplog: pytest.LogCaptureFixture,
) -> None:
    roles, (task, role) = Roles(wait_s=0.01), plan()

    with caplog.at_level(logging.INFO), pytest.raises(RoleError) as caught:
        await roles.keys(task, role)

    assert str(caught.value) == (
        f"the control plane has sent no credentials of role {ROLE} within 0.01 s"
    )
    assert not caught.value.may_pass  # who asks has waited long enough
    (record,) = caplog.records
    assert record.message == str(caught.value)


async def test_keys_that_have_ended_are_none() -> None:
    roles, (task, role) = Roles(wait_s=0), plan()
    roles.deliver(task.id, role.credentials_id, make_keys("ended", lasts_s=-1))

    assert roles.find(task, role) is None
    with pytest.raises(RoleError):
        await roles.keys(task, role)


async def test_tasks_and_roles_do_not_share_keys() -> None:
    roles, (task, role), (other, other_role) = Roles(), plan(), plan()
    roles.deliver(task.id, role.credentials_id, make_keys("own"))

    assert roles.find(other, other_role) is None
    assert roles.find(other, role) is None


async def test_nothing_is_kept_of_a_task_that_is_forgotten_or_of_keys_that_have_ended() -> None:
    roles, (task, role), (other, other_role) = Roles(), plan(), plan()
    late, late_role = plan()
    roles.deliver(late.id, late_role.credentials_id, make_keys("ended", lasts_s=-1))
    roles.deliver(task.id, role.credentials_id, make_keys("own"))
    roles.deliver(other.id, other_role.credentials_id, make_keys("of-another"))

    roles.forget(task)

    assert roles.find(task, role) is None
    assert [keys.access_key for keys in roles._keys.values()] == ["of-another"]


def test_keys_are_never_shown() -> None:
    shown = repr(make_keys("AK"))

    assert "secret-of" not in shown
    assert "token-of" not in shown
