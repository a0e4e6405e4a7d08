"""Volumes of EFS: mounts of NFS 4.1 through the network of the task, or of directories here."""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from fargate_agent.drivers import Sweeper, VolumeDriver
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import EfsPlan, TaskPlan, VolumePlan
from fargate_agent.plan.efs import EFS_DIRECTORY, join_export
from fargate_agent.threads import in_thread
from fargate_agent.volumes.deadlines import with_deadline
from fargate_agent.volumes.efs_roots import PARENT, open_root
from fargate_agent.volumes.mounts import (
    DetachedMount,
    MountedOn,
    abort_requests,
    bind,
    detach,
    list_mounts,
    make_private,
)
from fargate_agent.volumes.nfs import (
    NFS,
    make_nfs,
    render_addresses,
    render_security,
    render_source,
    unmount_nfs,
)
from fargate_agent.volumes.nfs_tls import TlsHandshakes
from fargate_agent.wire.attributes import EFS, EFS_AUTHORIZATION, Attribute

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 15.0
"""A server that doesn't take a connection for so long isn't there."""
MOUNT_TIMEOUT_S: Final = 60.0
"""A server that takes connections and doesn't answer."""
PROBE_TIMEOUT_S: Final = 3.0
"""In the end of a task: whether the server is there to be told."""

MOST_SPARED: Final = 1
"""How often requests are left to a server that is there. A process that has much to write ends only
when requests were aborted twice, and it has 10 s."""
GLANCE_TIMEOUT_S: Final = 1.0
"""How long the server is looked for before that."""

_UNCACHED: Final = {"actimeo": "0"}
"""For a mount on which a directory is made: whether another machine has finished it is asked of the
server each time. Source: nfs(5)."""

_NOT_THERE: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})
"""Of a connection; TLS hasn't begun."""

Resolve = Callable[[TaskPlan, str], Awaitable[list[str]]]
_Make = Callable[[str, Mapping[str, str]], DetachedMount]
"""Mounts a path of the server, with options beside those of every mount."""
OpenSocket = Callable[[Path, int, int], socket.socket]


