import json
from pathlib import Path

import pytest

from fargate_agent.drivers import ExitStatus
from fargate_agent.task.status import (
    ContainerFacts,
    ContainerStatus,
    RunFacts,
    TaskFacts,
    TaskStatus,
)
from fargate_agent.task.store import TaskRecord, TaskStore
from tests.fakes import MOMENT, fake_drivers
from tests.fixtures.desk import Desk
from tests.messages import TASK_ID, site, task_message

REBOOTED = "InternalError: the machine was restarted while the task ran"
ASKED = "Task stopped by user"


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the network namespace of the task is mounted."""
    netns = site(tmp_path).netns(TASK_ID)
    monkeypatch.setattr("fargate_agent.task.supervisor.ismount", lambda path: path == netns)
    return tmp_path


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

    assert (change.reason, change.stop_code) == ("scaled in", "UserInitiated")
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

    assert change.reason == REBOOTED
    assert change.stop_code == "TaskFailedToStart"
    assert "create web" not in drivers.diary.calls
    assert "release netns" in drivers.diary.calls


@pytest.mark.parametrize(
    ("status", "stop_reason", "said", "code"),
    [
        pytest.param(TaskStatus.STOPPING, None, REBOOTED, "TaskFailedToStart", id="lost"),
        pytest.param(TaskStatus.STOPPING, ASKED, ASKED, None, id="stopping"),
        pytest.param(TaskStatus.RUNNING, ASKED, ASKED, "UserInitiated", id="asked-to-stop"),
    ],
)
async def test_shim_that_ended_with_the_machine_is_not_the_reason(
    tmp_path: Path, status: TaskStatus, stop_reason: str | None, said: str, code: str | None
) -> None:
    lost = "ContainerRuntimeError: nobody knows how the container ended: ttrpc: closed"
    record = TaskRecord(message=task_message(), boot_id="boot-1", stop_reason=stop_reason)
    record.facts = TaskFacts(
        status=status,
        reason=None if status is TaskStatus.RUNNING else stop_reason or lost,
        containers={
            "web": ContainerFacts(
                name="web", runtime_id="1", runs=[RunFacts(started_at=MOMENT)], reason=lost
            ),
            "log": ContainerFacts(
                name="log", runtime_id="2", runs=[RunFacts(started_at=MOMENT, exit_code=3)]
            ),
        },
    )
    await TaskStore(tmp_path / "records").write(TASK_ID, record)
    desk = Desk(tmp_path, fake_drivers(), boot_id="boot-2")

    async with desk.serving():
        change = await desk.wait_for(TaskStatus.STOPPED)

    assert (change.reason, change.stop_code) == (said, code)
    assert {container.name: container.reason for container in change.containers} == {
        "web": "ContainerRuntimeError: the machine was restarted while the container ran",
        "log": None,
    }


UNREADABLE = [
    pytest.param('{"message": ', "Invalid JSON", id="cut-off"),
    pytest.param("", "Invalid JSON", id="empty"),
    pytest.param('{"version": 2}', "message: Field required", id="lacks-something"),
    pytest.param('{"facts": []}', "message: Field required", id="of-the-first-version"),
    pytest.param(
        '{"version": 3, "message": {}}',
        "it has version 3, this agent knows versions up to 2",
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


@pytest.mark.parametrize("has_record", [True, False])
async def test_containers_that_may_be_there_are_asked_for(running: Path, has_record: bool) -> None:
    if has_record:
        write_record(running, "")
    desk = Desk(running, fake_drivers())

    async with desk.serving() as supervisor:
        await supervisor.apply(task_message())
        await desk.wait_for(TaskStatus.RUNNING)

    assert ("exists web" in desk.drivers.diary.calls) is has_record


async def test_end_that_the_agent_before_had_written_down_ends_the_task(tmp_path: Path) -> None:
    record = TaskRecord(message=task_message(), boot_id="boot-1")
    run = RunFacts(created_at=MOMENT, started_at=MOMENT, finished_at=MOMENT, exit_code=5)
    web = ContainerFacts(name="web", runtime_id="1", status=ContainerStatus.STOPPED, runs=[run])
    record.facts = TaskFacts(status=TaskStatus.RUNNING, containers={"web": web})
    await TaskStore(tmp_path / "records").write(TASK_ID, record)
    desk = Desk(tmp_path, fake_drivers())

    async with desk.serving():
        change = await desk.wait_for(TaskStatus.STOPPED)

    assert change.reason == "Essential container in task exited"
    assert change.containers[0].exit_code == 5
    assert not {"create web", "start web"} & set(desk.drivers.diary.calls)


async def test_reboot_between_two_runs_leaves_the_exit_code_of_the_first(tmp_path: Path) -> None:
    record = TaskRecord(message=task_message(), boot_id="boot-1")
    run = RunFacts(created_at=MOMENT, started_at=MOMENT, finished_at=MOMENT, exit_code=5)
    web = ContainerFacts(name="web", runtime_id="1", status=ContainerStatus.RUNNING, runs=[run])
    record.facts = TaskFacts(status=TaskStatus.RUNNING, containers={"web": web})
    await TaskStore(tmp_path / "records").write(TASK_ID, record)
    desk = Desk(tmp_path, fake_drivers(), boot_id="boot-2")

    async with desk.serving():
        change = await desk.wait_for(TaskStatus.STOPPED)

    assert change.reason == REBOOTED
    assert change.containers[0].exit_code == 5
    assert "restart web" not in desk.drivers.diary.calls


async def test_record_of_an_agent_that_knew_one_run_of_a_container_is_read(tmp_path: Path) -> None:
    store = TaskStore(tmp_path / "records")
    web = ContainerFacts(name="web", runtime_id="r-1", status=ContainerStatus.STOPPED)
    facts = TaskFacts(containers={"web": web, "log": ContainerFacts(name="log", runtime_id="r-2")})
    await store.write(TASK_ID, TaskRecord(message=task_message(), boot_id="boot-1", facts=facts))
    path = tmp_path / "records" / f"{TASK_ID}.json"
    record = json.loads(path.read_text())
    del record["version"]
    for container in record["facts"]["containers"].values():
        for member in ("runs", "restart_count", "health", "essential"):
            del container[member]
        container |= dict.fromkeys(["created_at", "started_at", "finished_at", "exit_code"])
    moments = {"created_at": "2026-01-05T10:00:06Z", "started_at": "2026-01-05T10:00:07Z"}
    record["facts"]["containers"]["web"] |= moments | {"exit_code": 0}
    record["facts"]["containers"]["log"]["reason"] = "its logger has ended"
    path.write_text(json.dumps(record))

    read = (await store.read_all()).records[TASK_ID]

    web, log = read.facts.containers.values()
    assert read.version == 2
    assert (web.started_at, web.exit_code, web.finished_at) == (MOMENT, 0, None)
    assert (len(web.runs), log.runs) == (1, [])
    assert log.reason == "its logger has ended"
