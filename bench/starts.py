"""From the message of a task to its running process, against those who start a bare container."""

import asyncio
import os
import statistics
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from bench.conmon import OPTIONS, remove_groups
from bench.images import write_archive
from bench.rig import Rig, new_task, rig, run

IMAGE = "docker.io/library/bench:1"
ROUNDS = int(os.environ.get("BENCH_START_ROUNDS", "25"))


async def measure(root: Path) -> None:
    """Print medians and ratios."""
    archive = root / "bench.tar"
    write_archive(archive, IMAGE)
    async with rig(root) as machine:
        machine.ctr("images", "import", str(archive))
        peers: dict[str, Callable[[], Awaitable[float]]] = {
            "fargate-agent": lambda: _start_ours(machine, 1),
            "ctr run -d": lambda: _start_ctr(machine),
        }
        for command, options in ((_podman(root), OPTIONS), (("docker",), ("--network=none",))):
            name = f"{command[0]} run -d"
            start = (*command, "run", "-d", *options, IMAGE, "/bin/sleep", "1000")
            why = await asyncio.to_thread(_try_peer, command, start, archive)
            if why:
                print(f"{name}: does not start here ({why})")
            else:
                peers[name] = partial(_start_peer, command, start)
        peers["fargate-agent, 3 containers"] = lambda: _start_ours(machine, 3)
        times: dict[str, list[float]] = {name: [] for name in peers}
        for round_number in range(ROUNDS + 2):
            for name, measure_one in peers.items():
                seconds = await measure_one()
                if round_number >= 2:  # the first two warm caches
                    times[name].append(seconds)
    remove_groups()
    _print(times, against="ctr run -d")


def _print(times: dict[str, list[float]], against: str) -> None:
    base = statistics.median(times[against])
    print(
        f"\nstart of a task, image present, n={ROUNDS}\n{'':32}{'median':>9}{'p90':>9}{'ratio':>8}"
    )
    for name, seconds in times.items():
        median, p90 = statistics.median(seconds), statistics.quantiles(seconds, n=10)[-1]
        print(f"{name:32}{median * 1e3:6.0f} ms{p90 * 1e3:6.0f} ms{median / base:8.2f}")


async def _start_ours(machine: Rig, containers: int) -> float:
    task = new_task(IMAGE, containers=containers)
    seconds = await machine.run(task)
    await machine.stop(task)
    return seconds


async def _start_ctr(machine: Rig) -> float:
    name = f"ctr-{uuid.uuid4().hex[:8]}"
    start_s = time.perf_counter()
    await asyncio.to_thread(machine.ctr, "run", "-d", IMAGE, name, "/bin/sleep", "1000")
    seconds = time.perf_counter() - start_s
    await asyncio.to_thread(machine.ctr, "tasks", "rm", "-f", name)
    await asyncio.to_thread(machine.ctr, "containers", "rm", name)
    return seconds


def _podman(root: Path) -> tuple[str, ...]:
    """Return podman with a storage of its own, and the runC that the others use."""
    return (
        *("podman", "--root", str(root / "podman"), "--runroot", str(root / "podman-run")),
        *("--tmpdir", str(root / "podman-tmp"), "--events-backend", "file"),
        *("--runtime", "/usr/sbin/runc", "--cgroup-manager", "cgroupfs"),
    )


async def _start_peer(command: tuple[str, ...], start: tuple[str, ...]) -> float:
    start_s = time.perf_counter()
    name = (await asyncio.to_thread(run, *start)).strip()
    seconds = time.perf_counter() - start_s
    await asyncio.to_thread(run, *command, "rm", "-f", "-t", "0", name)
    return seconds


def _try_peer(command: tuple[str, ...], start: tuple[str, ...], archive: Path) -> str:
    """Return why a peer can't be measured, or nothing."""
    try:
        run(*command, "load", "-i", str(archive))
        name = run(*start).strip()
        run(*command, "rm", "-f", "-t", "0", name)
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        return str(error)[-160:].replace("\n", " ")
    return ""
