"""EBS volumes: files with a file system of their own, each mounted for one task.

The file of a volume lies in the directory of its task, whose removal takes it along. That of a
volume that outlives its task has a second name, in a directory of the agent, from the beginning. So
names alone say what becomes of a file, also when the task's record is gone.
"""

import errno
import logging
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from fargate_agent.drivers import VolumeDriver
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import EbsPlan, TaskPlan, VolumePlan
from fargate_agent.threads import in_thread
from fargate_agent.volumes.descriptors import in_thread_with_files
from fargate_agent.volumes.disks import (
    find_mkfs,
    make_file_system,
    mount_disk,
    shut_down,
    sync_disk,
    unmount_disk,
)
from fargate_agent.volumes.growing import grow_file, grow_mounted
from fargate_agent.volumes.loop import NoLoopDevicesError, check_loop_devices
from fargate_agent.volumes.mounts import is_listed
from fargate_agent.volumes.room import BLOCK_BYTES, NoRoomError, Room, UnnamedFile
from fargate_agent.volumes.snapshots import copy_snapshot
from fargate_agent.wire.attributes import EBS_FILE_SYSTEM, EBS_VOLUMES, Attribute

log = logging.getLogger(__name__)

GIB: Final = 1 << 30
_EXT: Final = ("-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard")
_MKFS: Final = {"ext3": _EXT, "ext4": _EXT, "xfs": ("-q", "-f", "-K")}
"""Arguments of mkfs by the file system: nothing is written that a new file needn't have."""
_MOUNT_FLAGS: Final = {"ext3": (), "ext4": (), "xfs": ("nouuid",)}
"""Copies of one snapshot have the same UUID, which xfs refuses else."""
_DISCARD: Final = {"ext3": (), "ext4": ("discard",), "xfs": ("discard",)}
"""What is deleted in a volume is free on the machine's disk again."""


