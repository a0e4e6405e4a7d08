"""The control plane under load: rate and times of RunTask, memory, and what stored tasks cost.

moto's server is the peer where it can be had: it keeps tasks in memory, writes nothing to disk,
hands nothing to anyone, and so says what an answer costs at least.
"""

import asyncio
import os
import pwd
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import aiohttp
from botocore.credentials import Credentials
from sqlalchemy import insert, select
from sqlalchemy.engine import make_url

from bench.plane import (
    DEADLINE_S,
    Agent,
    Client,
    Program,
    cpu_s,
    running_program,
    working_agent,
)
from fargate_agent.controlplane.state.announcements import Announcements
from fargate_agent.controlplane.state.model import Eni, Event, Task
from fargate_agent.controlplane.state.store import open_store

CALLS = int(os.environ.get("BENCH_CALLS", "1000"))
TASKS_A_CALL = 10
CLIENTS = 4
STORED = (10_000, 30_000, 100_000)
"""Stopped tasks in the database, all of the agent that serves."""
ROUNDS = int(os.environ.get("BENCH_STORED_ROUNDS", "9"))
"""At each number of stored tasks: autovacuum and a noisy machine spoil one, not their median."""
CALLS_A_ROUND = 20
BATCH = 500
MIB = 1024 * 1024

DEFINITION = {
    "family": "bench",
    "networkMode": "awsvpc",
    "requiresCompatibilities": ["FARGATE"],
    "cpu": "256",
    "memory": "512",
    "containerDefinitions": [{"name": "app", "image": "busybox", "cpu": 256, "memory": 512}],
}


@dataclass(frozen=True)
class Database:
    """Where the control plane keeps its state."""

    name: str
    url: str | None = None
    """None: SQLite, in the state directory."""
    server_pid: int | None = None

    def cpu_s(self) -> float:
        """Return the seconds of processor time that its server has used, autovacuum included."""
        return 0.0 if self.server_pid is None else cpu_s(self.server_pid)


async def measure(root: Path) -> None:
    """Print rates, times and ratios, for SQLite and then for PostgreSQL."""
    base = await _measure_moto(root)
    await _measure_database(Database("SQLite"), root / "sqlite", base)
    postgres = _find_postgres()
    if postgres is None:
        print("PostgreSQL: not installed")
        return
    with _serving_postgres(postgres, root / "postgres") as database:
        await _measure_database(database, root / "on-postgres", base)


async def _measure_database(database: Database, root: Path, base: list[float] | None) -> None:
    async with (
        running_program(root, database.url) as program,
        working_agent(program) as agent,
        _admin(program) as admin,
    ):
        idle, cpu_s, began = program.rss_bytes(), program.cpu_s(), time.perf_counter()
        seconds = await _run_tasks(admin, CALLS, "subnet-default")
        answered_s = time.perf_counter() - began
        await agent.wait_ended(CALLS * TASKS_A_CALL)
        all_s = time.perf_counter() - began
        cpu_s = program.cpu_s() - cpu_s
        loaded = program.rss_bytes()
    tasks = CALLS * TASKS_A_CALL
    _print_times(f"RunTask of {TASKS_A_CALL}, {database.name}", seconds, answered_s, base)
    print(
        f"{'  whole lives, reports included':38}{tasks / all_s:8.0f} tasks/s"
        f"{cpu_s / tasks * 1e3:8.2f} ms of processor a task"
    )
    print(
        f"{'  resident memory':38}{idle / MIB:8.1f} MB idle"
        f"{loaded / MIB:8.1f} MB after {tasks} tasks"
    )
    await _measure_stored(database, root, tasks, agent.arn)


async def _measure_stored(database: Database, root: Path, there: int, arn: str | None) -> None:
    """Fill up the database, whose tasks so far serve as patterns."""
    url = database.url or f"sqlite:///{root / 'state' / 'state.db'}"
    print(f"\n{database.name}, by the number of stopped tasks that are stored; medians")
    print("cpu: processor time of the control plane; server: that of the database's, and its most")
    print(
        f"{'stored':>8}{'RunTask of 10':>15}{'life':>12}{'cpu':>12}{'server':>12}{'most':>12}"
        f"{'DescribeTasks 100':>19}{'cpu, both':>12}{'ListTasks running':>20}{'stopped':>12}"
        f"{'memory':>10}"
    )
    for stored in STORED:
        await _store_tasks(url, stored - there)
        there = max(stored, there)
        async with (
            running_program(root, database.url) as program,
            working_agent(program, arn) as agent,
            _admin(program) as admin,
        ):
            lives = [await _measure_lives(database, program, admin, agent) for _ in range(ROUNDS)]
            await _print_stored(database, program, admin, there, lives)
        there += ROUNDS * CALLS_A_ROUND * TASKS_A_CALL


