"""Ephemeral volumes of tasks, on real loop devices."""

import asyncio
import errno
import os
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import TaskPlan, plan_task
from fargate_agent.volumes import bounded, ephemeral, file_system_programs, loop
from fargate_agent.volumes.bounded import GIB, IMAGE
from fargate_agent.volumes.ephemeral import UNBOUNDED, EphemeralVolumes
from fargate_agent.volumes.loop import NoLoopDevicesError
from fargate_agent.volumes.mounts import list_mounts
from fargate_agent.volumes.room import Room
from tests.fixtures.machine import wait_for
from tests.fixtures.storage import find_loop_devices_below, make_storage
from tests.messages import site, task_arn, task_message

pytestmark = pytest.mark.root

DEADLINE_S = 20
NO_SPACE = "No space left on device"


def plan(directory: Path, size_gib: int = 20) -> TaskPlan:
    task = plan_task(task_message(arn=task_arn(uuid.uuid4().hex)), site(directory))
    return replace(task, ephemeral_storage_gib=size_gib)


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[EphemeralVolumes]:
    """The driver; nothing of what it made is left after the test, and nothing of the test's."""
    async with make_storage(tmp_path) as storage:
        yield storage
        await storage.sweep(())
    wait_for(lambda: not find_loop_devices_below(tmp_path), "no loop device", DEADLINE_S)
    assert not list_mounts(tmp_path)


@pytest.fixture
async def served(storage: EphemeralVolumes, tmp_path: Path) -> AsyncIterator[EphemeralVolumes]:
    """The same with a spare."""
    job = asyncio.create_task(storage.serve())
    await asyncio.to_thread(wait_for, lambda: storage._spare is not None, "a spare", DEADLINE_S)
    yield storage
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job


def disk_use(directory: Path) -> int:
    found = os.statvfs(directory)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@pytest.mark.parametrize("size_gib", [20, 21, 200])
async def test_a_volume_has_the_size_that_was_asked_for_and_is_for_root_alone(
    storage: EphemeralVolumes, tmp_path: Path, size_gib: int
) -> None:
    task = plan(tmp_path, size_gib)
    await storage.ensure(task)

    use = await storage.usage(task)
    assert use is not None
    assert 0.97 * size_gib * GIB < use.size_bytes <= size_gib * GIB
    assert use.used_bytes < 1 << 20
    assert (task.directory / IMAGE).stat().st_blocks * 512 < 20 << 20, "it is sparse"
    found = os.statvfs(task.storage)
    assert found.f_flag & os.ST_NODEV
    assert found.f_flag & os.ST_NOSUID
    for directory in (task.directory, task.storage):
        assert oct(directory.stat().st_mode) == "0o40700"
    assert oct((task.directory / IMAGE).stat().st_mode) == "0o100600"

    await storage.release(task)
    assert not list(task.directory.iterdir())


async def test_what_is_there_is_left_as_it_is(storage: EphemeralVolumes, tmp_path: Path) -> None:
    task = plan(tmp_path)
    await storage.ensure(task)
    (task.storage / "kept").touch()
    await storage.ensure(task)
    async with make_storage(tmp_path) as successor:
        await successor.ensure(task)
        await successor.sweep({task.id})
    assert (task.storage / "kept").exists()
    assert len(list_mounts(task.directory)) == 1
    await storage.release(task)
    await storage.release(task)
    assert await storage.usage(task) is None


async def test_a_spare_is_taken_and_another_one_made(
    served: EphemeralVolumes, tmp_path: Path
) -> None:
    spare = served._spare
    assert spare is not None
    inode = os.fstat(spare.file).st_ino
    first, second, large = plan(tmp_path), plan(tmp_path), plan(tmp_path, 21)
    await served.ensure(large)
    assert served._spare is spare, "it has another size"
    await served.ensure(first)
    assert (first.directory / IMAGE).stat().st_ino == inode
    await served.ensure(second)  # made on demand, from the template

    for task in (first, second, large):
        (task.storage / "mine").write_text(task.id)
    for task in (first, second, large):
        assert (task.storage / "mine").read_text() == task.id

    def has_another() -> bool:
        return served._spare not in (None, spare)

    await asyncio.to_thread(wait_for, has_another, "another spare", DEADLINE_S)


async def test_many_start_at_once(served: EphemeralVolumes, tmp_path: Path) -> None:
    tasks = [plan(tmp_path) for _ in range(12)]
    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(served.ensure(task))
    assert len({task.storage.stat().st_dev for task in tasks}) == len(tasks)
    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(served.release(task))
    assert not [one for one in list_mounts(tmp_path) if one.mountpoint.name == "storage"]