class EfsVolumes(VolumeDriver, Sweeper):
    """Mounts them, each on a directory of the task."""

    needs_network = True

    def __init__(self, tasks_dir: Path, resolve: Resolve, open_socket: OpenSocket) -> None:
        """Ask `resolve` for addresses and `open_socket` for sockets, both in the task's network."""
        self._tasks_dir = tasks_dir
        self._resolve = resolve
        self._open_socket = open_socket
        self._held: dict[Path, int] = {}
        """Keeps each mount of NFS open, so that requests can be aborted without unmounting it."""
        self._spared: dict[Path, int] = {}
        """How often requests of a mount weren't aborted, as its server is there."""
        self._tls = TlsHandshakes()

    async def __aexit__(self, *_: object) -> None:
        await self._tls.close()
        while self._held:
            os.close(self._held.popitem()[1])

    async def ensure(self, task: TaskPlan, volume: VolumePlan) -> None:
        plan = _efs(volume)
        if found := await _find_mounts(volume.source):
            await self._take_over(task, volume.source, found[0])
            return
        if plan.fault:
            raise ResourceInitializationError(f"volume '{volume.name}': {plan.fault}")
        try:
            await in_thread(_make_directory, volume.source)
            if plan.directory is not None:
                binding = partial(_bind, plan, plan.directory, volume.source)
                await with_deadline(binding, MOUNT_TIMEOUT_S, lambda _: detach(volume.source))
            else:
                if plan.tls:
                    await self._tls.ensure(task.netns, volume.source)
                await self._mount(task, plan, volume.source)
        except TimeoutError as error:
            raise _explain(plan, OSError(errno.ETIMEDOUT, "")) from error
        except OSError as error:
            raise _explain(plan, error) from error

    async def release(self, task: TaskPlan, volume: VolumePlan) -> None:
        self._spared.pop(volume.source, None)
        if (held := self._held.pop(volume.source, None)) is not None:
            os.close(held)
        try:
            for mount in await _find_mounts(volume.source):
                await self._unmount(task, _efs(volume), mount)
            await self._tls.release(task.netns, volume.source)
            await asyncio.to_thread(_remove_directory, volume.source)
        except (OSError, TimeoutError) as error:
            raise ResourceInitializationError(
                f"unable to unmount the volume '{volume.name}': {error}"
            ) from error

    async def interrupt(self, task: TaskPlan, volume: VolumePlan) -> None:
        if _efs(volume).directory is not None:
            return  # others wait for that server, too
        try:
            for mount in await _find_mounts(volume.source):
                if mount.filesystem != NFS or await self._is_spared(task, volume):
                    continue
                log.warning("what waits for the volume %s is interrupted", volume.name)
                if volume.source in self._held:
                    await asyncio.to_thread(abort_requests, mount.mountpoint)
                else:
                    await unmount_nfs(mount.mountpoint, by_force=True)
        except (OSError, TimeoutError) as error:
            log.warning("the volume %s of task %s: %s", volume.name, task.id, error)

    async def sweep(self, kept: Collection[str]) -> list[str]:
        """Unmount by force: who has mounted it is gone, and maybe the network as well."""
        swept = []
        tasks_dir = await asyncio.to_thread(self._tasks_dir.resolve)
        for mount in await asyncio.to_thread(list_mounts, tasks_dir):
            task_id, *rest = mount.mountpoint.relative_to(tasks_dir).parts
            if task_id in kept or rest != [EFS_DIRECTORY, mount.mountpoint.name]:
                continue  # what is mounted below a volume goes with it
            try:
                await _detach(mount)
            except (OSError, TimeoutError) as error:
                log.warning("could not sweep the volume %s: %s", mount.mountpoint, error)
            else:
                log.info("swept the volume %s", mount.mountpoint)
                swept.append(f"{task_id}/{mount.mountpoint.name}")
        return swept

    def read_attributes(self, _root: Path) -> Iterable[Attribute]:
        return (Attribute(EFS), Attribute(EFS_AUTHORIZATION))

    async def _mount(self, task: TaskPlan, plan: EfsPlan, mountpoint: Path) -> None:
        address = await self._find(task, plan, CONNECT_TIMEOUT_S)
        client = next(str(eni.address.ip) for eni in task.enis if eni.primary)
        values = render_addresses(address, plan.port, client) | render_security(tls=plan.tls)

        def make(path: str, more: Mapping[str, str]) -> DetachedMount:
            source = render_source(plan.server, path)
            return make_nfs(task.netns, task.id, source, {**values, **more})

        mount, held = await with_deadline(
            partial(_make_mount, plan, make), MOUNT_TIMEOUT_S, _close_mount
        )
        self._held[mountpoint] = held
        await in_thread(_place, mount, mountpoint)

    async def _take_over(self, task: TaskPlan, mountpoint: Path, mount: MountedOn) -> None:
        """Hold what an agent before has mounted, if its server is there."""
        if mount.filesystem != NFS or mountpoint in self._held:
            return
        if "xprtsec=tls" in mount.options:
            try:
                await self._tls.ensure(task.netns, mountpoint)
            except OSError as error:
                log.warning("%s can't connect to its server again: %s", mountpoint, error)
        opening = partial(_open_mount, mountpoint)
        with suppress(OSError):  # of which TimeoutError is one
            self._held[mountpoint] = await with_deadline(opening, PROBE_TIMEOUT_S, os.close)

    async def _is_spared(self, task: TaskPlan, volume: VolumePlan) -> bool:
        """Whether requests aren't aborted yet: a server that is there may only be slow.

        A process that was killed still waits until what it wrote is on the server.
        """
        spared = self._spared.get(volume.source, 0)
        if spared >= MOST_SPARED:
            return False
        is_there = await self._is_there(task, _efs(volume), GLANCE_TIMEOUT_S)
        self._spared[volume.source] = spared + 1 if is_there else MOST_SPARED
        return is_there

    async def _find(self, task: TaskPlan, plan: EfsPlan, timeout_s: float) -> str:
        """Return an address at which the server takes connections, each in its time.

        Raises:
            OSError: there is none, or it refuses.
            TimeoutError: it doesn't answer.
        """
        failure: OSError | None = None
        for address in await self._look_up(task, plan.server):
            try:
                await self._connect(task, address, plan.port, timeout_s)
            except OSError as error:  # of which TimeoutError is one
                failure = error
            else:
                return address
        raise failure or OSError(errno.EHOSTUNREACH, "")

    async def _look_up(self, task: TaskPlan, server: str) -> list[str]:
        with suppress(ValueError):
            return [str(ip_address(server))]
        return await self._resolve(task, server)

    async def _connect(self, task: TaskPlan, address: str, port: int, timeout_s: float) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self._open_socket(task.netns, family, socket.SOCK_STREAM) as connection:
            connection.settimeout(0)
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().sock_connect(connection, (address, port))

    async def _unmount(self, task: TaskPlan, plan: EfsPlan, mount: MountedOn) -> None:
        """Unmount it in order if the server is there to be told, else by force."""
        if mount.filesystem == NFS and await self._is_there(task, plan):
            try:
                await unmount_nfs(mount.mountpoint, by_force=False)
            except (OSError, TimeoutError) as error:
                log.warning("%s is unmounted by force: %s", mount.mountpoint, error)
        if mount in await _find_mounts(mount.mountpoint):
            await _detach(mount)

    async def _is_there(
        self, task: TaskPlan, plan: EfsPlan, timeout_s: float = PROBE_TIMEOUT_S
    ) -> bool:
        with suppress(OSError):
            async with asyncio.timeout(timeout_s):
                await self._find(task, plan, timeout_s)
                return True
        return False


