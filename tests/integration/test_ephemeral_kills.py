"""SIGKILL after each step of making and removing an ephemeral volume: the next agent goes on."""

import multiprocessing
import signal
import uuid
from pathlib import Path

import pytest

from fargate_agent.plan import TaskPlan, plan_task
from fargate_agent.volumes.mounts import list_mounts
from tests.fixtures.machine import wait_for
from tests.fixtures.storage import find_loop_devices_below, make_storage
from tests.fixtures.storage_kills import MAKING, REMOVING, run
from tests.messages import site, task_arn, task_message

pytestmark = pytest.mark.root

DEADLINE_S = 30


@pytest.fixture
def task(tmp_path: Path) -> TaskPlan:
    return plan_task(task_message(arn=task_arn(uuid.uuid4().hex)), site(tmp_path))


def kill_after(step: str, task: TaskPlan, directory: Path) -> None:
    """Have another process make or remove the volume of a task, until it is killed."""
    process = multiprocessing.get_context("forkserver").Process(
        target=run, args=(directory, task.id, step)
    )
    process.start()
    process.join(DEADLINE_S)
    assert process.exitcode == -signal.SIGKILL
    process.close()


def assert_nothing_is_left(directory: Path) -> None:
    assert not list_mounts(directory)
    wait_for(lambda: not find_loop_devices_below(directory), "no loop device", DEADLINE_S)
    assert not list((directory / "tasks").glob("*/*"))


@pytest.mark.parametrize("then", ["it goes on", "it is undone", "it is swept"])
@pytest.mark.parametrize("step", MAKING)
async def test_a_volume_is_made_in_spite_of_a_kill(
    task: TaskPlan, tmp_path: Path, step: str, then: str
) -> None:
    kill_after(step, task, tmp_path)
    async with make_storage(tmp_path) as storage:
        if then == "it goes on":
            await storage.ensure(task)
            (task.storage / "file").touch()
            assert len(list_mounts(tmp_path)) == 1
            await storage.ensure(task)
            assert (task.storage / "file").exists()
            await storage.release(task)
        elif then == "it is undone":
            await storage.release(task)
        else:
            await storage.sweep(())
            if task.storage.exists():  # the sweep of directories takes it, see `sweeping`
                task.storage.rmdir()
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize("then", ["it is undone", "it is swept"])
@pytest.mark.parametrize("step", REMOVING)
async def test_a_volume_is_removed_in_spite_of_a_kill(
    task: TaskPlan, tmp_path: Path, step: str, then: str
) -> None:
    async with make_storage(tmp_path) as storage:
        await storage.ensure(task)
        (task.storage / "file").write_bytes(bytes(1 << 20))
        kill_after(step, task, tmp_path)
        if then == "it is undone":
            await storage.release(task)
        else:
            await storage.sweep(())
            if task.storage.exists():
                task.storage.rmdir()
    assert_nothing_is_left(tmp_path)


async def test_what_is_made_ahead_goes_with_the_process(task: TaskPlan, tmp_path: Path) -> None:
    """It has no name and no place, so there is nothing that somebody could find."""
    kill_after("mount", task, tmp_path)
    wait_for(lambda: not find_loop_devices_below(tmp_path), "no loop device", DEADLINE_S)
    assert not list_mounts(tmp_path)
    assert not list((tmp_path / "tasks").glob("*/*.img"))
