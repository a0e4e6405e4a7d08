"""How the first process of a container is made."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError, DeadlineError
from fargate_agent.containerd.processes import RuncOptions
from fargate_agent.containerd.types import Mount
from fargate_agent.plan import ContainerPlan
from fargate_agent.runtime import loggers
from fargate_agent.runtime.cgroupdriver import CgroupDriver
from fargate_agent.runtime.oci_runtime import RUNC
from fargate_agent.runtime.stdin import make_fifo, wrap_runtime

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """What a process is made with."""

    mounts: tuple[Mount, ...]
    log_uri: str | None
    cgroups: CgroupDriver
    runc_root: Path | None
    oci_runtime: str
    deadline_s: float
    begun: Callable[[], None] = lambda: None
    """Called when all is ready for containerd."""


async def create_process(client: Containerd, container: ContainerPlan, creation: Creation) -> None:
    """Make the process, its logger running.

    Raises:
        ContainerdError: as of `Processes.create`.
        OSError: the kernel or systemd refused a group for the logger.
    """
    cgroups, runc_root = creation.cgroups, creation.runc_root
    fifo, runtime = container.stdin, creation.oci_runtime
    if fifo is not None:
        await asyncio.to_thread(make_fifo, fifo)
        if not container.terminal:
            runtime = await asyncio.to_thread(wrap_runtime, fifo, runtime or RUNC)
    async with loggers.hold_group(cgroups, container) as group:
        creation.begun()
        await client.processes.create(
            container.id,
            creation.mounts,
            log_uri=creation.log_uri,
            terminal=container.terminal,
            stdin=fifo if container.terminal else None,
            options=RuncOptions(
                binary_name=runtime,
                root=str(runc_root) if runc_root else "",
                systemd_cgroup=cgroups.name == "systemd",
                shim_cgroup=group,
            ),
            deadline_s=creation.deadline_s,
        )


async def create_process_anew(
    client: Containerd, container: ContainerPlan, creation: Creation
) -> None:
    """Do the same in the place of a process that is gone, be it one whose creation was cut off.

    What is left of that one may spoil the first try. Its shim still listens for a moment after its
    end was told, the new process is made by that shim then, and "ttrpc: closed" is all that comes.
    And containerd removes the bundle of a creation that was cut off twice, the second time perhaps
    when it is the new one. When nothing of the container is left the second try meets none of it.
    Source: containerd, runtime/v2/shim/shim.go, `start` with an address in use, and
    runtime/v2/shim.go, `cleanupAfterDeadShim` and `shim.delete`.

    Raises:
        ContainerdError: as of `Processes.create`.
        OSError: the kernel or systemd refused a group for the logger.
    """
    try:
        await create_process(client, container, creation)
    except DeadlineError:
        raise
    except ContainerdError as error:
        log.info("container %s is created once more: %s", container.name, error)
        await client.processes.force_delete(container.id)
        await create_process(client, container, creation)
