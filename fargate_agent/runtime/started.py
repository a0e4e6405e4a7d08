"""What a program that is run inside a container has started, found and killed; blocks.

Such a program has a mark in its environment, which all that it starts inherits. So do those that
have left it, whom the kernel gives to the container's first process. One that takes the mark off
is still known as long as its parent, or another of its session, is.
"""

import os
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.process_stat import read_process_stat

MARK_VARIABLE: Final = "FARGATE_EXEC"

_EXEC_S: Final = 1.0
"""For the kernel to load a program: microseconds, unless the machine is busy."""
_PAUSE_S: Final = 0.01
"""Between a kill and a look who is left; the kernel doesn't tell of many at once."""


def kill_started(
    find_members: Callable[[], Collection[int]],
    marks: Collection[str],
    first: int | None,
    deadline_s: float,
) -> None:
    """Kill the processes with any of these marks, and all that they have started.

    `find_members` returns the process ids of the container, of which some are looked for. `first`
    is the process id of the program itself, if it runs: it may have overwritten its environment.

    All are stopped before any is killed: what is stopped makes no more of its kind, and is still
    there to tell whose parent it is.

    Raises:
        TimeoutError: something is left after `deadline_s`.
    """
    variables = {f"{MARK_VARIABLE}={mark}".encode() for mark in marks}
    end = time.monotonic() + deadline_s
    stopped: set[int] = set()
    while found := _look(find_members, variables, first):
        if time.monotonic() > end:
            raise TimeoutError(f"{len(found)} processes are left {deadline_s:g} s after SIGKILL")
        if fresh := found - stopped:
            _signal(fresh, signal.SIGSTOP)
            stopped |= fresh
        else:
            _signal(found, signal.SIGKILL)
            time.sleep(_PAUSE_S)


def _look(
    find_members: Callable[[], Collection[int]], variables: Collection[bytes], first: int | None
) -> set[int]:
    """Return who is there, when those that are just executing a program have their environment."""
    end = time.monotonic() + _EXEC_S
    while True:
        members = find_members()
        found = _find(members, variables, first)
        if found or time.monotonic() > end or not any(map(_is_executing, members)):
            return found
        time.sleep(_PAUSE_S)


def _is_executing(pid: int) -> bool:
    """Whether a process has neither environment nor arguments, as until a program is loaded."""
    status = read_process_stat(pid)
    if status is None or status.has_ended:
        return False
    try:
        return not any(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline"))
    except OSError:
        return False


def _find(members: Collection[int], variables: Collection[bytes], first: int | None) -> set[int]:
    found_by_pid = {pid: read_process_stat(pid) for pid in members}
    alive = {pid: stat for pid, stat in found_by_pid.items() if stat and not stat.has_ended}
    found = {pid for pid in alive if pid == first or _is_marked(pid, variables)}
    while True:
        sessions = {alive[pid].session for pid in found}
        more = {
            pid
            for pid, status in alive.items()
            if pid not in found and (status.parent in found or status.session in sessions)
        }
        if not more:
            return found
        found |= more


def _is_marked(pid: int, variables: Collection[bytes]) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return not set(environment.split(b"\0")).isdisjoint(variables)


def _signal(pids: Collection[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
