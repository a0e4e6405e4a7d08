"""The processes of a control group as the processes themselves tell it.

A group's own list ends with the group, which somebody else may remove as soon as its processes are
dying. /proc has them until their parent has taken notice. All functions block.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.process_stat import read_process_stat

_PAUSE_S: Final = 0.02
_NOTICE_S: Final = 5.0
"""For the parent of a dead process to take notice, which frees its number. An init does at once."""


def kill_members(group: str, deadline_s: float) -> None:
    """Kill all processes of a group and of those below it, and wait until they are gone.

    `group` is its path in its tree. Of one that is dead only the parent's notice is waited for, and
    not for long.

    Raises:
        TimeoutError: something still runs after `deadline_s`.
    """
    began = time.monotonic()
    while pids := _find(group):
        passed_s = time.monotonic() - began
        alive = [pid for pid in pids if _runs(pid)]
        if not alive and passed_s > _NOTICE_S:
            return
        if passed_s > deadline_s:
            raise TimeoutError(f"a process still runs {deadline_s:g} s after SIGKILL")
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)


def _find(group: str) -> list[int]:
    """Return the process ids of a group's members, dead ones too. Source: proc(5), cgroup."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                lines = (process / "cgroup").read_text(errors="replace").splitlines()
                paths = (line.split(":", 2)[2] for line in lines)
                if any(f"{path}/".startswith((f"{group}/", f"{group} (")) for path in paths):
                    found.append(int(process.name))
    return found


def _runs(pid: int) -> bool:
    found = read_process_stat(pid)
    return found is not None and not found.has_ended
