"""EBS volumes on real loop devices, with the file systems that they can have."""

import asyncio
import os
import stat
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import TaskPlan, VolumePlan, plan_task
from fargate_agent.trees import remove_tree
from fargate_agent.volumes.disks import make_file_system
from fargate_agent.volumes.ebs import EbsVolumes
from fargate_agent.volumes.mounts import list_mounts
from fargate_agent.volumes.room import Mode, Room
from fargate_agent.wire.volume_kinds import VolumeKind
from tests.fixtures.machine import wait_for
from tests.fixtures.storage import find_loop_devices_below
from tests.messages import site, task_arn, task_message

pytestmark = pytest.mark.root

GIB = 1 << 30
SNAPSHOT = "snap-0123456789abcdef0"
FILE_SYSTEMS = ["ext3", "ext4", "xfs"]


@dataclass(kw_only=True)
class Place:
    """A directory with volumes of tasks."""

    directory: Path
    snapshots: dict[str, Path] = field(default_factory=dict)
    made: list[tuple[TaskPlan, VolumePlan]] = field(default_factory=list)
    mode: Mode = "sparse"
    margin_mib: int = 1

    @property
    def room(self) -> Room:
        return Room(self.directory / "tasks", self.mode, self.margin_mib)

    @property
    def driver(self) -> EbsVolumes:
        """An agent's driver; each time another agent's."""
        return EbsVolumes(self.directory / "ebs", self.snapshots, self.room)

    def plan(
        self, number: int = 1, name: str = "data", **changes: Any
    ) -> tuple[TaskPlan, VolumePlan]:
        """Plan the volume of a task; `changes` are those of its plan."""
        told = {"name": name, "ebs": {"volumeId": f"vol-{number:017x}", "sizeGib": 1}}
        message = task_message(arn=task_arn(f"{number:032x}"), volumes=[told])
        task = plan_task(message, site(self.directory))
        (volume,) = task.volumes
        assert volume.kind is VolumeKind.EBS
        assert volume.ebs is not None
        volume = replace(volume, ebs=replace(volume.ebs, **{"filesystem_type": "ext4", **changes}))
        task.directory.mkdir(parents=True, exist_ok=True)
        self.made.append((task, volume))
        return task, volume

    async def ensure(
        self, number: int = 1, name: str = "data", **changes: Any
    ) -> tuple[TaskPlan, VolumePlan]:
        """Make the volume of a task; `changes` are those of its plan."""
        task, volume = self.plan(number, name, **changes)
        await self.driver.ensure(task, volume)
        return task, volume

    @property
    def kept(self) -> list[str]:
        """Names of the files of volumes that outlive their tasks."""
        return sorted(path.name for path in (self.directory / "ebs").glob("*"))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """A place that has nothing mounted afterwards."""
    place = Place(directory=tmp_path)
    yield place
    for task, volume in place.made:
        await place.driver.release(task, volume)
    assert list_mounts(tmp_path) == []
    assert find_loop_devices_below(tmp_path) == []


@asynccontextmanager
async def small_disk(place: Place, size_mib: int) -> AsyncIterator[None]:
    """Have the place on a disk of its own during the body."""
    place.directory /= "disk"
    place.directory.mkdir()
    options = f"size={size_mib}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place.directory], check=True)
    try:
        yield
    finally:
        while place.made:
            await place.driver.release(*place.made.pop())
        subprocess.run(["umount", place.directory], check=True)


def mounted(volume: VolumePlan) -> list[str]:
    return [one.filesystem for one in list_mounts(volume.source.parent)]


def make_image(path: Path, filesystem: str, size_bytes: int = 512 << 20) -> None:
    """Make a file with a file system, as an operator does."""
    with path.open("wb") as file:
        file.truncate(size_bytes)
    with path.open("rb+") as file:
        make_file_system(file.fileno(), filesystem, ["-q"])


@pytest.mark.parametrize("filesystem", FILE_SYSTEMS)
async def test_volume_has_the_file_system_and_size_asked_for(place: Place, filesystem: str) -> None:
    _, volume = await place.ensure(filesystem_type=filesystem, size_gib=2)

    about, root = os.statvfs(volume.source), volume.source.stat()
    assert mounted(volume) == [filesystem]
    assert 1.8 * GIB < about.f_blocks * about.f_frsize <= 2 * GIB
    assert (root.st_uid, root.st_gid, root.st_mode & 0o7777) == (0, 0, 0o755)
    assert about.f_flag & os.ST_NODEV
    assert about.f_flag & os.ST_NOSUID


