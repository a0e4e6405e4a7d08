"""Containers by containerd and runC.

What is made for a container, in this order: a record of what it is to be, a root file system, and a
process, whose shim starts the logger and runs runC. All of it is made under the lease of its
task, so that the garbage collector keeps off, and is named after the container's id, so that
whoever comes later finds it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import (
    ContainerdError,
    DeadlineError,
    NotFoundError,
    UnavailableError,
)
from fargate_agent.containerd.processes import ProcessStatus
from fargate_agent.containerd.types import Mount
from fargate_agent.drivers import (
    ContainerUsage,
    ExecIo,
    ExitStatus,
    Image,
    LoggerUser,
    Runtime,
    Sweeper,
)
from fargate_agent.errors import (
    CannotCreateContainerError,
    CannotStartContainerError,
    ContainerRuntimeError,
    ResourceInitializationError,
)
from fargate_agent.parallel import together
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime import loggers
from fargate_agent.runtime.cgroupdriver import CgroupDriver, CgroupDrivers
from fargate_agent.runtime.creation import Creation, create_process, create_process_anew
from fargate_agent.runtime.ending import (
    MADE,
    clear_ended,
    delete_process,
    end_by_force,
    end_container,
    is_made,
    note_failure,
    read_exit,
)
from fargate_agent.runtime.exec import Execs
from fargate_agent.runtime.files import make_files, remove_files
from fargate_agent.runtime.groundwork import Groundwork
from fargate_agent.runtime.host import require_isolation
from fargate_agent.runtime.init import require_init
from fargate_agent.runtime.logger_replacement import watch_logger
from fargate_agent.runtime.oom import note_oom_kills
from fargate_agent.runtime.own_processes import OwnProcesses
from fargate_agent.runtime.pidns import PidNamespaces
from fargate_agent.runtime.reasons import (
    explain,
    explain_create,
    explain_loss,
    explain_stop,
    explain_timeout,
    render_error,
)
from fargate_agent.runtime.records import TASK_LABEL
from fargate_agent.runtime.roots import Roots
from fargate_agent.runtime.strays import CGROUP_REMOVE_DEADLINE_S, Strays
from fargate_agent.runtime.usage import render_usage
from fargate_agent.threads import in_thread

log = logging.getLogger(__name__)

READY_PATIENCE_S: Final = 2.0
"""How long containerd may take to answer before the log says that the agent waits for it."""

ANSWER_HOLDS_S: Final = 60.0
"""How long containerd isn't asked again whether it answers, if it stays connected."""

PIDS_BESIDE: Final = 128
"""Processes and threads beside each container that count for its task: the shim, the logger, and
runC, which have about 15 each. A container that has used up its own leaves them theirs."""

LOSS_PATIENCE_S: Final = 2.0
"""Before a lost shim is told of: a machine that shuts down ends all shims, and the agent itself at
about the same time, whose successor then knows the reason."""

_STARTED: Final = frozenset({ProcessStatus.RUNNING, ProcessStatus.STOPPED})


@dataclass(frozen=True, slots=True, kw_only=True)
class RuncSettings:
    """What an agent decides for all its containers."""

    snapshotter: str
    runc_root: Path | None
    """Where runC keeps its state; None is containerd's default."""
    oci_runtime: str = ""
    """The program that is called for runC; see `find_oci_runtime`."""
    create_timeout_s: float
    start_timeout_s: float
    pids_limit: int
    """Most processes and threads of one container."""
    logger_user: LoggerUser | None = None
    """Whom loggers run as; None is root."""