@dataclass(frozen=True)
class Lives:
    """What the whole lives of some tasks have taken; seconds for each task."""

    run_s: float
    """A call of RunTask: the median."""
    wall_s: float
    program_s: float
    """Processor time of the control plane."""
    server_s: float
    """Processor time of the database's server."""


async def _measure_lives(
    database: Database, program: Program, admin: Client, agent: Agent
) -> Lives:
    tasks, ended = CALLS_A_ROUND * TASKS_A_CALL, agent.ended
    program_s, server_s, began = program.cpu_s(), database.cpu_s(), time.perf_counter()
    runs = await _run_tasks(admin, CALLS_A_ROUND, "subnet-default")
    await agent.wait_ended(ended + tasks)
    return Lives(
        statistics.median(runs),
        (time.perf_counter() - began) / tasks,
        (program.cpu_s() - program_s) / tasks,
        (database.cpu_s() - server_s) / tasks,
    )


async def _print_stored(
    database: Database, program: Program, admin: Client, stored: int, lives: Sequence[Lives]
) -> None:
    arns = (await admin.call("ListTasks", desiredStatus="STOPPED"))["taskArns"]
    cpu_s = program.cpu_s() + database.cpu_s()
    describe_s = await _median(admin, "DescribeTasks", tasks=arns)
    describe_cpu_s = (program.cpu_s() + database.cpu_s() - cpu_s) / CALLS_A_ROUND
    running_s = await _median(admin, "ListTasks")
    stopped_s = await _median(admin, "ListTasks", desiredStatus="STOPPED")
    run_s, wall_s, program_s, server_s = (
        statistics.median(times) for times in zip(*map(astuple, lives), strict=True)
    )
    print(
        f"{stored:8}{run_s * 1e3:12.0f} ms{wall_s * 1e3:9.2f} ms{program_s * 1e3:9.2f} ms"
        f"{server_s * 1e3:9.2f} ms{max(life.server_s for life in lives) * 1e3:9.2f} ms"
        f"{describe_s * 1e3:16.1f} ms{describe_cpu_s * 1e3:9.1f} ms"
        f"{running_s * 1e3:17.1f} ms{stopped_s * 1e3:9.1f} ms{program.rss_bytes() / MIB:7.0f} MB"
    )


async def _median(client: Client, operation: str, **request: object) -> float:
    seconds = []
    for _ in range(CALLS_A_ROUND):
        began = time.perf_counter()
        await client.call(operation, **request)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


async def _run_tasks(client: Client, calls: int, subnet: str) -> list[float]:
    """Call RunTask from a few clients at once; return how long each call took, in seconds."""
    seconds: list[float] = []
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            began = time.perf_counter()
            answer = await client.call(
                "RunTask",
                taskDefinition="bench",
                launchType="FARGATE",
                count=TASKS_A_CALL,
                networkConfiguration={
                    "awsvpcConfiguration": {"subnets": [subnet], "securityGroups": []}
                },
            )
            seconds.append(time.perf_counter() - began)
            if len(answer["tasks"]) != TASKS_A_CALL:
                raise RuntimeError(f"RunTask: {answer['failures']}")

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(work())
    return seconds


def _print_times(
    what: str, seconds: list[float], all_s: float, base: list[float] | None = None
) -> None:
    ordered = sorted(seconds)
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    ratio = f"{p50 / statistics.median(base):6.2f} of moto's" if base else ""
    print(
        f"{what:38}{len(seconds) / all_s:8.1f} calls/s"
        f"   p50 {p50 * 1e3:7.1f} ms   p99 {p99 * 1e3:7.1f} ms{ratio}"
    )


@asynccontextmanager
async def _admin(program: Program) -> AsyncIterator[Client]:
    """Give a client that has registered what is to be run."""
    async with Client(program.url, program.keys["admin"]) as client:
        await client.call("RegisterTaskDefinition", **DEFINITION)
        yield client


