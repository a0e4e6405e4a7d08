"""Processes that the kernel kills because their container needs more memory than it may.

How a container ended is told by the count of its cgroup. The events say it in the log, for a
container whose first process survives: nothing else would tell why a part of it died.
"""

import asyncio
import logging

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError
from fargate_agent.containerd.events import TaskOom
from fargate_agent.plan import ContainerPlan
from fargate_agent.runtime.cgroupdriver import CgroupDrivers
from fargate_agent.runtime.records import OOM_KILLS_LABEL

log = logging.getLogger(__name__)


async def watch_oom_kills(containerd: Containerd) -> None:
    """Log every OOM kill in a container of this namespace, until cancelled."""
    while True:
        await containerd.wait_until_served()
        try:
            events = containerd.events.subscribe(
                [f'namespace=={containerd.namespace},topic=="/tasks/oom"']
            )
            async for event in events:
                if isinstance(event.payload, TaskOom):
                    log.warning(
                        "container %s: the kernel killed a process that needed more memory than "
                        "its limit",
                        event.payload.container_id,
                        extra={"task": event.payload.container_id.rpartition("-")[0]},
                    )
        except ContainerdError as error:
            log.info("not watching for OOM kills until containerd is back: %s", error)


async def note_oom_kills(
    containerd: Containerd, cgroups: CgroupDrivers, container: ContainerPlan
) -> None:
    """Remember what the count of a container is before a further run of it begins.

    Raises:
        ContainerdError: the container has no record.
        OSError: the kernel refused.
    """
    count = await _read_oom_kills(cgroups, container)
    record = await containerd.containers.get(container.id)
    if count != int(record.labels.get(OOM_KILLS_LABEL, 0)):
        labels = {**record.labels, OOM_KILLS_LABEL: str(count)}
        await containerd.containers.set_labels(container.id, labels)


async def has_oom_kills(
    containerd: Containerd, cgroups: CgroupDrivers, container: ContainerPlan
) -> bool:
    """Whether the kernel has killed a process of the container's present run.

    Raises:
        ContainerdError: the container has no record.
        OSError: the kernel refused.
    """
    count = await _read_oom_kills(cgroups, container)
    if not count:
        return False
    record = await containerd.containers.get(container.id)
    return count > int(record.labels.get(OOM_KILLS_LABEL, 0))


async def _read_oom_kills(cgroups: CgroupDrivers, container: ContainerPlan) -> int:
    path = container.cgroup
    return await asyncio.to_thread(lambda: cgroups.of(path).read_oom_kills(path))
