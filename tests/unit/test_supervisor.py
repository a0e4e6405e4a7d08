import asyncio
import json
from pathlib import Path

import pytest

from fargate_agent.drivers import ExitStatus
from fargate_agent.plan import plan_task
from fargate_agent.task.status import TaskStatus
from fargate_agent.task.store import TaskRecord
from tests.fakes import MOMENT, fake_drivers
from tests.fixtures.desk import Desk
from tests.messages import TASK_ARN, TASK_ID, container_json, site, task_message


async def test_task_is_on_disk_when_apply_returns(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())

    async with desk.serving() as supervisor:
        await supervisor.apply(task_message())

        assert set((await desk.store.read_all()).records) == {TASK_ID}


async def test_every_change_is_in_the_record_before_it_is_sent(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers(exits={"web": ExitStatus(code=0, at=MOMENT)}))

    async with desk.serving() as supervisor:
        await supervisor.apply(task_message())
        await desk.wait_for(TaskStatus.STOPPED)

    assert desk.diary == [
        "record PROVISIONING",
        *(f"{what} {status}"
          for status in ("PENDING", "RUNNING", "STOPPING", "STOPPED")
          for what in ("record", "send")),
    ]  # fmt: skip


async def test_metadata_ids_are_random_and_outlive_the_agent(tmp_path: Path) -> None:
    async def read_id(desk: Desk) -> str:
        async with desk.serving() as supervisor:
            await supervisor.apply(task_message())
            run = supervisor.find(TASK_ID)
            assert run is not None
            return run.plan.containers[0].metadata_id

    first = await read_id(Desk(tmp_path / "one", fake_drivers()))
    again = await read_id(Desk(tmp_path / "one", fake_drivers()))
    elsewhere = await read_id(Desk(tmp_path / "other", fake_drivers()))

    assert first == again
    assert elsewhere != first


async def test_record_without_a_key_is_of_an_older_agent(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())
    await desk.store.write(TASK_ID, TaskRecord(message=task_message(), boot_id="boot-1"))
    (file,) = (tmp_path / "records").glob("*.json")
    record = json.loads(file.read_bytes())
    del record["metadata_key"]
    file.write_text(json.dumps(record))

    async with desk.serving() as supervisor:
        run = supervisor.find(TASK_ID)

    assert run is not None
    assert run.plan == plan_task(task_message(), site(tmp_path))


async def test_same_message_again_starts_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())

    async with desk.serving() as supervisor:
        await supervisor.apply(task_message())
        await desk.wait_for(TaskStatus.RUNNING)
        await supervisor.apply(task_message())
        await asyncio.sleep(0)

        assert desk.drivers.diary.calls.count("create web") == 1


async def test_desired_stopped_ends_a_running_task(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())

    async with desk.serving() as supervisor:
        await supervisor.apply(task_message())
        await desk.wait_for(TaskStatus.RUNNING)
        await supervisor.apply(task_message(desiredStatus="STOPPED"))
        change = await desk.wait_for(TaskStatus.STOPPED)

    assert (change.reason, change.stop_code) == ("Task stopped by user", "UserInitiated")


async def test_a_task_that_the_machine_fails_doesnt_end_by_its_user(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())

    async with desk.serving() as supervisor:
        await supervisor.apply(task_message())
        await desk.wait_for(TaskStatus.RUNNING)
        await supervisor.evict(TASK_ID, "OutOfDiskError: full")
        change = await desk.wait_for(TaskStatus.STOPPED)

    assert (change.reason, change.stop_code) == ("OutOfDiskError: full", "TaskFailedToStart")


async def test_task_that_is_ending_is_killed_by_this_agent_and_by_the_next(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())

    async with desk.serving() as supervisor:
        await supervisor.apply(task_message())
        await desk.wait_for(TaskStatus.RUNNING)
        await supervisor.stop(TASK_ID, "maintenance")
        await supervisor.evict(TASK_ID, "OutOfDiskError: full")
        run = supervisor.find(TASK_ID)
        record = (await desk.store.read_all()).records[TASK_ID]

    assert run is not None
    assert run.hurry.is_set()
    assert record.stop_reason == "maintenance"
    assert record.facts.is_hurried


async def test_stop_is_in_the_record_when_it_was_taken(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())

    async with desk.serving() as supervisor:
        await supervisor.apply(task_message())
        await desk.wait_for(TaskStatus.RUNNING)
        await supervisor.stop(TASK_ID, "maintenance")

        record = (await desk.store.read_all()).records[TASK_ID]

    assert record.stop_reason == "maintenance"


async def test_desired_stopped_of_an_unknown_task_is_answered_with_stopped(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())

    async with desk.serving() as supervisor:
        await supervisor.apply(task_message(desiredStatus="STOPPED"))
        change = await desk.wait_for(TaskStatus.STOPPED)

    assert change.stop_code == "UserInitiated"
    assert "start web" not in desk.drivers.diary.calls


async def test_task_that_cannot_be_planned_is_reported_and_kept_until_acknowledged(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path, fake_drivers())

    async with desk.serving() as supervisor:
        await supervisor.apply(task_message(container_json(links=["db"])))
        change = await desk.wait_for(TaskStatus.STOPPED)
        assert change.reason is not None
        assert "not supported here: container 'web': links" in change.reason
        assert change.stop_code == "TaskFailedToStart"
        assert set((await desk.store.read_all()).records) == {TASK_ID}

        await supervisor.note_acknowledged(change)

        assert (await desk.store.read_all()).records == {}


async def test_message_that_comes_after_the_task_is_over_starts_it_no_more(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())
    async with desk.serving() as supervisor:
        await supervisor.apply(task_message(desiredStatus="STOPPED"))
        await supervisor.note_acknowledged(await desk.wait_for(TaskStatus.STOPPED))
        desk.drivers.diary.calls.clear()

        await supervisor.apply(task_message())
        await supervisor.sync(TASK_ARN)

        assert not supervisor.knows(TASK_ID)
        assert (await desk.store.read_all()).records == {}
    assert desk.drivers.diary.calls == []


async def test_drain_ends_every_task_and_names_them(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())

    async with desk.serving() as supervisor:
        await supervisor.apply(task_message())
        await desk.wait_for(TaskStatus.RUNNING)
        async with asyncio.timeout(5):
            stopped = await supervisor.drain("going home")

    assert stopped == [TASK_ARN]
    assert desk.changes[-1].reason == "going home"


async def test_task_ends_though_its_record_cannot_be_written(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())
    async with desk.serving() as supervisor:
        await supervisor.apply(task_message())
        await desk.wait_for(TaskStatus.RUNNING)
        desk.store.is_full = True

        await supervisor.stop(TASK_ID, "by hand")
        change = await desk.wait_for(TaskStatus.STOPPED)

    assert change.reason == "by hand"
    assert "release netns" in desk.drivers.diary.calls


async def test_task_whose_record_cannot_be_written_is_not_begun(tmp_path: Path) -> None:
    desk = Desk(tmp_path, fake_drivers())
    async with desk.serving() as supervisor:
        desk.store.is_full = True
        with pytest.raises(OSError, match="No space left"):
            await supervisor.apply(task_message())
        knew = supervisor.knows(TASK_ID)
        desk.store.is_full = False
        await supervisor.apply(task_message())
        await desk.wait_for(TaskStatus.RUNNING)

    assert not knew
