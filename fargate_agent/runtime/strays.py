"""What containerd holds of tasks that have no plan any more, and how it is taken away."""

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError
from fargate_agent.errors import ContainerRuntimeError, TaskError
from fargate_agent.runtime.cgroupdriver import CgroupDrivers
from fargate_agent.runtime.oci_runtime import RUNC
from fargate_agent.runtime.reasons import explain, render_error
from fargate_agent.runtime.records import (
    STDIN_LABEL,
    find_containers,
    find_leases,
    find_tasks,
    render_cgroup,
)
from fargate_agent.runtime.stdin import restore_runtime

log = logging.getLogger(__name__)

CGROUP_REMOVE_DEADLINE_S: Final = 10.0
"""The last process of a group leaves it some milliseconds after its exit was told."""


class Strays:
    """Finds and removes them in one containerd namespace."""

    def __init__(
        self, containerd: Containerd, cgroups: CgroupDrivers, snapshotter: str, oci_runtime: str
    ) -> None:
        """`oci_runtime` is that of the runtime; see `RuncSettings`."""
        self._oci_runtime = oci_runtime
        self._containerd = containerd
        self._cgroups = cgroups
        self._snapshotter = snapshotter

    async def sweep(self, kept: Collection[str]) -> list[str]:
        """Remove what is left of all tasks but those with the ids `kept`; see `Sweeper`.

        Raises:
            ContainerRuntimeError: containerd doesn't say which tasks there are.
        """
        try:
            found = await find_tasks(self._containerd)
        except ContainerdError as error:
            raise ContainerRuntimeError(render_error(error)) from error
        swept = []
        for task_id in found.difference(kept):
            try:
                await self._release(task_id)
                log.info("swept the containers of task %s", task_id, extra={"task": task_id})
                swept.append(f"containers of task {task_id}")
            except TaskError as error:
                log.warning("could not sweep task %s: %s", task_id, error, extra={"task": task_id})
        return swept

    async def forget(self, container_id: str) -> None:
        """Remove the record and the snapshot of a container whose process is gone.

        Raises:
            ContainerdError: something is still there.
        """
        await self._containerd.containers.delete(container_id)
        await self._containerd.snapshots(self._snapshotter).remove(container_id)

    async def _release(self, task_id: str) -> None:
        """End and remove all containers of a task, and what it had.

        Raises:
            ContainerRuntimeError: something is still there.
        """
        try:
            for record in await find_containers(self._containerd, task_id):
                if fifo := record.labels.get(STDIN_LABEL):
                    await asyncio.to_thread(restore_runtime, Path(fifo), self._oci_runtime or RUNC)
                await self._containerd.processes.force_delete(record.id)
                await self.forget(record.id)
            for lease in await find_leases(self._containerd, task_id):
                await self._containerd.leases.delete(lease, sync=True)
            cgroup = render_cgroup(task_id)
            await asyncio.to_thread(self._cgroups.remove, cgroup, CGROUP_REMOVE_DEADLINE_S)
        except (ContainerdError, OSError) as error:
            raise ContainerRuntimeError(explain(error)) from error
