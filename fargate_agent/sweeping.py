"""What a crashed agent left of tasks that nobody answers for, taken back at the next start."""

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

from fargate_agent.errors import TaskError
from fargate_agent.network.bridge import Bridges
from fargate_agent.network.sweep import sweep as sweep_network
from fargate_agent.plan import Site
from fargate_agent.runtime.runc import RuncRuntime
from fargate_agent.trees import remove_tree

log = logging.getLogger(__name__)


async def sweep(runtime: RuncRuntime, bridges: Bridges, site: Site, kept: Collection[str]) -> None:
    """Take back what is left of all tasks but those with these ids.

    What can't be taken back is logged and left.

    Raises:
        ContainerRuntimeError: containerd doesn't say which tasks there are.
    """
    for task_id in (await runtime.list_tasks()).difference(kept):
        try:
            await runtime.release_strays(task_id)
            log.info("swept the containers of task %s", task_id, extra={"task": task_id})
        except TaskError as error:
            log.warning("could not sweep task %s: %s", task_id, error, extra={"task": task_id})
    names = {site.netns(task_id).name for task_id in kept}
    for name in await sweep_network(bridges, site.netns_dir, names):
        log.info("swept %s", name)
    await asyncio.to_thread(_remove_directories, site.tasks_dir, kept)


def _remove_directories(tasks_dir: Path, kept: Collection[str]) -> None:
    for directory in tasks_dir.glob("*"):
        if directory.name not in kept:
            try:
                remove_tree(directory)
            except OSError as error:
                log.warning("could not sweep the files of task %s: %s", directory.name, error)
