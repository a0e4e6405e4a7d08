"""From the message of a task to its running process, against those who start a bare container."""

import asyncio
import os
import random
import shutil
import statistics
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.conmon import OPTIONS, remove_groups
from bench.images import write_archive
from bench.machine import is_hybrid
from bench.rig import Rig, new_task, rig, run
from fargate_agent.runtime.cgroup import parse_unified_mount

IMAGE = "docker.io/library/bench:1"
ROUNDS = int(os.environ.get("BENCH_START_ROUNDS", "25"))
WARM_UPS = 2
"""Rounds that only warm caches."""

RUNC, CRUN = "ctr run -d, runC", "ctr run -d, crun"
"""The peers that ours is compared with, each by the same OCI runtime."""

Start = Callable[[], Awaitable[float]]
"""Starts something and takes it down again; returns how many seconds the start took."""


async def measure(root: Path) -> None:
    """Print medians and ratios."""
    archive = root / "bench.tar"
    write_archive(archive, IMAGE)
    async with AsyncExitStack() as stack:
        starts: dict[str, Start] = {}
        for peer, machine in (
            (RUNC, await stack.enter_async_context(rig(root / "runc"))),
            (CRUN, await _enter_crun(stack, root / "crun")),
        ):
            if machine is None:
                continue
            machine.ctr("images", "import", str(archive))
            runtime = peer.rpartition(" ")[2]
            starts[f"fargate-agent, {runtime}"] = partial(_start_ours, machine, 1)
            starts[peer] = partial(_start_ctr, machine)
            starts[f"fargate-agent, {runtime}, 3 containers"] = partial(_start_ours, machine, 3)
        starts |= await _find_others(root, archive)
        times = await _run_in_turn(starts)
    remove_groups()
    _print(times)


async def _enter_crun(stack: AsyncExitStack, root: Path) -> Rig | None:
    """Start a machinery with crun, if there is one.

    crun refuses a host with cgroup v1 and v2. There all of it is in a mount namespace without v2,
    and crun has another name, for the agent knows that it would refuse.
    """
    crun = shutil.which("crun")
    if crun is None:
        print("crun: not installed")
        return None
    if not is_hybrid():
        return await stack.enter_async_context(rig(root, oci_runtime=crun))
    unified = parse_unified_mount(Path("/proc/self/mountinfo").read_text())
    print(f"crun: {unified} is hidden from it, for it refuses cgroup v2 beside v1")
    root.mkdir()
    renamed = root / "crun-on-v1"
    renamed.symlink_to(crun)
    holder = stack.enter_context(_holding_mounts(f"umount {unified}"))
    return await stack.enter_async_context(
        rig(root, None, str(renamed), ("nsenter", f"--mount=/proc/{holder}/ns/mnt"))
    )


@contextmanager
def _holding_mounts(script: str) -> Iterator[int]:
    """Change the mounts in a namespace of their own; give the id of a process in it."""
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"{script} && echo && exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        if holder.stdout is None or not holder.stdout.readline():
            raise RuntimeError(f"no mount namespace, or {script} failed")
        yield holder.pid


async def _find_others(root: Path, archive: Path) -> dict[str, Start]:
    """Return the other peers that start here."""
    starts: dict[str, Start] = {}
    for command, options in ((_podman(root), OPTIONS), (("docker",), ("--network=none",))):
        name = f"{command[0]} run -d"
        start = (*command, "run", "-d", *options, IMAGE, "/bin/sleep", "1000")
        why = await asyncio.to_thread(_try_peer, command, start, archive)
        if why:
            print(f"{name}: does not start here ({why})")
        else:
            starts[name] = partial(_start_peer, command, start)
    return starts


async def _run_in_turn(starts: Mapping[str, Start]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in starts}
    for round_number in range(WARM_UPS + ROUNDS):
        # in another order each time: a start that comes right after another's end is slower
        for name, start in random.sample(list(starts.items()), len(starts)):
            seconds = await start()
            if round_number >= WARM_UPS:
                times[name].append(seconds)
    return times


def _print(times: Mapping[str, Sequence[float]]) -> None:
    peers = [peer for peer in (RUNC, CRUN) if peer in times]
    print(f"\nstart of a task, image present, n={ROUNDS}")
    print("ratio: of the medians; paired: the median of the ratios of each round")
    head = "".join(f"{f'of {peer}: ratio, paired':>44}" for peer in peers)
    print(f"{'':36}{'median':>9}{'p90':>9}{head}")
    for name, seconds in times.items():
        median, p90 = statistics.median(seconds), statistics.quantiles(seconds, n=10)[-1]
        ratios = "".join(_render_ratios(seconds, times[peer]) for peer in peers)
        print(f"{name:36}{median * 1e3:6.0f} ms{p90 * 1e3:6.0f} ms{ratios}")


def _render_ratios(seconds: Sequence[float], base: Sequence[float]) -> str:
    paired = statistics.median(one / of for one, of in zip(seconds, base, strict=True))
    return f"{statistics.median(seconds) / statistics.median(base):36.2f}{paired:8.2f}"


async def _start_ours(machine: Rig, containers: int) -> float:
    task = new_task(IMAGE, containers=containers)
    seconds = await machine.run(task)
    await machine.stop(task)
    return seconds


async def _start_ctr(machine: Rig) -> float:
    name = f"ctr-{uuid.uuid4().hex[:8]}"
    binary = shutil.which(machine.oci_runtime) or machine.oci_runtime
    options = ("-d", "--runc-binary", binary)
    start_s = time.perf_counter()
    await asyncio.to_thread(machine.ctr, "run", *options, IMAGE, name, "/bin/sleep", "1000")
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