async def _store_tasks(url: str, count: int) -> None:
    """Copy a stopped task so many times, with its ENI and one event each."""
    async with open_store(make_url(url), Announcements()) as store:
        async with store.read() as session:
            patterns = [
                dict((await session.execute(select(table).limit(1))).mappings().one())
                for table in (Task.__table__, Eni.__table__, Event.__table__)
            ]
        task, eni, event = patterns
        del event["seq"]
        for start in range(0, count, BATCH):
            ids = [uuid.uuid4().hex for _ in range(min(BATCH, count - start))]
            async with store.write() as session:
                await session.execute(insert(Task), [{**task, "id": i} for i in ids])
                await session.execute(
                    insert(Eni),
                    [{**eni, "id": f"eni-{i[:17]}", "task_id": i, "attachment_id": i} for i in ids],
                )
                await session.execute(insert(Event), [{**event, "subject": i} for i in ids])


async def _measure_moto(root: Path) -> list[float] | None:
    """Print what moto's server needs for the same calls, and return it in seconds."""
    program = await asyncio.to_thread(_install_moto, root / "moto")
    if program is None:
        print("moto's server: does not install here")
        return None
    process = subprocess.Popen(
        [program, "-p", "51699"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = "http://127.0.0.1:51699"
    try:
        await _until_served(url)
        async with Client(url, Credentials("bench", "bench")) as client:
            await client.call("CreateCluster", clusterName="default")
            await client.call("RegisterTaskDefinition", **DEFINITION)
            subnet = await _moto_subnet(url)
            began = time.perf_counter()
            seconds = await _run_tasks(client, CALLS, subnet)
            _print_times(
                f"RunTask of {TASKS_A_CALL}, moto's server", seconds, time.perf_counter() - began
            )
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
    return seconds


def _install_moto(directory: Path) -> str | None:
    if (found := shutil.which("moto_server")) is not None:
        return found
    try:
        subprocess.run([sys.executable, "-m", "venv", directory], check=True, timeout=DEADLINE_S)
        subprocess.run(
            [directory / "bin" / "pip", "install", "-q", "moto[server]"],
            check=True, timeout=600, capture_output=True,
        )  # fmt: skip
    except subprocess.SubprocessError:
        return None
    return str(directory / "bin" / "moto_server")


async def _until_served(url: str) -> None:
    async with asyncio.timeout(DEADLINE_S), aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(f"{url}/moto-api/"):
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)


async def _moto_subnet(url: str) -> str:
    """Return a subnet of moto's default VPC."""
    credential = "Credential=bench/20260101/us-east-1/ec2/aws4_request"
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            url,
            data={"Action": "DescribeSubnets", "Version": "2016-11-15"},
            headers={"Authorization": f"AWS4-HMAC-SHA256 {credential}"},
        ) as answer,
    ):
        text = await answer.text()
    return text.partition("<subnetId>")[2].partition("<")[0]


def _find_postgres() -> Path | None:
    for program in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True):
        return program.parent
    return None


@contextmanager
def _serving_postgres(programs: Path, directory: Path) -> Iterator[Database]:
    """Give a database of a server of its own, whose commits wait for the disk."""
    user = pwd.getpwnam("postgres")
    directory.mkdir()
    directory.parent.chmod(0o711)
    os.chown(directory, user.pw_uid, user.pw_gid)
    options: dict[str, Any] = {
        "user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/",
        "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
    }  # fmt: skip
    data = directory / "data"
    subprocess.run(
        [programs / "initdb", "--no-sync", "-A", "trust", "-U", "postgres", "-D", data],
        check=True, timeout=DEADLINE_S, **options,
    )  # fmt: skip
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, "-k", directory, "-c", "listen_addresses="], **options
    )
    try:
        for _ in range(DEADLINE_S * 10):
            asked = subprocess.run(
                [programs / "pg_isready", "-q", "-h", directory], check=False, **options
            )
            if asked.returncode == 0:
                break
            time.sleep(0.1)
        url = f"postgresql+asyncpg://postgres@/postgres?host={directory}"
        yield Database("PostgreSQL", url, server.pid)
    finally:
        server.terminate()
        server.wait(DEADLINE_S)