class EbsVolumes(VolumeDriver):
    """Makes them of the size and with the file system asked for, as a snapshot or empty."""

    def __init__(self, directory: Path, snapshots: Mapping[str, Path], room: Room) -> None:
        """Touch nothing.

        Args:
            directory: holds the files of volumes that outlive their tasks.
            snapshots: files with file systems by the ids of the snapshots that they stand for.
            room: whether the disk has any for one more volume.
        """
        self._directory = directory
        self._snapshots = snapshots
        self._room = room

    async def ensure(self, task: TaskPlan, volume: VolumePlan) -> None:
        ebs, image = _read_plan(volume), _image_of(volume)
        try:
            await in_thread(_make_directories, volume)
            if not await in_thread(self._find, image, ebs):
                await self._make(task, image, volume, ebs)
            await in_thread(self._mount, image, volume, ebs)
        except NoRoomError as error:
            raise ResourceInitializationError(
                f"unable to make the volume '{volume.name}': {error}"
            ) from error
        except NoLoopDevicesError as error:
            raise ResourceInitializationError(
                f"unable to make the volume '{volume.name}': this machine gives no loop device: "
                f"{error.strerror}"
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

    def _find(self, image: Path, ebs: EbsPlan) -> bool:
        """Whether the file is there; one with nothing but its kept name gets the other."""
        if not ebs.delete_on_termination:
            with suppress(FileNotFoundError, FileExistsError):
                os.link(self._directory / _name_file(ebs), image, follow_symlinks=False)
        return image.exists()

    async def _make(self, task: TaskPlan, image: Path, volume: VolumePlan, ebs: EbsPlan) -> None:
        """Make the file, which has no name before all of it is there."""
        snapshot = self._find_snapshot(volume, ebs.snapshot_id)
        file = await in_thread(_open_nameless, image.parent)
        try:
            new = await in_thread(_measure, task, file, snapshot, ebs)
            with ExitStack() as account:
                async with self._room.taking:
                    await in_thread(self._room.admit, new.size_bytes, new.data_bytes)
                    account.enter_context(self._room.counting(new))
                if snapshot is None:
                    await in_thread_with_files(_format, (file,), ebs)
                else:
                    await copy_snapshot(snapshot, file, volume)
                    await in_thread_with_files(grow_file, (file,), ebs)
                await in_thread_with_files(self._keep, (file,), image, ebs)
        finally:
            await in_thread(os.close, file)  # which can have many GiB to give back

    def _keep(self, file: int, image: Path, ebs: EbsPlan) -> None:
        """Have the space that was promised, and give the file its names."""
        self._room.reserve(file, os.fstat(file).st_size)
        os.fsync(file)
        if not ebs.delete_on_termination:
            with suppress(FileExistsError):
                self._directory.mkdir(mode=0o700)
            _give_name(file, self._directory / _name_file(ebs))
        _give_name(file, image)

    def _mount(self, image: Path, volume: VolumePlan, ebs: EbsPlan) -> None:
        kind = ebs.filesystem_type
        flags = [*_MOUNT_FLAGS[kind], *(_DISCARD[kind] if self._room.mode != "reserved" else ())]
        if not is_listed(volume.source):
            mount_disk(image, kind, volume.source, flags=flags)
        if ebs.snapshot_id is not None:
            grow_mounted(volume.source, ebs)

    def _find_snapshot(self, volume: VolumePlan, snapshot_id: str | None) -> Path | None:
        if snapshot_id is None:
            return None
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


def _image_of(volume: VolumePlan) -> Path:
    """Return where the file of a volume is while its task is there; no volume has such a name.

    That of the volume may be as long as a file's.
    """
    return volume.source.with_name(_name_file(_read_plan(volume)))


def _name_file(ebs: EbsPlan) -> str:
    """Return the name of a volume's file, and of the one that outlives the task."""
    return f"{ebs.volume_id}.img"


def _make_directories(volume: VolumePlan) -> None:
    for directory in (volume.source.parent, volume.source):
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        if is_listed(directory):
            continue  # it need not answer
        if not stat.S_ISDIR(directory.lstat().st_mode):
            raise OSError(errno.ENOTDIR, f"a link or a file is in the place of {directory.name}")


def _open_nameless(directory: Path) -> int:
    return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _measure(task: TaskPlan, file: int, snapshot: Path | None, ebs: EbsPlan) -> UnnamedFile:
    """Return what a volume may become, and what of a snapshot is copied into it."""
    size_bytes, data_bytes = (ebs.size_gib or 0) * GIB, 0
    if snapshot is not None:
        with suppress(FileNotFoundError):  # that is said when it is opened
            about = snapshot.stat()
            size_bytes = max(size_bytes, about.st_size)
            data_bytes = about.st_blocks * BLOCK_BYTES
    return UnnamedFile(task_id=task.id, file=file, size_bytes=size_bytes, data_bytes=data_bytes)


def _format(file: int, ebs: EbsPlan) -> None:
    """Make an empty file system of the size of the volume."""
    os.ftruncate(file, (ebs.size_gib or 0) * GIB)
    make_file_system(file, ebs.filesystem_type, _MKFS[ebs.filesystem_type])


def _give_name(file: int, image: Path) -> None:
    """Name a nameless file; by a directory's descriptor, since only then links are followed."""
    parent = os.open(image.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.link(f"/proc/self/fd/{file}", image.name, dst_dir_fd=parent, follow_symlinks=True)
    finally:
        os.close(parent)


def _write_all(volume: VolumePlan, ebs: EbsPlan) -> None:
    """Write what is in memory to a volume that is kept, or say that it couldn't be.

    The end of a mount doesn't say so, and writes nothing if another mount namespace has a copy.
    """
    try:
        sync_disk(volume.source)
    except OSError as error:
        log.warning(
            "the volume '%s' (%s) is kept, but part of what was written to it is lost: %s",
            volume.name,
            ebs.volume_id,
            error.strerror,
        )


def _release(volume: VolumePlan, ebs: EbsPlan) -> None:
    if is_listed(volume.source):
        if ebs.delete_on_termination:
            with suppress(OSError):  # then what is in memory is written before the file goes
                shut_down(volume.source)
        else:
            _write_all(volume, ebs)
    unmount_disk(volume.source)
    _image_of(volume).unlink(missing_ok=True)
    for directory in (volume.source, volume.source.parent):
        try:
            directory.rmdir()
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTEMPTY}:
                raise
