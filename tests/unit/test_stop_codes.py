"""Why a task ends is decided once, and outlives the agent that has decided it."""

import asyncio
import json
from pathlib import Path

from fargate_agent.plan import plan_task
from fargate_agent.task.runner import TaskRun, run_task
from fargate_agent.task.status import StopCode, TaskFacts, TaskStatus
from fargate_agent.task.store import TaskRecord, TaskStore
from tests.fakes import fake_drivers
from tests.messages import TASK_ID, site, task_message

REFUSED = "CannotPullContainerError: refused"


async def report_end(directory: Path) -> tuple[str | None, str | None]:
    """Let an agent go on with the stopping task of a record; return reason and code of its end."""
    record = (await TaskStore(directory).read_all()).records[TASK_ID]
    run = TaskRun(
        plan=plan_task(record.message, site(directory), record.metadata_key),
        stop=asyncio.get_running_loop().create_future(),
        facts=record.facts,
    )
    changes = []

    async def report(run: TaskRun) -> None:
        changes.append(run.change())

    await run_task(run, fake_drivers().all, report)
    assert changes[-1].status is TaskStatus.STOPPED
    return changes[-1].reason, changes[-1].stop_code


async def test_code_of_a_stopping_task_is_in_its_record(tmp_path: Path) -> None:
    facts = TaskFacts(
        status=TaskStatus.STOPPING, reason=REFUSED, stop_code=StopCode.TASK_FAILED_TO_START
    )
    record = TaskRecord(message=task_message(), boot_id="boot-1", facts=facts)
    await TaskStore(tmp_path).write(TASK_ID, record)

    assert await report_end(tmp_path) == (REFUSED, "TaskFailedToStart")


async def test_record_of_an_agent_that_knew_no_code_gives_none(tmp_path: Path) -> None:
    facts = TaskFacts(status=TaskStatus.STOPPING, reason=REFUSED)
    record = TaskRecord(message=task_message(), boot_id="boot-1", facts=facts)
    await TaskStore(tmp_path).write(TASK_ID, record)
    (file,) = tmp_path.glob("*.json")
    written = json.loads(file.read_text())
    del written["facts"]["stop_code"]
    file.write_text(json.dumps(written))

    assert await report_end(tmp_path) == (REFUSED, None)
