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
PEER_PORT = 8080
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
            where = f"{count} task{'s' * (count > 1)}"
            async with _watched(machine) as lags_ms:
                ours = await _print_row(f"agent, {where}", places[:count], machine.agent.pid)
            p99_ms = statistics.quantiles(lags_ms, n=100)[98]
            print(f"{'':24}its event loop: p99 {p99_ms:.1f} ms, {max(lags_ms):.1f} ms at most")
            for peer in ("asyncio", "aiohttp"):
                async with _peer(peer, body, places[:count], machine) as (peer_places, pid):
                    theirs = await _print_row(f"{peer}, {where}", peer_places, pid)
                print(f"{'':24}{ours / theirs:10.2f} of {peer}")
        await _measure_memory(machine, places[0])
        for task in tasks:
            await machine.stop(task)


async def _print_row(name: str, places: Sequence[Place], pid: int) -> float:
    """Load a server fully, then steadily; return the requests that it answered a second."""
    full = await _load(places, pid)
    steady = await _load(places, pid, per_second=STEADY_PER_SECOND)
    refused = full.refused + steady.refused
    print(
        f"{name:24}{full.per_second:12,.0f}{full.cores:8.2f}{steady.per_second:8,.0f}/s"
        f"{steady.p99_ms:9.1f} ms" + (f"  {refused} were refused" if refused else "")
    )
    return full.per_second


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
        p99_ms=max(one["p99_us"] for one in results) / 1e3,
        refused=sum(one["refused"] for one in results),
        cores=cores,
    )


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
  print(string.format('{"requests": %d, "us": %d, "p99_us": %d, "refused": %d}',
    summary.requests, summary.duration, latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read
      + summary.errors.write + summary.errors.timeout))
end
"""
    )


@asynccontextmanager
async def _peer(
    kind: str, body: bytes, places: Sequence[Place], machine: Rig
) -> AsyncIterator[tuple[list[Place], int]]:
    """Run a server beside the agent that answers the tasks of these places."""
    (metadata,) = (machine.root / "netns").glob(f"{metadata_netns_name('*')}")
    with ExitStack() as opened, tempfile.NamedTemporaryFile() as answer:
        answer.write(body)
        answer.flush()
        numbers = [opened.enter_context(_listen(metadata, one.netns)).fileno() for one in places]
        program = [sys.executable, "-m", "bench.metadata_peers", kind, answer.name]
        process = subprocess.Popen([*program, *map(str, numbers)], pass_fds=numbers)
        try:
            yield (
                [Place(place.netns, f"http://{TMDS_ADDRESS}:{PEER_PORT}/") for place in places],
                process.pid,
            )
        finally:
            process.terminate()
            process.wait(10)


def _listen(metadata: Path, netns: Path) -> socket.socket:
    """Listen as the agent does, on a port that it leaves free."""
    with inside(metadata):
        listener = socket.socket()
    listener.setsockopt(
        socket.SOL_SOCKET, socket.SO_BINDTODEVICE, metadata_end_name(netns).encode()
    )
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((str(TMDS_ADDRESS), PEER_PORT))
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
