"""Says in the log when the kernel kills a process of a task for its memory.

A container whose first process survives goes on, and nothing else would tell why a part of it died.
The exit of a container doesn't depend on this: its status is read from the cgroup.
"""

import logging

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import ContainerdError
from fargate_agent.containerd.events import TaskOom

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