async def test_full_volume_is_full_and_deleted_files_give_the_disk_back(place: Place) -> None:
    _, volume = await place.ensure()
    image = volume.source.with_name(f"vol-{1:017x}.img")
    path = volume.source / "big"

    with path.open("wb") as file, pytest.raises(OSError, match="No space left"):
        os.posix_fallocate(file.fileno(), 0, 2 * GIB)
    with path.open("wb") as file:
        file.write(b"x" * (64 << 20))
        os.fsync(file.fileno())
    before = image.stat().st_blocks
    path.unlink()
    subprocess.run(["sync", "-f", volume.source], check=True)

    assert before * 512 > 64 << 20
    # ext4 tells the disk what is free when its transaction is over, by a worker of the kernel
    wait_for(lambda: image.stat().st_blocks * 512 < 32 << 20, "discarded space", 20)


@pytest.mark.parametrize("filesystem", FILE_SYSTEMS)
async def test_volume_begins_as_its_snapshot(place: Place, filesystem: str) -> None:
    _, origin = await place.ensure(1, filesystem_type=filesystem, delete_on_termination=False)
    (origin.source / "file").write_text("of the snapshot")
    await place.driver.release(*place.made.pop())
    place.snapshots[SNAPSHOT] = place.directory / "ebs" / f"vol-{1:017x}.img"

    changes = {"snapshot_id": SNAPSHOT, "filesystem_type": filesystem}
    _, same = await place.ensure(2, **changes, size_gib=None)
    _, larger = await place.ensure(3, **changes, size_gib=3)

    sizes = [
        os.statvfs(one.source).f_blocks * os.statvfs(one.source).f_frsize for one in (same, larger)
    ]
    texts = [(one.source / "file").read_text() for one in (same, larger)]
    assert texts == ["of the snapshot"] * 2
    assert 0.8 * GIB < sizes[0] <= GIB
    assert 2.7 * GIB < sizes[1] <= 3 * GIB
    (same.source / "file").write_text("changed")
    assert (larger.source / "file").read_text() == "of the snapshot"


async def test_snapshot_is_copied_from_another_file_system(place: Place) -> None:
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        place.snapshots[SNAPSHOT] = Path(elsewhere) / "image"
        make_image(place.snapshots[SNAPSHOT], "ext4")
        assert Path(elsewhere).stat().st_dev != place.directory.stat().st_dev

        _, volume = await place.ensure(snapshot_id=SNAPSHOT, size_gib=None)

    assert mounted(volume) == ["ext4"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param(
            {"snapshot_id": "snap-00000000"},
            "the snapshot 'snap-00000000' of the volume 'data' is not in the agent's setting "
            "ebs_snapshots",
            id="unknown",
        ),
        pytest.param(
            {"snapshot_id": SNAPSHOT, "filesystem_type": "xfs"},
            "its file has no file system xfs",
            id="other file system",
        ),
        pytest.param(
            {"snapshot_id": SNAPSHOT}, "less than the 1.5 GiB of its snapshot", id="too small"
        ),
        pytest.param(
            {"snapshot_id": "snap-11111111"}, "its file can't be opened: No such file", id="gone"
        ),
        pytest.param(
            {"snapshot_id": "snap-22222222"}, "its file can't be read: Is a directory", id="dir"
        ),
    ],
)
async def test_snapshot_that_can_not_be_the_volume_is_refused(
    place: Place, changes: dict[str, Any], text: str
) -> None:
    image = place.directory / "image"
    make_image(image, "ext4", 3 * GIB // 2)
    place.snapshots |= {
        SNAPSHOT: image,
        "snap-11111111": place.directory / "gone",
        "snap-22222222": place.directory,
    }

    with pytest.raises(ResourceInitializationError) as error:
        await place.ensure(**changes)

    assert text in str(error.value)


async def test_volume_goes_with_its_task_or_stays_as_it_is(place: Place) -> None:
    gone, kept = await place.ensure(1), await place.ensure(2, delete_on_termination=False)
    for _, volume in (gone, kept):
        (volume.source / "file").write_text("x")

    for task, volume in (gone, kept):
        await place.driver.release(task, volume)

    assert place.kept == [f"vol-{2:017x}.img"]
    assert [list(task.directory.iterdir()) for task, _ in (gone, kept)] == [[], []]
    await place.driver.ensure(*kept)
    assert (kept[1].source / "file").read_text() == "x"


async def test_volume_of_a_task_that_is_gone_is_taken_back_by_place_alone(place: Place) -> None:
    tasks = [await place.ensure(1), await place.ensure(2, delete_on_termination=False)]

    for task, _ in tasks:  # as the sweeps do, which know no volumes
        for mount in list_mounts(task.directory):
            subprocess.run(["umount", mount.mountpoint], check=True)
        remove_tree(task.directory)

    assert place.kept == [f"vol-{2:017x}.img"]
    assert find_loop_devices_below(place.directory) == []


async def test_volume_is_made_again_after_a_reboot_only_if_it_was_never_made(place: Place) -> None:
    task, volume = await place.ensure(delete_on_termination=False)
    (volume.source / "file").write_text("x")
    subprocess.run(["umount", volume.source], check=True)

    await place.driver.ensure(task, volume)

    assert (volume.source / "file").read_text() == "x"
    assert len(mounted(volume)) == 1


async def test_volume_has_as_long_a_name_as_there_is(place: Place) -> None:
    task, volume = await place.ensure(name="v" * 255)
    assert mounted(volume) == ["ext4"]
    await place.driver.release(task, volume)
    assert not volume.source.parent.exists()


async def test_snapshot_that_is_no_file_is_refused_at_once(place: Place) -> None:
    place.snapshots[SNAPSHOT] = place.directory / "pipe"
    os.mkfifo(place.snapshots[SNAPSHOT])
    with pytest.raises(ResourceInitializationError, match="its file can't be read"):
        await place.ensure(snapshot_id=SNAPSHOT)


@pytest.mark.parametrize("name", ["ebs", "ebs/data"])
async def test_link_in_the_place_of_a_volume_is_not_followed(place: Place, name: str) -> None:
    elsewhere = place.directory / "elsewhere"
    elsewhere.mkdir()
    link = place.directory / "tasks" / f"{1:032x}" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)

    with pytest.raises(ResourceInitializationError, match="a link or a file is in the place"):
        await place.ensure()

    assert list(elsewhere.iterdir()) == []
    link.unlink()