async def test_a_start_that_is_given_up_leaves_nothing(
    storage: EphemeralVolumes, tmp_path: Path
) -> None:
    for pauses in range(4):
        task = plan(tmp_path)
        job = asyncio.create_task(storage.ensure(task))
        for _ in range(pauses):
            await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await storage.release(task)
    assert not find_loop_devices_below(tmp_path)


async def test_a_full_volume_says_so_and_its_space_comes_back(
    storage: EphemeralVolumes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ephemeral, "GIB", 16 << 20)  # 20 of which are 320 MiB
    full, neighbour = plan(tmp_path), plan(tmp_path, 21)
    before = disk_use(tmp_path)
    await storage.ensure(full)
    await storage.ensure(neighbour)
    with (full.storage / "big").open("wb") as file, pytest.raises(OSError, match=NO_SPACE):
        os.posix_fallocate(file.fileno(), 0, 340 << 20)
    with (full.storage / "big").open("wb") as file:
        file.write(bytes(64 << 20))
        file.flush()
        os.fsync(file.fileno())
    assert (full.directory / IMAGE).stat().st_blocks * 512 > 60 << 20
    (neighbour.storage / "small").write_bytes(bytes(1 << 20))

    (full.storage / "big").unlink()
    os.sync()
    image = full.directory / IMAGE
    wait_for(lambda: image.stat().st_blocks * 512 < 30 << 20, "discarded space", DEADLINE_S)

    (full.storage / "dirty").write_bytes(bytes(64 << 20))
    await storage.release(full)
    await storage.release(neighbour)
    wait_for(lambda: disk_use(tmp_path) < before + (60 << 20), "space on the disk", DEADLINE_S)


async def test_files_run_out_before_the_host_has_too_few(
    storage: EphemeralVolumes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ephemeral, "GIB", 1 << 20)
    task = plan(tmp_path)
    await storage.ensure(task)
    files = os.statvfs(task.storage)
    assert 0 < files.f_files < os.statvfs(tmp_path).f_favail
    for number in range(files.f_ffree):
        (task.storage / str(number)).touch()
    with pytest.raises(OSError, match=NO_SPACE):
        (task.storage / "one more").touch()
    await storage.release(task)


async def test_the_space_is_back_though_a_stranger_holds_a_copy_of_the_mount(
    storage: EphemeralVolumes, tmp_path: Path
) -> None:
    task = plan(tmp_path)
    await storage.ensure(task)
    with (task.storage / "big").open("wb") as file:
        file.write(bytes(64 << 20))
        file.flush()
        os.fsync(file.fileno())
    image = os.open(task.directory / IMAGE, os.O_RDONLY)
    stranger = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE
    )
    try:
        assert stranger.stdout is not None
        stranger.stdout.read(1)
        await storage.release(task)
        assert os.fstat(image).st_blocks * 512 < 1 << 20
        assert not (task.directory / IMAGE).exists()
    finally:
        os.close(image)
        stranger.send_signal(signal.SIGKILL)
        stranger.communicate()


async def test_a_process_in_the_volume_doesnt_keep_it(
    storage: EphemeralVolumes, tmp_path: Path
) -> None:
    task = plan(tmp_path)
    await storage.ensure(task)
    with (task.storage / "open").open("w"):
        await storage.release(task)
    assert not task.storage.exists()


async def test_mounts_and_files_of_tasks_that_nobody_answers_for_are_swept(
    storage: EphemeralVolumes, tmp_path: Path
) -> None:
    kept, left, image_only = plan(tmp_path), plan(tmp_path), plan(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    for task in (kept, left):
        await storage.ensure(task)
        inner = task.storage / "volumes" / "v"
        inner.mkdir(parents=True)
        subprocess.run(["mount", "--bind", outside, inner], check=True)
    image_only.directory.mkdir()
    (image_only.directory / IMAGE).write_bytes(b"x")

    swept = await storage.sweep({kept.id})

    assert len(swept) == 3
    assert {Path(one).relative_to(tmp_path / "tasks").parts[0] for one in swept} == {
        left.id,
        image_only.id,
    }
    assert not list(left.directory.iterdir())
    assert not list(image_only.directory.iterdir())
    assert (outside / "precious").exists()
    assert (kept.storage / "volumes" / "v" / "precious").exists()


async def test_a_task_of_an_older_agent_goes_on_with_its_directories(
    storage: EphemeralVolumes, tmp_path: Path
) -> None:
    task = plan(tmp_path)
    for name in ("etc", "volumes"):
        (task.directory / name).mkdir(parents=True)
    (task.directory / "etc" / "hosts").write_text("old")

    await storage.ensure(task)
    await storage.ensure(task)

    assert (task.storage / "etc" / "hosts").read_text() == "old"
    assert await storage.usage(task) is None
    assert not (task.directory / IMAGE).exists()
    await storage.release(task)
    assert sorted(one.name for one in task.directory.iterdir()) == ["etc", "volumes"]


def refuse_loop_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        raise NoLoopDevicesError(errno.ENOENT, "No such file or directory", "/dev/loop-control")

    monkeypatch.setattr(bounded, "check_loop_devices", check)


def remove_mkfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_system_programs, "_PATH", "/nowhere")


