"""The ephemeral volume of a task: writable layers, scratch volumes and files in /etc lie in it."""

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent.drivers import EphemeralStorage, Service, StorageUse, Sweeper
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import TaskPlan
from fargate_agent.plan.volumes import STORAGE_DIRECTORY
from fargate_agent.runtime.secret_files import DIRECTORY as SECRET_FILES
from fargate_agent.threads import in_thread
from fargate_agent.volumes.bounded import (
    DISCARD,
    GIB,
    IMAGE,
    Template,
    Volume,
    is_taken,
    make_template,
    make_volume,
    remove,
    take,
)
from fargate_agent.volumes.file_system_programs import NoProgramError
from fargate_agent.volumes.loop import NoLoopDevicesError
from fargate_agent.volumes.mounts import MountedOn, detach, list_mounts, make_private
from fargate_agent.volumes.nfs import NFS
from fargate_agent.volumes.room import NoRoomError, Room

log = logging.getLogger(__name__)

DEFAULT_GIB: Final = 20
"""Source: ECS developer guide, Fargate task ephemeral storage."""
SPARE_AFTER_S: Final = 0.5
"""When the next one is made after one was taken: the containers of its task go first."""
AGAIN_AFTER_S: Final = 60.0
"""When a spare that couldn't be made is tried again."""
UNBOUNDED: Final = "a task isn't kept to its ephemeral storage, and can fill this machine's disk"
"""What it means where volumes can't be bounded."""

_UNABLE: Final = frozenset(
    {errno.ENOSYS, errno.ENODEV, errno.EOPNOTSUPP, errno.EISDIR, errno.EPERM, errno.EACCES}
)
"""A kernel without ext4 or its system calls, a file system without files that have no name."""
_OLD_LAYOUT: Final = ("etc", "volumes")
"""What agents had in the directory of a task before there were ephemeral volumes."""


class _UnableError(Exception):
    """This machine can't bound a volume; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EphemeralSettings:
    """What an operator decides."""

    room: Room
    require_limit: bool = False
    """Whether a task is refused rather than left without a limit."""


class EphemeralVolumes(EphemeralStorage, Service, Sweeper):
    """Makes them as files with a file system, or as plain directories where that can't be done."""

    def __init__(
        self,
        tasks_dir: Path,
        settings: EphemeralSettings,
        note: Callable[[str, str], None],
    ) -> None:
        """Make nothing yet; `note` is told what this machine can't do, and the effect."""
        self._tasks_dir = tasks_dir
        self._room: Final = settings.room
        self._require_limit = settings.require_limit
        self._note = note
        self._template: Template | None = None
        self._spare: Volume | None = None
        self._taken = asyncio.Event()

    async def __aexit__(self, *_: object) -> None:
        held: list[Volume | Template | None] = [self._spare, self._template]
        self._spare = self._template = None
        for one in held:
            if one is not None:
                await asyncio.to_thread(one.close)

    async def serve(self) -> None:
        """Have a volume of the default size ready before a task wants one, until cancelled."""
        while True:
            try:
                await self._make_spare()
            except (OSError, NoRoomError, _UnableError) as error:  # who wants one is told
                log.debug("no spare volume was made: %s", error)
                await asyncio.sleep(AGAIN_AFTER_S)
                continue
            self._taken.clear()
            await self._taken.wait()
            await asyncio.sleep(SPARE_AFTER_S)

    async def ensure(self, task: TaskPlan) -> None:
        size_bytes = task.ephemeral_storage_gib * GIB
        try:
            with ExitStack() as opened:
                if not await in_thread(_begin, task.directory):
                    return
                spare = self._take_spare(size_bytes)
                if spare is None:
                    spare = await self._make(size_bytes, opened)
                else:
                    opened.callback(spare.close)
                async with self._room.taking:
                    await in_thread(self._hand_over, spare, task.directory)
        except _UnableError as error:
            await self._go_without(task, str(error), error)
        except NoRoomError as error:
            raise ResourceInitializationError(
                f"unable to make the ephemeral volume of {task.ephemeral_storage_gib} GiB: {error}"
            ) from error
        except OSError as error:
            raise ResourceInitializationError(
                f"unable to make the ephemeral volume: {error.strerror or error}"
            ) from error

    async def release(self, task: TaskPlan) -> None:
        try:
            await in_thread(remove, task.directory)
        except OSError as error:
            raise ResourceInitializationError(
                f"unable to remove the ephemeral volume: {error.strerror or error}"
            ) from error

    async def usage(self, task: TaskPlan) -> StorageUse | None:
        try:
            return await asyncio.to_thread(measure, task.directory)
        except OSError as error:
            raise ResourceInitializationError(
                f"unable to look at the ephemeral volume: {error.strerror or error}"
            ) from error

    async def sweep(self, kept: Collection[str]) -> list[str]:
        return await in_thread(_sweep, self._tasks_dir, kept)

    def _take_spare(self, size_bytes: int) -> Volume | None:
        if self._spare is None or self._spare.size_bytes != size_bytes:
            return None
        spare, self._spare = self._spare, None
        self._taken.set()
        return spare

    async def _make_spare(self) -> None:
        with ExitStack() as opened:
            if self._template is None:
                await in_thread(self._make_template, opened)
            spare = await self._make(DEFAULT_GIB * GIB, opened)
            opened.pop_all()
        self._spare = spare

    def _make_template(self, opened: ExitStack) -> None:
        with _unable(self._tasks_dir):
            self._tasks_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._template = make_template(self._tasks_dir, DEFAULT_GIB * GIB)
        opened.callback(self._drop_template)

    def _drop_template(self) -> None:
        template, self._template = self._template, None
        if template is not None:
            template.close()

    async def _make(self, size_bytes: int, opened: ExitStack) -> Volume:
        volume = await in_thread(self._make_in_thread, size_bytes, opened)
        if not volume.is_direct:
            self._note(
                f"the file system of {self._tasks_dir.parent} refuses direct I/O",
                "what a task writes is also kept in the host's memory, beyond the task's limit",
            )
        return volume

    def _make_in_thread(self, size_bytes: int, opened: ExitStack) -> Volume:
        """Make one; it is closed with `opened`, also when nobody waits for it any more."""
        self._room.admit(size_bytes)
        options = () if self._room.mode == "reserved" else (DISCARD,)
        with _unable(self._tasks_dir):
            volume = make_volume(self._tasks_dir, size_bytes, options, self._template)
        opened.callback(volume.close)
        return volume

    def _hand_over(self, volume: Volume, directory: Path) -> None:
        self._room.admit(volume.size_bytes)
        self._room.reserve(volume.file, volume.size_bytes)
        take(volume, directory)

    async def _go_without(self, task: TaskPlan, why: str, cause: Exception) -> None:
        if self._require_limit:
            raise ResourceInitializationError(
                f"this machine can't keep a task to its ephemeral storage: {why}; "
                "require_ephemeral_storage_limit refuses such a task"
            ) from cause
        self._note(why, UNBOUNDED)


