"""EBS volumes: files with a file system of their own, each mounted for one task.

The file of a volume that goes with its task lies in the task's directory, whose removal takes it
along. That of a volume that stays lies in a directory of the agent from the beginning. So the place
alone says what becomes of it, also when the task's record is gone.
"""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.drivers import VolumeDriver
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.namespaces import in_thread
from fargate_agent.plan import EbsPlan, TaskPlan, VolumePlan
from fargate_agent.volumes.disks import find_mkfs, make_file_system, mount_disk, unmount_disk
from fargate_agent.volumes.growing import grow_file, grow_mounted
from fargate_agent.volumes.loop import NoLoopDevicesError, check_loop_devices
from fargate_agent.volumes.mounts import is_listed
from fargate_agent.volumes.snapshots import copy_snapshot
from fargate_agent.wire.attributes import EBS_FILE_SYSTEM, EBS_VOLUMES, Attribute

GIB: Final = 1 << 30
_EXT: Final = ("-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard")
_MKFS: Final = {"ext3": _EXT, "ext4": _EXT, "xfs": ("-q", "-f", "-K")}
"""Arguments of mkfs by the file system: nothing is written that a new file needn't have."""
_MOUNT_FLAGS: Final = {"ext3": (), "ext4": ("discard",), "xfs": ("discard", "nouuid")}
"""What is deleted in a volume is free on the machine's disk again. Copies of one snapshot have the
same UUID, which xfs refuses else. ext3 of a snapshot may be too old to be discarded."""

_SHUTDOWN: Final = 0x8004587D
_NO_LOG_FLUSH: Final = 2
"""Source: Linux, fs/ext4/ext4.h, EXT4_IOC_SHUTDOWN; fs/xfs/xfs_fs.h, XFS_IOC_GOINGDOWN."""


class EbsVolumes(VolumeDriver):
    """Makes them of the size and with the file system asked for, as a snapshot or empty."""

    def __init__(self, directory: Path, snapshots: Mapping[str, Path]) -> None:
        """Touch nothing.

        Args:
            directory: holds the files of volumes that outlive their tasks.
            snapshots: files with file systems by the ids of the snapshots that they stand for.
        """
        self._directory = directory
        self._snapshots = snapshots

    async def ensure(self, task: TaskPlan, volume: VolumePlan) -> None:
        ebs = _read_plan(volume)
        try:
            image = await in_thread(self._prepare, volume, ebs)
            if not await in_thread(image.exists):
                await self._make(image, volume, ebs)
            await in_thread(_mount, image, volume, ebs)
        except NoLoopDevicesError as error:
            raise ResourceInitializationError(
                f"unable to make the volume '{volume.name}': no loop device is to be had on this "
                f"machine: {error.strerror}"
            ) from error
        except OSError as error:
            raise ResourceInitializationError(
                f"unable to make the volume '{volume.name}': {error.strerror}"
            ) from error

    async def release(self, task: TaskPlan, volume: VolumePlan) -> None:
        try:
            await in_thread(_release, volume, _read_plan(volume))
        except OSError as error:
            raise ResourceInitializationError(
                f"unable to remove the volume '{volume.name}': {error.strerror}"
            ) from error

    def read_attributes(self, _root: Path) -> Iterable[Attribute]:
        try:
            check_loop_devices()
        except NoLoopDevicesError:
            return
        yield Attribute(EBS_VOLUMES)
        for filesystem in _MKFS:
            if find_mkfs(filesystem) is not None:
                yield Attribute(f"{EBS_FILE_SYSTEM}{filesystem}")

    def _prepare(self, volume: VolumePlan, ebs: EbsPlan) -> Path:
        """Make the directories of a volume, and return where its file is, or is to be."""
        for directory in (volume.source.parent, volume.source, self._directory):
            if directory == self._directory and ebs.delete_on_termination:
                continue
            with suppress(FileExistsError):
                directory.mkdir(mode=0o700)
            if not stat.S_ISDIR(directory.lstat().st_mode):
                raise OSError(
                    errno.ENOTDIR, f"a link or a file is in the place of {directory.name}"
                )
        if ebs.delete_on_termination:
            return _image_of_task(volume)
        return self._directory / f"{ebs.volume_id}.img"

    async def _make(self, image: Path, volume: VolumePlan, ebs: EbsPlan) -> None:
        """Make the file, which has no name before all of it is there."""
        file = os.open(image.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            if ebs.snapshot_id is None:
                os.ftruncate(file, (ebs.size_gib or 0) * GIB)
                arguments = _MKFS[ebs.filesystem_type]
                await in_thread(make_file_system, file, ebs.filesystem_type, arguments)
            else:
                await copy_snapshot(self._find_snapshot(volume, ebs.snapshot_id), file, volume)
                await in_thread(grow_file, file, ebs)
            await in_thread(_give_name, file, image)
        finally:
            os.close(file)

    def _find_snapshot(self, volume: VolumePlan, snapshot_id: str) -> Path:
        found = self._snapshots.get(snapshot_id)
        if found is None:
            raise ResourceInitializationError(
                f"the snapshot '{snapshot_id}' of the volume '{volume.name}' is not in the agent's "
                "setting ebs_snapshots"
            )
        return found


def _read_plan(volume: VolumePlan) -> EbsPlan:
    if volume.ebs is None:
        raise ResourceInitializationError(f"the volume '{volume.name}' is not configured")
    return volume.ebs


def _image_of_task(volume: VolumePlan) -> Path:
    """Return where the file of a volume is that goes with its task; no volume has such a name."""
    return volume.source.with_name(f"{volume.name}.img")


def _give_name(file: int, image: Path) -> None:
    """Name a nameless file; by a directory's descriptor, since only then links are followed."""
    parent = os.open(image.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
        os.link(f"/proc/self/fd/{file}", image.name, dst_dir_fd=parent, follow_symlinks=True)
    finally:
        os.close(parent)


def _mount(image: Path, volume: VolumePlan, ebs: EbsPlan) -> None:
    kind = ebs.filesystem_type
    if not is_listed(volume.source):
        mount_disk(image, kind, volume.source, flags=_MOUNT_FLAGS[kind])
    if ebs.snapshot_id is not None:
        grow_mounted(volume.source, ebs)


def _release(volume: VolumePlan, ebs: EbsPlan) -> None:
    if ebs.delete_on_termination and is_listed(volume.source):
        _drop_unwritten(volume.source)
    unmount_disk(volume.source)
    if ebs.delete_on_termination:
        _image_of_task(volume).unlink(missing_ok=True)
    for directory in (volume.source, volume.source.parent):
        try:
            directory.rmdir()
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTEMPTY}:
                raise


def _drop_unwritten(mountpoint: Path) -> None:
    """Have the kernel forget what isn't on the disk yet of a volume that is removed."""
    with suppress(OSError):  # then it is written before it is removed, or is shut down already
        descriptor = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)