async def _find_mounts(mountpoint: Path) -> list[MountedOn]:
    """Return what is mounted on a directory, the last first; nothing is looked up on it."""

    def find() -> list[MountedOn]:
        place = mountpoint.parent.resolve() / mountpoint.name
        return [one for one in list_mounts(place.parent) if one.mountpoint == place]

    return await asyncio.to_thread(find)


async def _detach(mount: MountedOn) -> None:
    """Take a mount away without waiting; by force, if nobody but the task has the server's files.

    Force aborts what everybody on this machine waits for who has mounted the same file system.
    """
    if mount.filesystem == NFS and not await asyncio.to_thread(_is_elsewhere, mount):
        await unmount_nfs(mount.mountpoint, by_force=True)
        return
    if mount.filesystem != NFS:  # a look-up would wait for its server
        await asyncio.to_thread(make_private, mount.mountpoint)
    await asyncio.to_thread(detach, mount.mountpoint)


def _is_elsewhere(mount: MountedOn) -> bool:
    """Whether a file system is mounted outside of the task, as that of a bind is."""
    task = mount.mountpoint.parent
    others = [one for one in list_mounts(Path("/")) if task not in one.mountpoint.parents]
    return any(one.device == mount.device for one in others)


def _efs(volume: VolumePlan) -> EfsPlan:
    if volume.efs is None:
        raise TypeError(f"volume {volume.name} is not one of EFS")
    return volume.efs


def _open_mount(path: Path) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _make_directory(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def _remove_directory(path: Path) -> None:
    """Remove a mount point; what is in it would be in the way, and isn't ours."""
    with suppress(FileNotFoundError):
        path.rmdir()


def _bind(plan: EfsPlan, directory: Path, mountpoint: Path) -> None:
    if plan.is_made and not directory.is_symlink():
        directory.parent.mkdir(mode=0o700, exist_ok=True)
        os.close(open_root(directory.parent, directory.name, PARENT))
    opened = open_root(directory, plan.path, plan.root)
    try:
        bind(opened, mountpoint)
    finally:
        os.close(opened)


def _make_mount(plan: EfsPlan, make: _Make) -> tuple[DetachedMount, int]:
    """Mount the directory that the task sees, and hold it; make it before, if the plan says so."""
    if plan.root is not None:
        whole = make(plan.export, _UNCACHED)
        try:
            os.close(open_root(whole.reach(""), plan.path, plan.root))
        finally:
            whole.close()
    mount = make(join_export(plan.export, plan.path), {})
    try:
        return mount, _open_mount(mount.reach(""))
    except OSError:
        mount.close()
        raise


def _close_mount(made: tuple[DetachedMount, int]) -> None:
    mount, held = made
    mount.close()
    os.close(held)


def _place(mount: DetachedMount, mountpoint: Path) -> None:
    try:
        mount.place(mountpoint)
    finally:
        mount.close()


def _explain(plan: EfsPlan, error: OSError) -> ResourceInitializationError:
    """Say it as Fargate does.

    Source: ECS developer guide, stopped task error messages; nfs-utils, utils/mount/error.c.
    """
    place = render_source(plan.server or plan.file_system_id, join_export(plan.export, plan.path))
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ELOOP:
            said = os.strerror(error.errno)
            why = f"mount.nfs4: mounting {place} failed, reason given by server: {said}"
        case 0:  # of a program
            why = error.strerror or ""
        case code if plan.tls and code is not None and code not in _NOT_THERE:
            why = (
                f"mount.nfs4: {error.strerror or os.strerror(code)} for {place} over TLS, which "
                "needs Linux 6.5 or later, a server with TLS, and a certificate that this machine "
                "trusts; see journalctl -t tlshd"
            )
        case errno.EACCES | errno.EPERM:
            why = f"mount.nfs4: access denied by server while mounting {place}"
        case errno.ENODEV:
            why = "mount.nfs4: the kernel of this machine has no NFS client"
        case None:
            why = f'Failed to resolve "{plan.server}" - check that your file system ID is correct'
        case code:
            why = f"mount.nfs4: {os.strerror(code)} for {place}"
    return ResourceInitializationError(
        "failed to invoke EFS utils commands to set up EFS volumes: stderr: "
        f"{why} : unsuccessful EFS utils command execution; code: 32"
    )
