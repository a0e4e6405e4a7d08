"""The task metadata endpoint: requests a second, times at a steady rate, memory after many.

wrk asks from inside the network namespaces of tasks. The peers answer the same bytes, whoever asks
on sockets that tasks reach in the same way: what `asyncio` alone can do, and `aiohttp` with it.
"""

import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.images import write_archive
from bench.rig import Rig, new_task, rig, run
from bench.starts import IMAGE
from fargate_agent.network.names import metadata_end_name, metadata_netns_name
from fargate_agent.network.namespaces import inside
from fargate_agent.plan import TMDS_ADDRESS

REQUESTS = int(os.environ.get("BENCH_METADATA_REQUESTS", "1000000"))
TASKS = int(os.environ.get("BENCH_METADATA_TASKS", "50"))
SECONDS = int(os.environ.get("BENCH_METADATA_SECONDS", "5"))
CONNECTIONS = 16
"""Of the one task. Of fifty tasks each has one."""
STEADY_PER_SECOND = 2500
"""Half of the requests a second that are the goal."""
STEADY_ROUNDS = 3
"""In which each server has its turn, for the load of the machine changes."""
PEER_PORTS = (8080, 8081)
_FETCH = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1]).read().decode())"

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Place:
    """From where a task asks, and what for."""

    netns: Path
    url: str


@dataclass(frozen=True)
class Load:
    """What wrk saw."""

    requests: int
    per_second: float
    p99_ms: float
    refused: int
    cores: float
    """Of the server, while it ran."""


async def measure(root: Path) -> None:
    """Print the tables."""
    archive = root / "bench.tar"
    write_archive(archive, IMAGE)
    limits = {"FARGATE_AGENT_TASK_METADATA_RPS_LIMIT": "0"}
    async with rig(root, limits) as machine:
        machine.ctr("images", "import", str(archive))
        tasks = [new_task(IMAGE) for _ in range(TASKS)]
        for task in tasks:
            await machine.run(task)
        places = [_find_place(machine, task) for task in tasks]
        first = places[0]
        fetch = (sys.executable, "-c", _FETCH, first.url)
        body = run("nsenter", f"--net={first.netns}", *fetch).encode()
        print(f"task metadata of v4, {len(body)} bytes; wrk in the netns of each task")
        print(f"{'':24}{'requests/s':>12}{'cores':>8}{'at':>10}{'p99':>12}")
        for count in (1, TASKS):
            await _compare(machine, body, places[:count])
        await _measure_memory(machine, places[0])
        for task in tasks:
            await machine.stop(task)


async def _compare(machine: Rig, body: bytes, places: Sequence[Place]) -> None:
    """Load each server fully, then all of them steadily, in turn."""
    where = f"{len(places)} task{'s' * (len(places) > 1)}"
    async with (
        _peer("asyncio", body, places, machine, PEER_PORTS[0]) as bare,
        _peer("aiohttp", body, places, machine, PEER_PORTS[1]) as with_aiohttp,
    ):
        servers = {
            "agent": (places, machine.agent.pid),
            "asyncio": bare,
            "aiohttp": with_aiohttp,
        }
        async with _watched(machine) as lags_ms:
            full = {"agent": await _load(*servers["agent"])}
        full |= {name: await _load(*servers[name]) for name in ("asyncio", "aiohttp")}
        steady: dict[str, list[Load]] = {name: [] for name in servers}
        for _ in range(STEADY_ROUNDS):
            for name, server in servers.items():
                load = await _load(*server, per_second=STEADY_PER_SECOND)
                steady[name].append(load)
    for name, loads in steady.items():
        refused = sum(load.refused for load in (full[name], *loads))
        p99_ms = ", ".join(f"{load.p99_ms:.1f}" for load in loads)
        print(
            f"{name + ', ' + where:24}{full[name].per_second:12,.0f}{full[name].cores:8.2f}"
            f"{statistics.median(load.per_second for load in loads):8,.0f}/s  {p99_ms} ms"
            + (f"  {refused} were refused" if refused else "")
        )
    for name in ("asyncio", "aiohttp"):
        print(f"{'':24}{full['agent'].per_second / full[name].per_second:10.2f} of {name}")
    p99_ms = statistics.quantiles(lags_ms, n=100)[98]
    print(
        f"{'':24}the agent's event loop, fully loaded: p99 {p99_ms:.1f} ms, "
        f"{max(lags_ms):.1f} ms at most"
    )
    print(f"{'':24}load of the machine {os.getloadavg()[0]:.1f}", flush=True)


@asynccontextmanager
async def _watched(machine: Rig) -> AsyncIterator[list[float]]:
    """Ask the agent on its own socket, again and again; the times that it took, in ms."""
    lags_ms: list[float] = []
    connector = aiohttp.UnixConnector(str(machine.socket))

    async def watch(http: aiohttp.ClientSession) -> None:
        while True:
            began_s = time.perf_counter()
            async with http.get("http://agent/v1/nothing") as answer:
                await answer.read()
            lags_ms.append((time.perf_counter() - began_s) * 1e3)
            await asyncio.sleep(0.01)

    async with aiohttp.ClientSession(connector=connector) as http:
        watcher = asyncio.create_task(watch(http))
        try:
            yield lags_ms
        finally:
            watcher.cancel()


