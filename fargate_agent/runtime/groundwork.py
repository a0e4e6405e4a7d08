"""What the process of a container stands on: a record of what it is, and a root file system.

The record is made first: it keeps the layers of the image from containerd's garbage collector.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.containers import ContainerRecord
from fargate_agent.containerd.errors import AlreadyExistsError
from fargate_agent.containerd.types import Mount
from fargate_agent.drivers import Image
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime.cgroupdriver import CgroupDriver, CgroupDrivers
from fargate_agent.runtime.host import HostLimits, read_host_limits
from fargate_agent.runtime.image_volumes import ImageVolumes
from fargate_agent.runtime.known_users import KnownUsers
from fargate_agent.runtime.pidns import PidNamespaces
from fargate_agent.runtime.program import check_program
from fargate_agent.runtime.records import render_record
from fargate_agent.runtime.roots import Roots
from fargate_agent.runtime.secret_files import write_files
from fargate_agent.runtime.spec import render_spec
from fargate_agent.runtime.users import resolve_user
from fargate_agent.threads import in_thread

LookAtImage = Callable[[], Coroutine[Any, Any, tuple[Mount, ...]]]
"""Returns how the files of an image are mounted to be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What there is of a container before its root file system."""

    cgroups: CgroupDriver
    record: ContainerRecord
    had_record: bool
    """Whether a predecessor has made one, perhaps with another image, and perhaps more."""


class Groundwork:
    """Makes it in one containerd namespace."""

    def __init__(
        self,
        containerd: Containerd,
        cgroups: CgroupDrivers,
        pidns: PidNamespaces,
        *,
        roots: Roots,
        pids_limit: int,
        note: Callable[[str, str], None],
    ) -> None:
        """`pids_limit` and `note` are those of the runtime."""
        self._address = containerd.address
        self._cgroups = cgroups
        self._pidns = pidns
        self._roots = roots
        self._pids_limit = pids_limit
        self._note = note
        self._users = KnownUsers()
        self._volumes = ImageVolumes()

    async def lay(
        self, client: Containerd, task: TaskPlan, container: ContainerPlan, image: Image
    ) -> Ground:
        """Return when there is a record; `client` has the lease of the task.

        Raises:
            CannotCreateContainerError: the image isn't there any more, or has no such user.
            CannotStartContainerError: it has no such program.
            ContainerdError: containerd refused.
            OSError: the kernel or systemd did.
        """
        cgroups, host = await in_thread(self._prepare_host, task, container)
        look = partial(self._roots.look, client, container, image)
        spec = await self._render_spec(task, container, image, look, cgroups, host)
        root = self._roots.render(container, image)
        record, had_record = render_record(task, container, image, spec, root), False
        try:
            await client.containers.create(record)
        except AlreadyExistsError:
            had_record = True
        return Ground(cgroups=cgroups, record=record, had_record=had_record)

    async def fill_volumes(
        self, task: TaskPlan, container: ContainerPlan, image: Image, rootfs: tuple[Mount, ...]
    ) -> None:
        """Fill volumes with what the image has; see `ImageVolumes.fill`."""
        await self._volumes.fill(task, container, image, rootfs)

    async def _render_spec(
        self,
        task: TaskPlan,
        container: ContainerPlan,
        image: Image,
        look: LookAtImage,
        cgroups: CgroupDriver,
        host: HostLimits,
    ) -> bytes:
        for what, effect in host.shortfalls(container):
            self._note(what, effect)
        files = await self._users.read(image.chain_id, look, task.directory)
        user = resolve_user(container.user or image.config.user, files)
        if container.files:
            await in_thread(write_files, task, container, user)
        if container.init:
            await check_program(task, container, image.config, await look())
        mounted = await self._volumes.find_mounts(task, container, image)
        container = replace(container, mounts=(*container.mounts, *mounted))
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
