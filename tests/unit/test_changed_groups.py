"""Security groups of an ENI that change while its task starts, runs, or is refused them."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.errors import TaskError
from fargate_agent.plan import EniPlan, change_groups, plan_task
from fargate_agent.task.status import TaskStatus
from fargate_agent.task.steps import network_waves
from fargate_agent.wire.messages import EniMessage, TaskMessage
from tests.fakes import Diary, fake_drivers
from tests.fixtures.desk import Desk
from tests.messages import TASK_ID, container_json, eni_json, site, task_json

TRACEPARENT = f"00-{'1' * 32}-{'2' * 16}-01"


def message(*groups: str) -> TaskMessage:
    enis = [eni_json(securityGroups=list(groups))]
    return TaskMessage.model_validate(task_json(elasticNetworkInterfaces=enis))


def groups_of(desk: Desk) -> tuple[str, ...] | None:
    run = desk.supervisor.find(TASK_ID)
    assert run is not None
    return run.plan.enis[0].security_groups


async def stored_groups(desk: Desk) -> tuple[str, ...] | None:
    record = (await desk.store.read_all()).records[TASK_ID]
    return record.message.elastic_network_interfaces[0].security_groups


async def test_running_task_is_in_its_new_groups_and_so_is_its_record(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())
    async with desk.serving() as supervisor:
        await supervisor.apply(message("sg-1"))
        await desk.wait_for(TaskStatus.RUNNING)
        await supervisor.apply(message("sg-2"))
        await supervisor.apply(message("sg-2"))

        assert desk.drivers.diary.calls.count("update eth1") == 1
        assert groups_of(desk) == ("sg-2",)
        assert await stored_groups(desk) == ("sg-2",)


async def test_change_that_the_kernel_refuses_is_made_when_the_message_comes_again(
    tmp_path: Path,
) -> None:
    drivers = fake_drivers(Diary(fail_at="update eth1"))
    desk = Desk(tmp_path, drivers)
    async with desk.serving() as supervisor:
        await supervisor.apply(message("sg-1"))
        await desk.wait_for(TaskStatus.RUNNING)
        with pytest.raises(TaskError, match="refused: update eth1"):
            await supervisor.apply(message("sg-2"))
        assert groups_of(desk) == ("sg-1",)
        assert await stored_groups(desk) == ("sg-1",)

        drivers.diary.fail_at = None
        await supervisor.apply(message("sg-2"))
        assert groups_of(desk) == ("sg-2",)
        assert await stored_groups(desk) == ("sg-2",)


async def test_groups_that_change_while_an_interface_is_attached_are_not_lost(
    tmp_path: Path,
) -> None:
    drivers = fake_drivers()
    plan = plan_task(message("sg-1"), site(tmp_path))
    newer = [EniMessage.model_validate(eni_json(securityGroups=["sg-2"]))]

    def find_eni(eni: EniPlan) -> EniPlan:
        is_attached = "attach eth1" in drivers.diary.calls
        return change_groups((eni,), newer)[0] if is_attached else eni

    (attach, _), *_ = network_waves(plan, drivers.all, find_eni)
    await attach.do()

    assert drivers.diary.calls == ["attach eth1", "update eth1"]


async def test_what_cannot_change_any_more_is_named_once_without_its_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(tmp_path, fake_drivers())
    other = container_json(environment={"KEY": "s3cret"}, image="other:1")
    eni = eni_json(securityGroups=["sg-2"], mtu=1400)
    changed = task_json(
        containers=[other], elasticNetworkInterfaces=[eni], memory=8192, traceparent=TRACEPARENT
    )
    async with desk.serving() as supervisor:
        await supervisor.apply(message("sg-1"))
        await desk.wait_for(TaskStatus.RUNNING)
        run = supervisor.find(TASK_ID)
        assert run is not None
        before = run.plan
        for _ in range(2):
            await supervisor.apply(TaskMessage.model_validate(changed))

        assert groups_of(desk) == ("sg-2",)
        assert replace(run.plan, enis=before.enis) == before
    (told,) = [one.getMessage() for one in caplog.records if "not changed" in one.getMessage()]
    assert told.rpartition(": ")[2] == (
        "containers.environment, containers.image, elasticNetworkInterfaces.mtu, memory"
    )
    assert "s3cret" not in caplog.text


async def test_what_a_record_does_not_have_is_no_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys of roles, above all: the next agent compares with what it reads."""
    keys = {"secretAccessKey": "s3cret", "sessionToken": "t0ken", "accessKeyId": "AKIA1"}
    role = {"credentialsId": "1-2", "roleArn": "arn:aws:iam::000000000000:role/r"}
    desired = TaskMessage.model_validate(task_json(roleCredentials=role | keys))
    desk = Desk(tmp_path, fake_drivers())
    async with desk.serving() as supervisor:
        await supervisor.apply(desired)
        await desk.wait_for(TaskStatus.RUNNING)
    next_desk = Desk(tmp_path, fake_drivers())
    async with next_desk.serving() as supervisor:
        await supervisor.apply(desired)

    assert "not changed" not in caplog.text


async def test_change_that_is_cut_short_is_made_when_the_message_comes_again(
    tmp_path: Path,
) -> None:
    drivers = fake_drivers(Diary(hang_at="update eth1"))
    desk = Desk(tmp_path, drivers)
    async with desk.serving() as supervisor:
        await supervisor.apply(message("sg-1"))
        await desk.wait_for(TaskStatus.RUNNING)
        cut = asyncio.create_task(supervisor.apply(message("sg-2")))
        while "update eth1" not in drivers.diary.calls:
            await asyncio.sleep(0)
        cut.cancel()
        await asyncio.wait([cut])
        drivers.diary.hang_at = None
        await supervisor.apply(message("sg-2"))

        assert drivers.diary.calls.count("update eth1") == 2
        assert groups_of(desk) == ("sg-2",)
        assert await stored_groups(desk) == ("sg-2",)


async def test_message_that_says_no_groups_changes_none(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())
    async with desk.serving() as supervisor:
        await supervisor.apply(message("sg-1"))
        await desk.wait_for(TaskStatus.RUNNING)
        await supervisor.apply(
            TaskMessage.model_validate(task_json(elasticNetworkInterfaces=[eni_json()]))
        )

        assert groups_of(desk) == ("sg-1",)
