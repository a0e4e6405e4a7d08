"""What health checks cost: the processor time of one, and the share of the agent in many."""

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.images import write_archive
from bench.rig import Rig, new_task, rig
from bench.starts import IMAGE

CONTAINERS = int(os.environ.get("BENCH_HEALTH_CONTAINERS", "100"))
CHECKS = int(os.environ.get("BENCH_HEALTH_CHECKS", "1000"))
PER_TASK = 10
INTERVAL_S = 5
"""The shortest that ECS lets one ask for."""

COUNTER = "checks"
"""A file in each container to which its check adds a byte."""

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Spent:
    """Processor time until a moment, in seconds, and the checks until then."""

    at_s: float
    checks: int
    agent_s: float
    containerd_s: float
    containers_s: float
    shims_s: float
    """Those of the shims, their loggers, and runC as far as it isn't in a container yet."""

    def since(self, earlier: Self) -> "Spent":
        """Return what was spent meanwhile."""
        return Spent(
            *(getattr(self, name) - getattr(earlier, name) for name in self.__annotations__)
        )


async def measure(root: Path) -> None:
    """Print the table."""
    archive = root / "bench.tar"
    write_archive(archive, IMAGE)
    async with rig(root) as machine:
        machine.ctr("images", "import", str(archive))
        tasks = [_new_task() for _ in range(-(-CONTAINERS // PER_TASK))]
        for task in tasks:
            await machine.run(task)
        counters = await asyncio.to_thread(_find_counters, machine)
        await _until(counters, len(counters))  # the first round makes what is made once
        before, memory_mib = _look(machine, tasks, counters), machine.agent_rss_bytes() / 2**20
        await _until(counters, before.checks + CHECKS)
        spent = _look(machine, tasks, counters).since(before)
        grown_mib = machine.agent_rss_bytes() / 2**20 - memory_mib
        for task in tasks:
            await machine.stop(task)
    _print(spent, len(counters), grown_mib)


def _print(spent: Spent, containers: int, grown_mib: float) -> None:
    print(
        f"\nhealth checks of {containers} containers each {INTERVAL_S} s: {spent.checks} in "
        f"{spent.at_s:.0f} s\n{'processor time':32}{'each':>10}{'of a core':>12}"
    )
    rows = {
        "agent": spent.agent_s,
        "containerd": spent.containerd_s,
        "shims and runC": spent.shims_s,
        "in the containers": spent.containers_s,
    }
    for name, seconds in {**rows, "all": sum(rows.values())}.items():
        print(f"{name:32}{seconds / spent.checks * 1e3:7.1f} ms{seconds / spent.at_s:11.1%}")
    print(f"{'memory of the agent has grown by':32}{grown_mib:7.1f} MB")


def _new_task() -> dict[str, Any]:
    task = new_task(IMAGE, containers=PER_TASK)
    check = {
        "command": ["CMD", "/bin/sh", "-c", f"printf . >>/{COUNTER}"],
        "interval": INTERVAL_S,
        "timeout": 60,
    }
    containers = [{**container, "healthCheck": check} for container in task["containers"]]
    return {**task, "cpu": 2, "memory": 4096, "containers": containers}


def _find_counters(machine: Rig) -> list[Path]:
    """Return the counter of each container, seen through its first process."""
    lines = machine.ctr("tasks", "ls").splitlines()[1:]
    return [Path(f"/proc/{line.split()[1]}/root/{COUNTER}") for line in lines]


async def _until(counters: list[Path], checks: int) -> None:
    async with asyncio.timeout(1800):
        while _count(counters) < checks:
            await asyncio.sleep(0.2)


def _count(counters: list[Path]) -> int:
    return sum(counter.stat().st_size for counter in counters if counter.exists())


def _look(machine: Rig, tasks: list[dict[str, Any]], counters: list[Path]) -> Spent:
    ids = [task["arn"].rpartition("/")[2] for task in tasks]
    all_s = sum(_read_group_s(group) for id_ in ids for group in _find_groups(id_))
    containers_s = sum(
        _read_group_s(container)
        for id_ in ids
        for group in _find_groups(id_)
        for container in group.glob(f"*{id_}-*[0-9]*")
        if container.is_dir() and "logger" not in container.name
    )
    (containerd,) = _find_containerd(machine)
    return Spent(
        at_s=time.perf_counter(),
        checks=_count(counters),
        agent_s=_read_process_s(machine.agent.pid),
        containerd_s=_read_process_s(containerd),
        containers_s=containers_s,
        shims_s=all_s - containers_s,
    )


def _find_groups(task_id: str) -> list[Path]:
    """Return the group that counts for a task, whichever driver made it."""
    return [
        *_CGROUPS.glob(f"cpuacct/ecs/{task_id}"),
        *_CGROUPS.glob(f"ecs/{task_id}"),
        *_CGROUPS.glob(f"ecstasks.slice/ecstasks-{task_id}.slice"),
    ]


def _read_group_s(group: Path) -> float:
    v1 = group / "cpuacct.usage"
    if v1.exists():
        return int(v1.read_text()) / 1e9
    return int((group / "cpu.stat").read_text().split()[1]) / 1e6


def _find_containerd(machine: Rig) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if Path(argv[0]).name == "containerd" and str(machine.root / "containerd.toml") in argv:
            found.append(int(process.name))
    return found


def _read_process_s(pid: int) -> float:
    """Return what a process and its children have computed. Source: proc(5), stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * _TICK_S
