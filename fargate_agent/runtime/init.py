"""The init of a container: it is the first process, passes signals on, and reaps orphans.

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
    """Return if the init can be had that a task asks for; blocks for microseconds.

    Raises:
        ResourceInitializationError: there is none here; the text says what to install.
    """
    if find_init() is None:
        asking = next((f"container '{one.name}'" for one in task.containers if one.init), None)
        wish = f"{asking} asks for initProcessEnabled" if asking else "the task asks for pidMode"
        raise ResourceInitializationError(f"{wish}, and {NO_INIT}")
