"""What the process of a container stands on: a snapshot of its image, and a record of what it is.

They are made side by side: the record keeps the snapshot that it names, also one that comes later.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import AlreadyExistsError, NotFoundError
from fargate_agent.containerd.types import Mount
from fargate_agent.drivers import Image
from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.parallel import together
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime.cgroupdriver import CgroupDriver, CgroupDrivers
from fargate_agent.runtime.host import HostLimits, read_host_limits
from fargate_agent.runtime.known_users import KnownUsers
from fargate_agent.runtime.pidns import PidNamespaces
from fargate_agent.runtime.program import check_program
from fargate_agent.runtime.reasons import render_error
from fargate_agent.runtime.records import render_record
from fargate_agent.runtime.secret_files import write_files
from fargate_agent.runtime.spec import render_spec
from fargate_agent.runtime.users import resolve_user


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What there is of a container before its process."""

    mounts: tuple[Mount, ...]
    cgroups: CgroupDriver
    had_record: bool
    """Whether a predecessor has made the record, and perhaps more."""


class Groundwork:
    """Makes it in one containerd namespace."""

    def __init__(
        self,
        containerd: Containerd,
        cgroups: CgroupDrivers,
        pidns: PidNamespaces,
        *,
        snapshotter: str,
        pids_limit: int,
        note: Callable[[str, str], None],
    ) -> None:
        """`pids_limit` and `note` are those of the runtime."""
        self._address = containerd.address
        self._cgroups = cgroups
        self._pidns = pidns
        self._snapshotter = snapshotter
        self._pids_limit = pids_limit
        self._note = note
        self._users = KnownUsers()

    async def lay(
        self, client: Containerd, task: TaskPlan, container: ContainerPlan, image: Image
    ) -> Ground:
        """Return when snapshot and record are there; `client` has the lease of the task.

        Raises:
            CannotCreateContainerError: the image isn't there any more, or has no such user.
            CannotStartContainerError: it has no such program.
            ContainerdError: containerd refused.
            OSError: the kernel or systemd did.
        """
        mounts: asyncio.Future[tuple[Mount, ...]] = asyncio.get_running_loop().create_future()
        cgroups = self._cgroups.drivers[0]
        had_record = False

        async def make_snapshot() -> None:
            mounts.set_result(await self._ensure_snapshot(client, task, container, image))

        async def make_record() -> None:
            nonlocal cgroups, had_record
            try:
                cgroups, host = await asyncio.to_thread(self._prepare_host, task, container)
                spec = await self._render_spec(task, container, image, mounts, cgroups, host)
                await client.containers.create(
                    render_record(task, container, image, spec, self._snapshotter)
                )
            except AlreadyExistsError:
                had_record = True
            except Exception:
                await mounts  # one that is given up in the middle may come after its removal
                raise

        await together((make_snapshot(), make_record()))
        return Ground(mounts=mounts.result(), cgroups=cgroups, had_record=had_record)

    async def _ensure_snapshot(
        self, client: Containerd, task: TaskPlan, container: ContainerPlan, image: Image
    ) -> tuple[Mount, ...]:
        snapshots = client.snapshots(self._snapshotter)
        try:
            return await snapshots.prepare(container.id, image.chain_id, {})
        except AlreadyExistsError:
            return await snapshots.mounts(container.id)
        except NotFoundError as error:
            text = render_error(error, task)
            refusal = CannotCreateContainerError(text, container=container.name)
            refusal.image_is_gone = True
            raise refusal from error

    async def _render_spec(
        self,
        task: TaskPlan,
        container: ContainerPlan,
        image: Image,
        mounts: Awaitable[tuple[Mount, ...]],
        cgroups: CgroupDriver,
        host: HostLimits,
    ) -> bytes:
        for what, effect in host.shortfalls(container):
            self._note(what, effect)
        files = await self._users.read(image.chain_id, mounts, task.directory)
        user = resolve_user(container.user or image.config.user, files)
        if container.files:
            await asyncio.to_thread(write_files, task, container, user)
        if container.init:
            await check_program(task, container, image.config, await mounts)
        container = replace(container, cgroup=cgroups.render_path(container.cgroup))
        pid_namespace = await self._pidns.find(task)
        return render_spec(task, container, image.config, user, host, pid_namespace)

    def _prepare_host(
        self, task: TaskPlan, container: ContainerPlan
    ) -> tuple[CgroupDriver, HostLimits]:
        """Make the group of a container, and read what it may have; blocks."""
        cgroups = self._cgroups.of(container.cgroup)
        cgroups.ensure_container(
            container.cgroup,
            cpu_shares=container.cpu_shares,
            memory_reservation_mib=container.memory_reservation_mib,
        )
        counts_pids = "pids" in self._cgroups.cgroups.controllers
        host = read_host_limits(
            self._address,
            limits_swap=cgroups.limits_swap(task.cgroup),
            pids_limit=self._pids_limit if counts_pids else None,
        )
        return cgroups, host