async def test_volume_is_refused_when_the_disk_has_no_room(place: Place) -> None:
    place.mode = "counted"
    with pytest.raises(ResourceInitializationError, match="there is no room for 16777216 MiB"):
        await place.ensure(size_gib=16384)

    place.mode, place.margin_mib = "sparse", 1 << 30
    with pytest.raises(ResourceInitializationError, match="1073741824 MiB that are kept free"):
        await place.ensure(size_gib=1)

    assert place.kept == []


async def ensure_both(place: Place, **changes: Any) -> str:
    """Make two volumes at once; return why one is refused."""
    driver = place.driver
    planned = [place.plan(number, **changes) for number in (1, 2)]
    jobs = [asyncio.create_task(driver.ensure(*one)) for one in planned]
    await asyncio.wait(jobs)
    (refused,) = [error for job in jobs if (error := job.exception()) is not None]
    assert isinstance(refused, ResourceInitializationError)
    return str(refused)


async def test_two_volumes_at_once_are_not_promised_the_same_space(place: Place) -> None:
    place.mode = "counted"
    async with small_disk(place, 1600):
        assert "no room for 1024 MiB" in await ensure_both(place)


async def test_two_snapshots_at_once_are_not_copied_into_the_same_space(place: Place) -> None:
    place.snapshots[SNAPSHOT] = place.directory / "image"
    make_image(place.snapshots[SNAPSHOT], "ext4")
    with place.snapshots[SNAPSHOT].open("rb+") as file:  # what no file of it has
        os.pwrite(file.fileno(), b"x" * (64 << 20), 400 << 20)
    async with small_disk(place, 120):
        refusal = await ensure_both(place, snapshot_id=SNAPSHOT)

    assert "MiB of snapshots that are being copied and the 80 MiB of its snapshot" in refusal


async def test_space_of_a_copy_that_failed_is_given_back_in_a_thread(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.snapshots[SNAPSHOT] = place.directory / "image"
    make_image(place.snapshots[SNAPSHOT], "ext4", 3 * GIB // 2)
    close, threads = os.close, []

    def note(descriptor: int) -> None:
        about = os.fstat(descriptor)
        if stat.S_ISREG(about.st_mode) and about.st_nlink == 0 and about.st_size == 3 * GIB // 2:
            threads.append(threading.current_thread())
        close(descriptor)

    monkeypatch.setattr(os, "close", note)
    with pytest.raises(ResourceInitializationError, match="of its snapshot"):
        await place.ensure(snapshot_id=SNAPSHOT)

    assert threads
    assert threading.main_thread() not in threads


async def test_kept_volume_whose_last_write_failed_is_told_of(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with small_disk(place, 24):
        task, volume = await place.ensure(delete_on_termination=False)
        (volume.source / "file").write_bytes(b"x" * (64 << 20))

        await place.driver.release(task, volume)

        assert mounted(volume) == []
        assert place.kept == [f"vol-{1:017x}.img"]
        (told,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
        assert f"the volume 'data' (vol-{1:017x}) is kept, but part of what was" in told


async def test_space_of_a_volume_is_reserved_if_that_is_set(place: Place) -> None:
    place.mode = "reserved"
    _, volume = await place.ensure()

    assert volume.source.with_name(f"vol-{1:017x}.img").stat().st_blocks * 512 >= GIB


async def test_volumes_count_for_their_task(place: Place) -> None:
    task, volume = await place.ensure(1, delete_on_termination=False)
    (volume.source / "file").write_bytes(b"x" * (8 << 20))
    subprocess.run(["sync", "-f", volume.source], check=True)

    (counted,) = place.room.list_volumes().items()

    assert counted[0] == task.id
    assert counted[1].size_bytes == GIB
    assert counted[1].allocated_bytes > 8 << 20
