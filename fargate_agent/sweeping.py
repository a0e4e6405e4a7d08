"""What a crashed agent left of tasks that nobody answers for, taken back at the next start."""

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

from fargate_agent.drivers import Drivers, Sweeper
from fargate_agent.plan import Site
from fargate_agent.runtime.secret_files import remove_tmpfs
from fargate_agent.trees import remove_tree

log = logging.getLogger(__name__)


async def sweep(drivers: Drivers, site: Site, kept: Collection[str]) -> None:
    """Take back what is left of all tasks but those with these ids.

    What can't be taken back is logged and left.

    Raises:
        ContainerRuntimeError: containerd doesn't say which tasks there are.
    """
    for driver in drivers:
        if isinstance(driver, Sweeper):
            await driver.sweep(kept)
    await asyncio.to_thread(_remove_directories, site.tasks_dir, kept)


def _remove_directories(tasks_dir: Path, kept: Collection[str]) -> None:
    for directory in tasks_dir.glob("*"):
        if directory.name not in kept:
            try:
                remove_tmpfs(directory)
                remove_tree(directory)
            except OSError as error:
                log.warning("could not sweep the files of task %s: %s", directory.name, error)