def refuse_loop_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_free(*, read_only: bool) -> tuple[Path, int]:
        raise NoLoopDevicesError(errno.EPERM, "Operation not permitted", "/dev/loop9")

    monkeypatch.setattr(loop, "_open_free", open_free)


@pytest.mark.parametrize(
    ("take_away", "why"),
    [
        (refuse_loop_devices, "No such file or directory (/dev/loop-control)"),
        (refuse_loop_mounts, "Operation not permitted (/dev/loop9)"),
        (remove_mkfs, "mkfs.ext4 is not installed"),
    ],
)
async def test_where_nothing_can_be_bounded_it_is_said_or_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    take_away: Callable[[pytest.MonkeyPatch], None],
    why: str,
) -> None:
    take_away(monkeypatch)
    notes: list[tuple[str, str]] = []
    async with make_storage(tmp_path, notes) as storage:
        task = plan(tmp_path)
        await storage.ensure(task)
        (task.storage / "etc").mkdir()
        assert notes == [(f"no volume can be bounded: {why}", UNBOUNDED)]
        assert await storage.usage(task) is None
        monkeypatch.undo()
        await storage.ensure(task)
        assert not os.path.ismount(task.storage), "a running task keeps its directories"
        await storage.release(task)
        assert not list(task.directory.iterdir())

    take_away(monkeypatch)
    async with make_storage(tmp_path, require_limit=True) as storage:
        task = plan(tmp_path)
        with pytest.raises(ResourceInitializationError) as refusal:
            await storage.ensure(task)
        assert why in refusal.value.detail
        assert "require_ephemeral_storage_limit" in refusal.value.detail
        await storage.release(task)


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A tmpfs of 64 MiB: a file system that refuses little and is full soon."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", directory], check=True)
    return directory


async def test_a_task_starts_on_a_small_disk_until_that_is_full(small_disk: Path) -> None:
    try:
        async with make_storage(small_disk, margin_mib=32) as storage:
            first, second = plan(small_disk), plan(small_disk)
            await storage.ensure(first)
            (small_disk / "filler").write_bytes(bytes(32 << 20))
            with pytest.raises(ResourceInitializationError) as refusal:
                await storage.ensure(second)
            assert f"the disk of {small_disk} has " in refusal.value.detail
            assert "less than the 32 MiB that are kept free" in refusal.value.detail
            for task in (first, second):
                await storage.release(task)
            assert not list(second.directory.iterdir())
    finally:
        subprocess.run(["umount", small_disk], check=True)


async def test_a_reserved_volume_has_its_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ephemeral, "GIB", 4 << 20)  # 20 of which are 80 MiB
    async with make_storage(tmp_path, mode="reserved") as storage:
        task = plan(tmp_path)
        await storage.ensure(task)
        image = task.directory / IMAGE
        assert image.stat().st_blocks * 512 >= 80 << 20
        (task.storage / "file").write_bytes(bytes(16 << 20))
        (task.storage / "file").unlink()
        os.sync()
        assert image.stat().st_blocks * 512 >= 80 << 20, "nothing is given back"
        await storage.release(task)
        assert not image.exists()


async def test_a_reserved_volume_that_the_disk_lost_room_for_leaves_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ephemeral, "GIB", 4 << 20)
    monkeypatch.setattr(Room, "admit", lambda *_: None)  # somebody else was faster
    try:
        async with make_storage(small_disk, mode="reserved") as storage:
            task = plan(small_disk)
            with pytest.raises(ResourceInitializationError, match="has no room for 80 MiB"):
                await storage.ensure(task)
            await storage.release(task)
            wait_for(lambda: disk_use(small_disk) < 1 << 20, "space", DEADLINE_S)
    finally:
        subprocess.run(["umount", small_disk], check=True)
