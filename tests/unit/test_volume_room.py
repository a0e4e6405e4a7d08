"""Which volumes the disk has room for, and who is ended before it is full."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from fargate_agent.volumes import room as room_module
from fargate_agent.volumes.bounded import GIB, IMAGE
from fargate_agent.volumes.guard import PATIENCE_S, DiskGuard
from fargate_agent.volumes.mounts import parse_mountinfo
from fargate_agent.volumes.room import MIB, Disk, Mode, NoRoomError, Room, UnnamedFile

Disks = Callable[..., Room]


class Fake:
    """What statvfs says of a disk."""

    f_frsize = 4096

    def __init__(self, free_bytes: int, size_bytes: int) -> None:
        self.f_bavail, self.f_blocks = free_bytes // 4096, size_bytes // 4096


@pytest.fixture
def make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disks:
    def make(
        mode: Mode, free_bytes: int, size_bytes: int = 1000 * GIB, margin_mib: int | None = None
    ) -> Room:
        """Make a room on a disk of which so much is free."""
        monkeypatch.setattr(os, "statvfs", lambda _: Fake(free_bytes, size_bytes))
        return Room(tmp_path / "tasks", mode, margin_mib)

    return make


def add_volume(tasks_dir: Path, task_id: str, size_bytes: int, written_bytes: int = 0) -> None:
    directory = tasks_dir / task_id
    directory.mkdir(parents=True)
    with (directory / IMAGE).open("wb") as file:
        file.truncate(size_bytes)
        file.write(b"x" * written_bytes)


@pytest.mark.parametrize(
    ("size_bytes", "margin_mib", "margin_bytes"),
    [
        pytest.param(1000 * GIB, None, GIB, id="large disk"),
        pytest.param(10 * GIB, None, 10 * GIB // 20, id="small disk"),
        pytest.param(10 * GIB, 3000, 3000 * MIB, id="as set"),
        pytest.param(10 * GIB, 0, 0, id="none"),
    ],
)
def test_what_is_kept_free(
    make_room: Disks, size_bytes: int, margin_mib: int | None, margin_bytes: int
) -> None:
    found = make_room("sparse", GIB, size_bytes, margin_mib).look()
    assert abs(found.margin_bytes - margin_bytes) < 4096


def test_sparse_asks_only_for_the_margin(make_room: Disks, tmp_path: Path) -> None:
    add_volume(tmp_path / "tasks", "a", 200 * GIB)
    make_room("sparse", GIB).admit(200 * GIB)
    with pytest.raises(NoRoomError) as refusal:
        make_room("sparse", GIB - MIB).admit(20 * GIB)
    assert str(refusal.value) == (
        f"the disk of {tmp_path} has 1023 MiB free, less than the 1024 MiB that are kept free"
    )


@pytest.mark.parametrize("mode", ["counted", "reserved"])
def test_what_is_promised_counts(make_room: Disks, tmp_path: Path, mode: Mode) -> None:
    tasks_dir = tmp_path / "tasks"
    add_volume(tasks_dir, "a", 20 * GIB)
    add_volume(tasks_dir, "b", 30 * GIB, written_bytes=MIB)
    (tasks_dir / "c").mkdir()  # a task without a volume
    needed = GIB + 20 * GIB + 30 * GIB - MIB + 21 * GIB
    make_room(mode, needed).admit(21 * GIB)
    with pytest.raises(NoRoomError) as refusal:
        make_room(mode, needed - 4096).admit(21 * GIB)
    assert str(refusal.value) == (
        f"the disk of {tmp_path} has 73726 MiB free; 1024 MiB of it are kept free and 51199 MiB "
        "promised to other tasks, so there is no room for 21504 MiB"
    )


def test_volume_without_a_name_counts_for_its_task(make_room: Disks, tmp_path: Path) -> None:
    add_volume(tmp_path / "tasks", "a", 20 * GIB)
    room = make_room("counted", 101 * GIB)
    with TemporaryFile(dir=tmp_path) as file:
        file.write(b"x" * MIB)
        file.flush()
        with room.counting(UnnamedFile(task_id="a", file=file.fileno(), size_bytes=30 * GIB)):
            assert room.list_volumes()["a"].size_bytes == 50 * GIB
            assert room.list_volumes()["a"].allocated_bytes == MIB
            with pytest.raises(NoRoomError, match="51199 MiB promised to other tasks"):
                room.admit(51 * GIB)
        room.admit(51 * GIB)


def test_snapshot_that_is_being_copied_takes_what_is_still_to_come(
    make_room: Disks, tmp_path: Path
) -> None:
    room = make_room("sparse", GIB + 30 * MIB)
    with TemporaryFile(dir=tmp_path) as file:
        new = UnnamedFile(task_id="a", file=file.fileno(), size_bytes=GIB, data_bytes=20 * MIB)
        with room.counting(new):
            room.admit(GIB, 10 * MIB)
            with pytest.raises(NoRoomError) as refusal:
                room.admit(GIB, 11 * MIB)
            file.write(b"x" * MIB)
            file.flush()
            room.admit(GIB, 11 * MIB)
        room.admit(GIB, 30 * MIB)
    assert str(refusal.value) == (
        f"the disk of {tmp_path} has 1054 MiB free, less than the 1024 MiB that are kept free and "
        "the 20 MiB of snapshots that are being copied and the 11 MiB of its snapshot"
    )


def test_capacity_doesnt_depend_on_what_was_written(make_room: Disks, tmp_path: Path) -> None:
    assert make_room("sparse", 100 * GIB).capacity_gib() is None
    assert make_room("counted", 101 * GIB).capacity_gib() == 100
    add_volume(tmp_path / "tasks", "a", 20 * GIB, written_bytes=8 * MIB)
    assert make_room("counted", 101 * GIB - 8 * MIB).capacity_gib() == 100
    assert make_room("counted", MIB).capacity_gib() == 0


def test_only_reserved_takes_space(make_room: Disks, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(8 * MIB)
        make_room("counted", GIB).reserve(file.fileno(), 8 * MIB)
        assert path.stat().st_blocks == 0
        make_room("reserved", GIB).reserve(file.fileno(), 8 * MIB)
        assert path.stat().st_blocks * 512 == 8 * MIB


def test_a_file_system_that_can_reserve_nothing_is_told(
    make_room: Disks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        def fallocate(self, *_: object) -> int:
            return -1

    monkeypatch.setattr(room_module, "_libc", Refusing())
    room = make_room("reserved", GIB)
    for code, text in ((95, "can't reserve space; set ephemeral_storage"), (28, "has no room for")):
        monkeypatch.setattr(ctypes, "get_errno", lambda code=code: code)
        with pytest.raises(NoRoomError, match=text):
            room.reserve(0, MIB)


def disk(free_mib: int) -> Disk:
    return Disk(free_bytes=free_mib * MIB, size_bytes=100 * GIB, margin_bytes=1024 * MIB)


@pytest.fixture
def guard(tmp_path: Path) -> DiskGuard:
    return DiskGuard(Room(tmp_path, "sparse", None), "the disk of /state", lambda: ())


def test_nobody_is_ended_above_half_of_the_margin(guard: DiskGuard) -> None:
    for free_mib in (5000, 1023, 512):
        assert guard.choose(disk(free_mib), {"a": 5 * GIB, "b": GIB}, 0) is None


def test_who_has_grown_most_since_the_disk_was_in_order_is_ended(guard: DiskGuard) -> None:
    assert guard.choose(disk(2000), {"large": 50 * GIB, "growing": GIB}, 0) is None
    assert guard.choose(disk(1000), {"large": 50 * GIB, "growing": 2 * GIB, "new": GIB}, 1) is None
    sizes = {"large": 50 * GIB + MIB, "growing": 3 * GIB, "new": 2 * GIB}
    assert guard.choose(disk(511), sizes, 2) == "growing"
    assert guard.choose(disk(400), sizes, 3) is None, "it is given time to end"
    assert guard.choose(disk(400), sizes, 2 + PATIENCE_S) == "new", "it doesn't end"
    assert guard.choose(disk(400), sizes, 3 + PATIENCE_S) is None
    del sizes["growing"], sizes["new"]
    assert guard.choose(disk(400), sizes, 4 + PATIENCE_S) == "large"
    assert guard.choose(disk(400), {**sizes, "new": 3 * GIB}, 5 + 2 * PATIENCE_S) == "new"


def test_the_largest_is_ended_if_nobody_has_grown(guard: DiskGuard) -> None:
    assert guard.choose(disk(1), {"a": GIB, "b": 2 * GIB, "plain": 0}, 0) == "b"


def test_nobody_is_ended_who_has_nothing_on_the_disk(guard: DiskGuard) -> None:
    assert guard.choose(disk(1), {"plain": 0}, 0) is None
    assert guard.choose(disk(1), {}, 0) is None


def test_the_reason_names_the_disk_and_its_space(guard: DiskGuard) -> None:
    assert guard.explain(disk(100)) == (
        "OutOfDiskError: the disk of /state is almost full (100 MiB of 102400 MiB free): the task "
        "whose ephemeral volume grew most was ended"
    )


@pytest.mark.parametrize(
    ("line", "mountpoint", "filesystem", "device"),
    [
        ("36 35 7:0 / /a/b rw,nosuid - ext4 /dev/loop0 rw", "/a/b", "ext4", "7:0"),
        (r"36 35 0:9 / /a\040b\134c rw shared:1 master:2 - tmpfs x rw", r"/a b\c", "tmpfs", "0:9"),
    ],
)
def test_the_kernels_list_of_mounts_is_read(
    line: str, mountpoint: str, filesystem: str, device: str
) -> None:
    found = parse_mountinfo(line)
    assert (str(found.mountpoint), found.filesystem, found.device) == (
        mountpoint,
        filesystem,
        device,
    )
