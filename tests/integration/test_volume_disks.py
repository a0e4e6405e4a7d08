"""Files that hold file systems, on real loop devices; tests look at their own only."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fargate_agent.volumes import file_system_programs, loop
from fargate_agent.volumes.disks import (
    make_file_system,
    mount_disk,
    mount_file,
    shut_down,
    unmount_disk,
)
from fargate_agent.volumes.file_system_programs import NoProgramError
from fargate_agent.volumes.loop import NoLoopDevicesError, attach
from fargate_agent.volumes.mounts import list_mounts, unmount
from tests.fixtures.storage import find_loop_devices

pytestmark = pytest.mark.root

SIZE_BYTES = 64 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file with an ext4 in it, and a directory `mnt` beside it."""
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(SIZE_BYTES)
        make_file_system(file.fileno(), "ext4", ("-q", "-F"))
    (tmp_path / "mnt").mkdir()
    yield path
    unmount(tmp_path / "mnt")


def test_a_disk_is_mounted_as_often_as_asked_and_keeps_what_was_written(disk: Path) -> None:
    mountpoint = disk.with_name("mnt")
    mount_disk(disk, "ext4", mountpoint)
    (mountpoint / "kept").write_text("x")
    mount_disk(disk, "ext4", mountpoint)
    assert len(find_loop_devices(disk)) == 1

    unmount_disk(mountpoint)
    unmount_disk(mountpoint)
    assert not find_loop_devices(disk)
    assert not list(mountpoint.iterdir())

    mount_disk(disk, "ext4", mountpoint, read_only=True)
    assert (mountpoint / "kept").read_text() == "x"
    with pytest.raises(OSError, match="Read-only file system"):
        (mountpoint / "no").touch()


def test_a_disk_that_is_shut_down_is_not_mounted_a_second_time(tmp_path: Path) -> None:
    """The root of such an XFS answers no stat."""
    disk, mountpoint = tmp_path / "disk.img", tmp_path / "mnt"
    mountpoint.mkdir()
    with disk.open("wb") as file:
        file.truncate(320 << 20)
        make_file_system(file.fileno(), "xfs", ("-q",))
    mount_disk(disk, "xfs", mountpoint)
    try:
        shut_down(mountpoint)
        shut_down(mountpoint)
        mount_disk(disk, "xfs", mountpoint)

        assert [one.mountpoint for one in list_mounts(tmp_path)] == [mountpoint]
    finally:
        unmount(mountpoint)


def test_neither_devices_nor_set_uid_programs_work_on_a_disk(disk: Path) -> None:
    mountpoint = disk.with_name("mnt")
    mount_disk(disk, "ext4", mountpoint)
    flags = os.statvfs(mountpoint).f_flag
    assert flags & os.ST_NODEV
    assert flags & os.ST_NOSUID


def test_a_mount_without_a_place_goes_when_it_is_closed(disk: Path) -> None:
    with disk.open("r+b") as file:
        mount, _ = mount_file(file.fileno(), "ext4")
    assert find_loop_devices(disk)
    mount.close()
    mount.close()
    assert not find_loop_devices(disk)
    with pytest.raises(OSError, match="closed"):
        mount.place(disk.with_name("mnt"))


def test_an_open_file_doesnt_keep_a_disk_mounted(disk: Path) -> None:
    mountpoint = disk.with_name("mnt")
    mount_disk(disk, "ext4", mountpoint)
    with (mountpoint / "open").open("w"):
        unmount_disk(mountpoint)
        assert not os.path.ismount(mountpoint)
        assert find_loop_devices(disk), "it is still in use"
    assert not find_loop_devices(disk)


def test_mounts_are_listed_so_that_they_can_be_taken_away(disk: Path) -> None:
    mountpoint = disk.with_name("mnt")
    mount_disk(disk, "ext4", mountpoint)
    inner = mountpoint / "with space"
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", inner], check=True)
    found = list_mounts(disk.parent)
    assert [(one.mountpoint, one.filesystem) for one in found] == [
        (inner, "tmpfs"),
        (mountpoint, "ext4"),
    ]
    assert found[1].device.startswith("7:")
    unmount(mountpoint)
    assert not list_mounts(disk.parent)


def test_what_is_no_file_system_is_refused_and_leaves_no_device(tmp_path: Path) -> None:
    empty = tmp_path / "empty.img"
    empty.write_bytes(bytes(1 << 20))
    with pytest.raises(OSError, match="Invalid argument") as refusal:
        mount_disk(empty, "ext4", tmp_path)
    assert refusal.value.filename.startswith("/dev/loop")
    assert not find_loop_devices(empty)


def test_a_file_is_attached_once_more_if_the_device_is_taken_meanwhile(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop._open_free
    offered: list[Path] = []

    def open_taken(*, read_only: bool) -> tuple[Path, int]:
        if not offered:
            offered.append(taken.path)
            return taken.path, os.open(taken.path, os.O_RDWR)
        return real(read_only=read_only)

    with disk.open("r+b") as file, attach(file.fileno()) as taken:
        monkeypatch.setattr(loop, "_open_free", open_taken)
        with attach(file.fileno()) as device:
            assert device.path != taken.path
    assert offered
    assert not find_loop_devices(disk)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EPERM])
def test_without_loop_devices_the_reason_is_told(
    disk: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    control = disk.with_name("loop-control")

    def open_control(path: Path, flags: int) -> int:
        raise NoLoopDevicesError(code, os.strerror(code), str(path))

    monkeypatch.setattr(loop, "CONTROL", control)
    if code == errno.EPERM:  # root is refused nothing by a mode
        monkeypatch.setattr(loop, "_open", open_control)
    with pytest.raises(NoLoopDevicesError, match=os.strerror(code)):
        loop.check_loop_devices()
    with pytest.raises(NoLoopDevicesError, match=os.strerror(code)):
        mount_disk(disk, "ext4", disk.with_name("mnt"))


def test_mkfs_that_isnt_there_fails_or_hangs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_system_programs, "_PATH", str(tmp_path))
    with (tmp_path / "file").open("w+b") as file:
        with pytest.raises(NoProgramError, match="mkfs.ext4 is not installed"):
            make_file_system(file.fileno(), "ext4")
        program = tmp_path / "mkfs.ext4"
        program.write_text("#!/bin/sh\necho no room >&2\nexit 3\n")
        program.chmod(0o755)
        with pytest.raises(OSError, match="mkfs.ext4 failed with 3: no room"):
            make_file_system(file.fileno(), "ext4")
        program.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
        with pytest.raises(OSError, match="mkfs.ext4 did not end within 0.1 s"):
            make_file_system(file.fileno(), "ext4", timeout_s=0.1)
