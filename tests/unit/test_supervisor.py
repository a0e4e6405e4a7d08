import asyncio
import errno
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fargate_agent.drivers import ExitStatus
from fargate_agent.plan import plan_task
from fargate_agent.task.status import StateChange, TaskStatus
from fargate_agent.task.store import TaskRecord, TaskStore
from fargate_agent.task.supervisor import Supervisor
from tests.fakes import MOMENT, FakeDrivers, fake_drivers
from tests.messages import TASK_ARN, TASK_ID, container_json, site, task_message


class DiaryStore(TaskStore):
    """Writes into a diary what it has written."""

    def __init__(self, directory: Path, diary: list[str]) -> None:
        super().__init__(directory)
        self._diary = diary
        self.is_full = False

    async def write(self, task_id: str, record: TaskRecord) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        await super().write(task_id, record)
        self._diary.append(f"record {record.facts.status}")


class Desk:
    """A supervisor, and the changes it has sent."""

    def __init__(self, root: Path, drivers: FakeDrivers, boot_id: str = "boot-1") -> None:
        self.changes: list[StateChange] = []
        self.changed = asyncio.Event()
        self.diary: list[str] = []
        self.store = DiaryStore(root / "records", self.diary)
        self.drivers = drivers
        self.supervisor = Supervisor(
            site=site(root),
            drivers=drivers.all,
            store=self.store,
            boot_id=boot_id,
            send=self._note,
        )

    def _note(self, change: StateChange) -> None:
        self.diary.append(f"send {change.status}")
        self.changes.append(change)
        self.changed.set()

    async def wait_for(self, status: TaskStatus) -> StateChange:
        async with asyncio.timeout(5):
            while True:
                found = next((c for c in self.changes if c.status is status), None)
                if found is not None:
                    return found
                self.changed.clear()
                await self.changed.wait()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Supervisor]:
        await self.supervisor.adopt()
        job = asyncio.create_task(self.supervisor.serve())
        await asyncio.sleep(0)
        try:
            yield self.supervisor
        finally:
            job.cancel()
            await asyncio.wait([job])


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the network namespace of the task is mounted."""
    netns = site(tmp_path).netns(TASK_ID)
    monkeypatch.setattr("fargate_agent.task.supervisor.ismount", lambda path: path == netns)
    return tmp_path


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

    assert change.reason == "Task stopped by user"


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
        await desk.wait_for(TaskStatus.STOPPED)

    assert "start web" not in desk.drivers.diary.calls


async def test_task_that_cannot_be_planned_is_reported_and_kept_until_acknowledged(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path, fake_drivers())

    async with desk.serving() as supervisor:
        await supervisor.apply(task_message(container_json(secrets=[{"name": "A"}])))
        change = await desk.wait_for(TaskStatus.STOPPED)
        assert change.reason is not None
        assert "not supported here: container 'web': secrets" in change.reason
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


async def test_running_task_is_adopted_by_the_next_agent_with_its_exit_code(tmp_path: Path) -> None:
    drivers = fake_drivers()
    first = Desk(tmp_path, drivers)
    async with first.serving() as supervisor:
        await supervisor.apply(task_message())
        await first.wait_for(TaskStatus.RUNNING)
    drivers.runtime.exits = {"web": ExitStatus(code=9, at=MOMENT)}
    drivers.diary.calls.clear()

    second = Desk(tmp_path, drivers)
    async with second.serving():
        change = await second.wait_for(TaskStatus.STOPPED)

    assert change.containers[0].exit_code == 9
    assert "create web" not in drivers.diary.calls


async def test_stop_that_an_agent_took_before_it_died_is_carried_out_by_the_next(
    tmp_path: Path,
) -> None:
    store = TaskStore(tmp_path / "records")
    record = TaskRecord(message=task_message(), boot_id="boot-1", stop_reason="scaled in")
    await store.write(TASK_ID, record)
    desk = Desk(tmp_path, fake_drivers())

    async with desk.serving():
        change = await desk.wait_for(TaskStatus.STOPPED)

    assert change.reason == "scaled in"
    assert "start web" not in desk.drivers.diary.calls


async def test_task_of_an_earlier_boot_is_reported_stopped(tmp_path: Path) -> None:
    drivers = fake_drivers()
    first = Desk(tmp_path, drivers, boot_id="boot-1")
    async with first.serving() as supervisor:
        await supervisor.apply(task_message())
        await first.wait_for(TaskStatus.RUNNING)
    drivers.diary.calls.clear()

    second = Desk(tmp_path, drivers, boot_id="boot-2")
    async with second.serving():
        change = await second.wait_for(TaskStatus.STOPPED)

    assert change.reason == "InternalError: the machine was restarted while the task ran"
    assert "create web" not in drivers.diary.calls
    assert "release netns" in drivers.diary.calls


UNREADABLE = [
    pytest.param('{"message": ', "Invalid JSON", id="cut-off"),
    pytest.param("", "Invalid JSON", id="empty"),
    pytest.param('{"version": 1}', "message: Field required", id="lacks-something"),
    pytest.param(
        '{"version": 2, "message": {}}',
        "it has version 2, this agent knows versions up to 1",
        id="of-a-newer-agent",
    ),
]


def write_record(root: Path, text: str) -> Path:
    record = root / "records" / f"{TASK_ID}.json"
    record.parent.mkdir()
    record.write_text(text)
    return record


@pytest.mark.parametrize(("text", "why"), UNREADABLE)
async def test_record_that_cannot_be_read_of_a_task_that_does_not_run_is_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, why: str
) -> None:
    record = write_record(tmp_path, text)
    desk = Desk(tmp_path, fake_drivers())

    async with desk.serving() as supervisor:
        assert not supervisor.knows(TASK_ID)

    assert record.with_suffix(".unreadable").read_text() == text
    assert f"{record}: " in caplog.text
    assert why in caplog.text


@pytest.mark.parametrize(("text", "why"), UNREADABLE)
async def test_task_that_runs_is_kept_though_its_record_cannot_be_read(
    running: Path, text: str, why: str
) -> None:
    record = write_record(running, text)
    desk = Desk(running, fake_drivers())

    async with desk.serving() as supervisor:
        assert supervisor.knows(TASK_ID)
        assert why in supervisor.unreadable[TASK_ID]

    assert record.read_text() == text
    assert desk.drivers.diary.calls == []
    assert desk.changes == []


async def test_task_whose_record_cannot_be_read_can_be_stopped(running: Path) -> None:
    write_record(running, "")
    desk = Desk(running, fake_drivers())

    async with desk.serving() as supervisor:
        await supervisor.apply(task_message(desiredStatus="STOPPED"))
        change = await desk.wait_for(TaskStatus.STOPPED)
        await supervisor.note_acknowledged(change)

        assert not supervisor.knows(TASK_ID)

    assert "stop web" in desk.drivers.diary.calls
    assert list((running / "records").iterdir()) == []


async def test_record_without_a_version_is_of_the_first(tmp_path: Path) -> None:
    store = TaskStore(tmp_path / "records")
    await store.write(TASK_ID, TaskRecord(message=task_message(), boot_id="boot-1"))
    path = tmp_path / "records" / f"{TASK_ID}.json"
    record = json.loads(path.read_text())
    assert record.pop("version") == 1
    path.write_text(json.dumps(record))

    assert (await store.read_all()).records[TASK_ID].version == 1


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
