"""SIGKILL after each step of making and removing an EBS volume: the next agent goes on."""

import multiprocessing
import signal
from pathlib import Path

import pytest

from fargate_agent.volumes.mounts import list_mounts
from tests.fixtures.ebs_kills import MAKING, REMOVING, make_driver, plan_ebs, run
from tests.fixtures.machine import wait_for
from tests.fixtures.storage import find_loop_devices_below

pytestmark = pytest.mark.root

DEADLINE_S = 30
ONLY_KEPT, ONLY_GONE = "_give_name 2", "shut_down"
STEPS = [
    *((step, False) for step in (*MAKING, *REMOVING) if step != ONLY_KEPT),
    *((step, True) for step in (*MAKING, *REMOVING) if step != ONLY_GONE),
]
KEPT = "vol-0123456789abcdef0.img"


def kill_after(step: str, directory: Path, *, is_kept: bool) -> None:
    """Have another process make or remove the volume, until it is killed."""
    process = multiprocessing.get_context("forkserver").Process(
        target=run, args=(directory, step, is_kept)
    )
    process.start()
    process.join(DEADLINE_S)
    assert process.exitcode == -signal.SIGKILL
    process.close()


def files(directory: Path) -> list[str]:
    """The files that are left, by their names."""
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


def assert_nothing_is_mounted(directory: Path) -> None:
    assert list_mounts(directory) == []
    wait_for(lambda: not find_loop_devices_below(directory), "no loop device", DEADLINE_S)


@pytest.mark.parametrize("step", MAKING)
async def test_a_volume_is_made_in_spite_of_a_kill(tmp_path: Path, step: str) -> None:
    task, volume = plan_ebs(tmp_path, is_kept=True)
    kill_after(step, tmp_path, is_kept=True)

    await make_driver(tmp_path).ensure(task, volume)
    (volume.source / "file").write_text("x")

    assert len(list_mounts(tmp_path)) == 1
    assert (volume.source / "lost+found").is_dir()
    await make_driver(tmp_path).release(task, volume)
    assert files(tmp_path) == [KEPT]
    assert_nothing_is_mounted(tmp_path)


@pytest.mark.parametrize(("step", "is_kept"), STEPS)
async def test_a_volume_is_removed_in_spite_of_a_kill(
    tmp_path: Path, step: str, is_kept: bool
) -> None:
    task, volume = plan_ebs(tmp_path, is_kept=is_kept)
    if step in REMOVING:
        await make_driver(tmp_path).ensure(task, volume)
    kill_after(step, tmp_path, is_kept=is_kept)

    await make_driver(tmp_path).release(task, volume)

    was_named = MAKING.index(step) >= MAKING.index("_give_name") if step in MAKING else True
    assert files(tmp_path) == ([KEPT] if is_kept and was_named else [])
    assert list(task.directory.iterdir()) == []
    assert_nothing_is_mounted(tmp_path)
