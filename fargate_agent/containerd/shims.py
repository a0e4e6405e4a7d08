"""Shims as the kernel sees them: the last resort against one that containerd has lost.

When the creation of a process takes too long, e.g. because its logger never gets ready, containerd
forgets the process at once and its bundle 6 s later, but the shim and the logger stay for ever and
no call reaches them. Their end has to come from outside.
"""

import asyncio
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent.containerd.errors import DeadlineError
from fargate_agent.process_stat import read_process_stat

END_DEADLINE_S: Final = 15.0
"""For what was killed to be gone and containerd to have tidied up after it: 0.1 s here; containerd
gives its own clean-up 5 s. Source: containerd, runtime/v2/shim.go, `cleanupTimeout`."""

_PAUSE_S: Final = 0.02
"""Between two looks; neither the kernel nor containerd tells when both are done."""


@dataclass(frozen=True, slots=True)
class _Shim:
    pid: int
    bundle: Path
    """Its working directory."""
    tidying: bool
    """It serves nobody: containerd has started it to tidy up after one that died."""


async def end_shims(namespace: str, container_id: str) -> None:
    """Return when no shim serves the container, none of its children runs, and the bundle is gone.

    Raises:
        DeadlineError: something is still there.
    """
    shims = await asyncio.to_thread(_find, namespace, container_id)
    ending = await asyncio.to_thread(_kill, shims)
    try:
        async with asyncio.timeout(END_DEADLINE_S):
            while await asyncio.to_thread(_any_left, shims, ending):  # noqa: ASYNC110 - see _PAUSE_S
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError as error:
        raise DeadlineError(f"end shim of {container_id}: something of it is left") from error


def _find(namespace: str, container_id: str) -> list[_Shim]:
    """Look through all processes for shims of a container.

    Source: containerd, runtime/v2/shim/util.go, `Command`, and runtime/v2/binary.go have the flags.
    """
    found = []
    for pid in _pids():
        with suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            program, *flags = arguments.rstrip("\0").split("\0")
            values = dict(zip(flags, flags[1:], strict=False))
            if (
                Path(program).name.startswith("containerd-shim-")
                and values.get("-namespace") == namespace
                and values.get("-id") == container_id
            ):
                bundle = Path(f"/proc/{pid}/cwd").readlink()
                found.append(_Shim(pid, bundle, tidying=flags[-1] == "delete"))
    return found


def _kill(shims: Iterable[_Shim]) -> set[int]:
    """Kill the shims that serve, with all their descendants; return who is about to end."""
    ending = {shim.pid for shim in shims}
    for shim in shims:
        if not shim.tidying:
            _signal(shim.pid, signal.SIGSTOP)  # so that it makes no more children
            for pid in (descendants := _descendants(shim.pid)) | {shim.pid}:
                _signal(pid, signal.SIGKILL)
            ending |= descendants
    return ending


def _any_left(shims: Iterable[_Shim], ending: Iterable[int]) -> bool:
    return any(_runs(pid) for pid in ending) or any(shim.bundle.exists() for shim in shims)


def _descendants(pid: int) -> set[int]:
    parents = {child: stat.parent for child in _pids() if (stat := read_process_stat(child))}
    found: set[int] = set()
    generation = {pid}
    while generation:
        generation = {child for child, parent in parents.items() if parent in generation} - found
        found |= generation
    return found


def _runs(pid: int) -> bool:
    found = read_process_stat(pid)
    return found is not None and not found.has_ended


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