async def _measure_memory(machine: Rig, place: Place) -> None:
    sizes = [machine.agent_rss_bytes()]
    done = 0
    while done < REQUESTS:
        load = await _load([place], machine.agent.pid, seconds=10)
        done += load.requests
        sizes.append(machine.agent_rss_bytes())
    middle = sizes[len(sizes) // 2]
    print(
        f"memory of the agent: {sizes[0] / 2**20:.1f} MB before, {middle / 2**20:.1f} MB after "
        f"half and {sizes[-1] / 2**20:.1f} MB after all of {done:,} requests\n"
    )


async def _load(
    places: Sequence[Place], pid: int, *, per_second: float | None = None, seconds: int = SECONDS
) -> Load:
    """Run a wrk in each place at once; with a rate, they pause between requests."""
    connections = CONNECTIONS if len(places) == 1 else 1
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_script(per_second, connections * len(places)))
        script.flush()
        began_s = _cpu_s(pid)
        running = [
            await asyncio.create_subprocess_exec(
                *("nsenter", f"--net={place.netns}", "wrk", f"-d{seconds}s", "-t1"),
                *(f"-c{connections}", "-s", script.name, place.url),
                stdout=subprocess.PIPE,
            )
            for place in places
        ]
        said = [(await process.communicate())[0].decode() for process in running]
    cores = (_cpu_s(pid) - began_s) / seconds
    results = [json.loads(re.search(r"^\{.*\}$", text, re.MULTILINE)[0]) for text in said]
    total = sum(one["requests"] for one in results)
    return Load(
        requests=total,
        per_second=sum(one["requests"] / one["us"] * 1e6 for one in results),
        p99_ms=_find_p99_us([pair for one in results for pair in one["us_of"]]) / 1e3,
        refused=sum(one["refused"] for one in results),
        cores=cores,
    )


def _find_p99_us(times: Sequence[tuple[int, int]]) -> int:
    """Return that of all requests of all tasks; `times` has how many took how long."""
    left = sum(count for _, count in times) * 0.99
    for us, count in sorted(times):
        left -= count
        if left <= 0:
            return us
    raise ValueError("wrk saw no answer")


def _script(per_second: float | None, connections: int) -> str:
    """Return what wrk does: pause at random, as many clients would, and say how it went."""
    pause_ms = 0 if per_second is None else connections / per_second * 1e3
    # wrk waits whole milliseconds: the fraction is the chance of one more.
    pause = f"math.random() * {2 * pause_ms} + math.random()"
    delay = f"function delay() return math.floor({pause}) end\n"
    return (
        (delay if pause_ms else "")
        + """
function done(summary, latency)
  local times = {}
  for i = 1, #latency do times[i] = string.format('[%d, %d]', latency(i)) end
  print(string.format('{"requests": %d, "us": %d, "us_of": [%s], "refused": %d}',
    summary.requests, summary.duration, table.concat(times, ', '),
    summary.errors.status + summary.errors.connect + summary.errors.read
      + summary.errors.write + summary.errors.timeout))
end
"""
    )


@asynccontextmanager
async def _peer(
    kind: str, body: bytes, places: Sequence[Place], machine: Rig, port: int
) -> AsyncIterator[tuple[list[Place], int]]:
    """Run a server beside the agent that answers the tasks of these places."""
    (metadata,) = (machine.root / "netns").glob(f"{metadata_netns_name('*')}")
    with ExitStack() as opened, tempfile.NamedTemporaryFile() as answer:
        answer.write(body)
        answer.flush()
        numbers = [
            opened.enter_context(_listen(metadata, one.netns, port)).fileno() for one in places
        ]
        program = [sys.executable, "-m", "bench.metadata_peers", kind, answer.name]
        process = subprocess.Popen([*program, *map(str, numbers)], pass_fds=numbers)
        try:
            yield (
                [Place(place.netns, f"http://{TMDS_ADDRESS}:{port}/") for place in places],
                process.pid,
            )
        finally:
            process.terminate()
            process.wait(10)


def _listen(metadata: Path, netns: Path, port: int) -> socket.socket:
    """Listen as the agent does, on a port that it leaves free."""
    with inside(metadata):
        listener = socket.socket()
    listener.setsockopt(
        socket.SOL_SOCKET, socket.SO_BINDTODEVICE, metadata_end_name(netns).encode()
    )
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((str(TMDS_ADDRESS), port))
    listener.listen(128)
    return listener


def _find_place(machine: Rig, task: dict[str, Any]) -> Place:
    """Return where a task is, by what its container finds in its environment."""
    task_id = task["arn"].rpartition("/")[2]
    names = machine.ctr("containers", "ls", "-q").split()
    container = next(name for name in names if task_id in name)
    spec = json.loads(machine.ctr("containers", "info", container))["Spec"]
    variables = dict(one.split("=", 1) for one in spec["process"]["env"])
    netns = machine.root / "netns" / f"fargate-{task_id}"
    return Place(netns, f"{variables['ECS_CONTAINER_METADATA_URI_V4']}/task")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S