class _unable:  # noqa: N801 - used as a function
    """Tell what this machine can't do from what went wrong."""

    def __init__(self, tasks_dir: Path) -> None:
        self._where = tasks_dir.parent

    def __enter__(self) -> None:
        return

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, NoProgramError | NoLoopDevicesError):
            named = f" ({error.filename})" if error.filename else ""
            raise _UnableError(f"no volume can be bounded: {error.strerror}{named}") from error
        if isinstance(error, OSError) and error.errno in _UNABLE:
            raise _UnableError(f"no volume can be bounded: {error.strerror}") from error


def _begin(directory: Path) -> bool:
    """Make the directory of a task, and one for its volume; False: there is all that it needs.

    What a task runs on is left as it is: its volume, plain directories, or those of an older agent,
    which had them beside each other in the directory of the task.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    storage = directory / STORAGE_DIRECTORY
    if storage.is_symlink() or is_taken(directory):
        return False
    if not storage.exists() and any((directory / name).is_dir() for name in _OLD_LAYOUT):
        storage.symlink_to(".")
        return False
    storage.mkdir(mode=0o700, exist_ok=True)
    if any(storage.iterdir()):
        return False
    (directory / IMAGE).unlink(missing_ok=True)  # a crash before its mount had its place
    return True


def measure(directory: Path) -> StorageUse | None:
    """Return how full the volume of the task with a directory is; None: it has none. Blocks.

    Raises:
        OSError: it can't be asked.
    """
    if not is_taken(directory):
        return None
    found = os.statvfs(directory / STORAGE_DIRECTORY)
    return StorageUse(
        used_bytes=(found.f_blocks - found.f_bfree) * found.f_frsize,
        size_bytes=found.f_blocks * found.f_frsize,
    )


def _sweep(tasks_dir: Path, kept: Collection[str]) -> list[str]:
    """Remove volumes, and whatever else is mounted in directories of tasks; see `Sweeper`."""
    swept: list[str] = []
    with suppress(FileNotFoundError):
        tasks_dir = tasks_dir.resolve(strict=True)
    stray = [one for one in list_mounts(tasks_dir) if _is_stray(one, tasks_dir, kept)]
    apart: list[str] = []
    for mounted in stray:  # all of them before the first goes: one may be mounted below another
        if mounted.filesystem != NFS:  # of which a look-up would wait for the server
            _try(make_private, mounted.mountpoint, apart)
    for mounted in stray:
        if mounted.filesystem == NFS or str(mounted.mountpoint) in apart:
            _try(detach, mounted.mountpoint, swept)
    for directory in sorted(tasks_dir.glob("*")):
        has_volume = is_taken(directory) or (directory / IMAGE).exists()
        if directory.name not in kept and has_volume:
            _try(remove, directory, swept)
    for path in swept:
        log.info("swept %s", path)
    return swept


def _is_stray(mounted: MountedOn, tasks_dir: Path, kept: Collection[str]) -> bool:
    """Whether a mount of a task that is gone goes as it is.

    A volume is removed in its own way, and so are secrets.
    """
    task_id, *rest = mounted.mountpoint.relative_to(tasks_dir).parts
    return task_id not in kept and rest not in ([], [STORAGE_DIRECTORY], [SECRET_FILES])


def _try(do: Callable[[Path], None], path: Path, done: list[str]) -> None:
    try:
        do(path)
    except OSError as error:
        log.warning("could not clean up %s: %s", path, error)
        return
    done.append(str(path))
