"""The init of a container: it is the first process, passes signals on, and takes leave of orphans.

The program is catatonit, which Debian has as a package: one static file, so that it works in every
image, and with an option it does nothing but be there, which a PID namespace of several containers
needs. It doesn't name a program that it can't find, so `runtime/program.py` looks for that before.
"""

import shutil
from pathlib import Path
from typing import Final

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import TaskPlan

INIT_NAME: Final = "catatonit"
INIT_DESTINATION: Final = "/dev/init"
"""Where containers see it: in a directory of which nothing is the image's."""

NO_INIT: Final = f"this host has no program {INIT_NAME} (Debian: the package {INIT_NAME})"


def find_init() -> Path | None:
    """Return the program on this host; blocks for microseconds."""
    found = shutil.which(INIT_NAME)
    return Path(found).resolve() if found else None


def require_init(task: TaskPlan) -> None:
    """Return if what a task asks for that takes an init can be had; blocks for microseconds.

    Raises:
        ResourceInitializationError: there is none here; the text says what to install.
    """
    wishes = [
        *(
            f"container '{one.name}' asks for initProcessEnabled"
            for one in task.containers
            if one.init
        ),
        *(["the task asks for pidMode"] if task.shares_pid_namespace else []),
    ]
    if wishes and find_init() is None:
        raise ResourceInitializationError(f"{wishes[0]}, and {NO_INIT}")