class RuncRuntime(Runtime, Sweeper):
    """Runs containers in one containerd namespace."""

    def __init__(
        self,
        containerd: Containerd,
        settings: RuncSettings,
        cgroups: CgroupDrivers,
        *,
        render_files: Callable[[TaskPlan], Mapping[str, str]],
        note: Callable[[str, str], None],
    ) -> None:
        """Prepare a runtime; nothing is asked of containerd yet.

        `render_files` gives the text of a task's `hosts`, `hostname` and `resolv.conf`; `note`
        is told what this host can't do, and the effect.
        """
        self._containerd = containerd
        self._settings = settings
        self._render_files = render_files
        self._cgroups = cgroups
        self._execs = Execs(containerd, cgroups)
        self._pidns = PidNamespaces(containerd, cgroups, self._plan_creation)
        self._strays = Strays(containerd, cgroups, settings.snapshotter, settings.oci_runtime)
        self._roots = Roots(settings.snapshotter)
        self._groundwork = Groundwork(
            containerd,
            cgroups,
            self._pidns,
            roots=self._roots,
            pids_limit=settings.pids_limit,
            note=note,
        )
        self._own = OwnProcesses()
        self._said_that_it_waits = False

    async def ready(self) -> None:
        try:
            async with asyncio.timeout(None if self._said_that_it_waits else READY_PATIENCE_S):
                await self._containerd.wait_until_served(patience_s=ANSWER_HOLDS_S)
        except TimeoutError:
            self._said_that_it_waits = True
            log.warning("containerd doesn't answer at %s: waiting", self._containerd.address)
            await self._containerd.wait_until_served()
        self._said_that_it_waits = False

    async def prepare(self, task: TaskPlan) -> None:
        require_isolation(self._cgroups.cgroups.missing_controllers())
        if task.shares_pid_namespace or any(one.init for one in task.containers):
            await asyncio.to_thread(require_init, task)
        try:
            await together(
                (
                    self._containerd.leases.ensure(task.lease, {TASK_LABEL: task.id}),
                    in_thread(self._prepare_host, task),
                )
            )
            if task.shares_pid_namespace:
                await self._pidns.ensure(task)
        except (ContainerdError, OSError) as error:
            raise ResourceInitializationError(
                f"unable to make the task's lease, limits and volumes: {explain(error)}"
            ) from error

    async def release(self, task: TaskPlan) -> None:
        failures: list[Exception] = []
        for removal in (
            self._pidns.remove(task),
            self._containerd.leases.delete(task.lease, sync=True),
            asyncio.to_thread(self._cgroups.remove, task.cgroup, CGROUP_REMOVE_DEADLINE_S),
            asyncio.to_thread(remove_files, task),
        ):
            try:
                await removal
            except (ContainerdError, OSError) as error:
                failures.append(error)
        if failures:
            raise ContainerRuntimeError(
                "unable to remove the task's lease, limits and volumes: "
                + "; ".join(map(explain, failures))
            ) from failures[0]

    async def exists(self, container: ContainerPlan) -> bool:
        try:
            return await is_made(self._containerd.processes, container.id)
        except ContainerdError as error:
            raise ContainerRuntimeError(render_error(error), container=container.name) from error

    async def create(
        self,
        task: TaskPlan,
        container: ContainerPlan,
        image: Image,
        log_uri: str | None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        client = self._containerd.with_lease(task.lease)
        with self._explained(task, container):
            ground = await self._groundwork.lay(client, task, container, image)
            create = create_process
            if ground.had_record:
                if await self._status(container.id) in MADE:
                    return
                # a predecessor was interrupted right here; a shim of its may be waiting for ever
                await client.processes.force_delete(container.id)
                await client.containers.delete(container.id)
                await client.containers.create(ground.record)
                create = create_process_anew
            root = await self._roots.make(client, task, container, image)
            await self._groundwork.fill_volumes(task, container, image, root.image)
            creation = self._plan_creation(root.mounts, log_uri, ground.cgroups)
            await create(client, container, replace(creation, begun=begun))
            self._own.note_made(container, log_uri)

    async def start(self, task: TaskPlan, container: ContainerPlan) -> None:
        deadline_s = self._settings.start_timeout_s

        async def start() -> None:
            # containerd's refusal to start what was started is told from others by its text only
            is_unstarted = self._own.take_unstarted(container)
            if is_unstarted or await self._status(container.id) not in _STARTED:
                await asyncio.to_thread(self._prepare_start, task, container)
                await self._containerd.processes.start(container.id, deadline_s=deadline_s)

        try:
            await self._repeat_if_away(start)
        except DeadlineError as error:
            raise explain_timeout("running", deadline_s, container) from error
        except (ContainerdError, OSError) as error:
            raise CannotStartContainerError(explain(error), container=container.name) from error

    async def restart(self, task: TaskPlan, container: ContainerPlan, log_uri: str | None) -> None:
        with self._explained(task, container):
            await self._repeat_if_away(lambda: self._restart(task, container, log_uri))

    async def _restart(self, task: TaskPlan, container: ContainerPlan, log_uri: str | None) -> None:
        client = self._containerd.with_lease(task.lease)
        status = await self._status(container.id)
        if status in {ProcessStatus.CREATED, ProcessStatus.RUNNING}:
            return
        await self._pidns.check(task, container)
        record = await client.containers.get(container.id)
        mounts = await self._roots.find(client, task, container, record)
        cgroups = await asyncio.to_thread(self._cgroups.of, container.cgroup)
        is_clean = status is ProcessStatus.STOPPED and await clear_ended(
            client, self._cgroups, container
        )
        if not is_clean:  # a predecessor was interrupted, or the shim was killed
            await end_by_force(client, self._cgroups, container)
        await note_oom_kills(client, self._cgroups, container)
        creation = self._plan_creation(mounts, log_uri, cgroups)
        await create_process_anew(client, container, creation)
        self._own.note_made(container, log_uri)

    async def _repeat_if_away(self, do: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do what may be repeated. A containerd that goes away meanwhile has done it or not.

        Raises:
            ContainerdError: it doesn't do it.
            OSError: the kernel refused.
        """
        try:
            await do()
        except UnavailableError:
            await self.ready()
            await do()

    async def exec(
        self,
        container: ContainerPlan,
        exec_id: str,
        argv: tuple[str, ...],
        io: ExecIo,
        deadline_s: float | None,
    ) -> int:
        return await self._execs.run(container, exec_id, argv, io, deadline_s)

    async def end_exec(self, container: ContainerPlan, exec_id: str) -> None:
        await self._execs.end(container, exec_id)

    async def wait(self, container: ContainerPlan) -> ExitStatus:
        try:
            result = await self._containerd.processes.wait(container.id)
            return await read_exit(self._containerd, self._cgroups, container, result)
        except ContainerdError as error:
            await asyncio.sleep(LOSS_PATIENCE_S)
            raise explain_loss(error, container) from error

    async def watch_logger(self, container: ContainerPlan) -> None:
        async def find_log_uri() -> str | None:
            with contextlib.suppress(NotFoundError):
                found = await self._containerd.processes.get(container.id)
                return found.log_uri if found.status is ProcessStatus.RUNNING else None
            return None

        namespace = self._containerd.namespace
        try:
            log_uri = self._own.find_log_uri(container)
            if log_uri is None:
                log_uri = (await self._containerd.processes.get(container.id)).log_uri
            if loggers.is_logger(log_uri):
                await watch_logger(self._cgroups, container, namespace, find_log_uri)
                return
        except (ContainerdError, OSError) as error:
            log.warning("the logger of container %s is not watched: %s", container.name, error)
        await asyncio.get_running_loop().create_future()

    async def stop(self, container: ContainerPlan) -> ExitStatus | None:
        status, failure = None, None
        try:
            status = await end_container(self._containerd, self._cgroups, container)
            await delete_process(self._containerd, self._cgroups, container)
        except (ContainerdError, OSError) as error:
            failure = error
        try:
            if failure:
                await end_by_force(self._containerd, self._cgroups, container)
            await self._strays.forget(container.id)
            self._execs.forget(container.id)
            self._own.forget(container)
        except (ContainerdError, OSError) as error:
            raise explain_stop(error, container) from error
        return note_failure(status, explain_stop(failure, container)) if failure else status

    async def usage(self, containers: tuple[ContainerPlan, ...]) -> Mapping[str, ContainerUsage]:
        try:
            metrics = await self._containerd.processes.metrics([one.id for one in containers])
        except ContainerdError as error:
            raise ContainerRuntimeError(render_error(error)) from error
        read_at = datetime.now(UTC)
        return {id_: render_usage(measured, read_at) for id_, measured in metrics.items()}

    async def sweep(self, kept: Collection[str]) -> list[str]:
        return await self._strays.sweep(kept)

    @contextlib.contextmanager
    def _explained(self, task: TaskPlan, container: ContainerPlan) -> Iterator[None]:
        """Say of whatever went wrong in the body why the container could not be created."""
        try:
            yield
        except DeadlineError as error:
            raise explain_timeout("created", self._settings.create_timeout_s, container) from error
        except ContainerdError as error:
            raise explain_create(error, task, container) from error
        except OSError as error:
            raise CannotCreateContainerError(explain(error), container=container.name) from error
        except CannotCreateContainerError as error:
            error.container = container.name
            raise

    def _plan_creation(
        self, mounts: tuple[Mount, ...], log_uri: str | None, cgroups: CgroupDriver
    ) -> Creation:
        return Creation(
            mounts=mounts,
            log_uri=log_uri,
            cgroups=cgroups,
            runc_root=self._settings.runc_root,
            oci_runtime=self._settings.oci_runtime,
            deadline_s=self._settings.create_timeout_s,
        )

    async def _status(self, container_id: str) -> ProcessStatus | None:
        try:
            return (await self._containerd.processes.get(container_id)).status
        except NotFoundError:
            return None

    def _prepare_host(self, task: TaskPlan) -> None:
        """Make what is no business of containerd, in one thread: several are slower."""
        pids_max = len(task.containers) * (self._settings.pids_limit + PIDS_BESIDE)
        pids_max += PIDS_BESIDE * task.shares_pid_namespace
        self._cgroups.of(task.cgroup).ensure(
            task.cgroup, memory_mib=task.memory_mib, pids_max=pids_max
        )
        make_files(task, self._render_files(task))
        loggers.make_directories(task, self._settings.logger_user)

    def _prepare_start(self, task: TaskPlan, container: ContainerPlan) -> None:
        if task.cpu_units is not None:
            self._cgroups.of(task.cgroup).bound_cpu(task.cgroup, task.cpu_units)
        loggers.check_logger(container)
