"""Processes under a real containerd: from create to delete, and everything that goes wrong."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import (
    AlreadyExistsError,
    ContainerdError,
    DeadlineError,
    NotFoundError,
)
from fargate_agent.containerd.events import Event, TaskExit, TaskOom
from fargate_agent.containerd.processes import ProcessStatus, RuncOptions
from tests.fixtures.busybox import SNAPSHOTTER, prepare_busybox
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.machine import arguments, shims, wait_for

pytestmark = pytest.mark.root

DEADLINE_S: Final = 20.0
FOREVER: Final = ("sleep", "1000")


async def create(
    client: Containerd,
    args: Sequence[str],
    *,
    memory_bytes: int | None = None,
    log_uri: str | None = None,
    deadline_s: float = DEADLINE_S,
) -> int:
    """Make a process of the container `web`."""
    await prepare_busybox(client, "web", args, memory_bytes)
    return await client.processes.create(
        "web",
        await client.snapshots(SNAPSHOTTER).mounts("web"),
        log_uri=log_uri,
        terminal=False,
        options=RuncOptions(),
        deadline_s=deadline_s,
    )


def shims_of(client: Containerd) -> dict[int, list[str]]:
    """Return the shims of the client's namespace."""
    return {pid: argv for pid, argv in shims().items() if client.namespace in argv}


def processes_with(argument: str) -> list[int]:
    """Return the ids of processes that have this among their arguments."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if argument in arguments(pid)]


@pytest.fixture
def hanging_logger(tmp_path: Path) -> Path:
    """A logger that never says that it is ready, and has a child."""
    logger = tmp_path / "hanging-logger"
    logger.write_text("#!/bin/sh\n/bin/sleep 1000 &\nwait\n")
    logger.chmod(0o755)
    return logger


async def test_a_process_runs_from_create_to_delete(containerd: Containerd) -> None:
    processes = containerd.processes
    pid = await create(containerd, ["sh", "-c", "exit 7"])
    created = await processes.get("web")
    started_pid = await processes.start("web")

    exit_ = await processes.wait("web")

    assert (created.id, created.pid, created.status) == ("web", pid, ProcessStatus.CREATED)
    assert started_pid == pid
    assert exit_.code == 7
    assert abs(datetime.now(UTC) - exit_.at) < timedelta(seconds=DEADLINE_S)
    (stopped,) = await processes.list()
    assert (stopped.id, stopped.status, stopped.exit_code, stopped.exited_at) == (
        "web",
        ProcessStatus.STOPPED,
        7,
        exit_.at,
    )
    assert await processes.delete("web") == exit_
    assert shims_of(containerd) == {}
    with pytest.raises(NotFoundError):
        await processes.get("web")


async def test_a_signal_that_ends_the_process_is_its_exit_code(containerd: Containerd) -> None:
    await create(containerd, FOREVER)
    await containerd.processes.start("web")

    await containerd.processes.kill("web", signal.SIGKILL)

    assert (await containerd.processes.wait("web")).code == 128 + signal.SIGKILL
    with pytest.raises(NotFoundError):
        await containerd.processes.kill("web", signal.SIGKILL)


async def test_a_running_process_is_not_deleted(containerd: Containerd) -> None:
    await create(containerd, FOREVER)
    await containerd.processes.start("web")

    with pytest.raises(ContainerdError, match="cannot delete a running process"):
        await containerd.processes.delete("web")

    assert (await containerd.processes.get("web")).status is ProcessStatus.RUNNING


async def test_a_process_is_made_once(containerd: Containerd) -> None:
    await create(containerd, FOREVER)

    with pytest.raises(AlreadyExistsError):
        await containerd.processes.create(
            "web",
            (),
            log_uri=None,
            terminal=False,
            options=RuncOptions(),
            deadline_s=DEADLINE_S,
        )


async def test_a_program_that_does_not_exist_is_named_in_the_error(containerd: Containerd) -> None:
    with pytest.raises(ContainerdError, match=r'exec: "nonesuch": executable file not found'):
        await create(containerd, ["nonesuch"])

    assert shims_of(containerd) == {}


async def test_a_process_of_a_container_that_does_not_exist_is_not_found(
    containerd: Containerd,
) -> None:
    for call in (
        containerd.processes.get("nonesuch"),
        containerd.processes.start("nonesuch"),
        containerd.processes.wait("nonesuch"),
        containerd.processes.delete("nonesuch"),
        containerd.processes.kill("nonesuch", signal.SIGTERM),
    ):
        with pytest.raises(NotFoundError):
            await call
    await containerd.processes.force_delete("nonesuch")


async def test_a_second_process_is_executed_in_a_container(containerd: Containerd) -> None:
    await create(containerd, FOREVER)
    await containerd.processes.start("web")
    process = {"args": ["sh", "-c", "exit 9"], "cwd": "/", "env": ["PATH=/bin"], "user": {}}

    await containerd.execs.add("web", "check", json.dumps(process).encode())
    await containerd.processes.start("web", exec_id="check")

    assert (await containerd.processes.wait("web", exec_id="check")).code == 9
    assert (await containerd.processes.delete("web", exec_id="check")).code == 9
    assert (await containerd.processes.get("web")).status is ProcessStatus.RUNNING


async def test_the_pids_of_a_container_are_listed(containerd: Containerd) -> None:
    pid = await create(containerd, ["sh", "-c", "sleep 1000 & sleep 1000; exit"])
    await containerd.processes.start("web")

    async with asyncio.timeout(DEADLINE_S):
        while len(pids := await containerd.processes.pids("web")) < 3:
            await asyncio.sleep(0.01)

    assert pid in pids


async def test_output_goes_to_the_logger(containerd: Containerd, tmp_path: Path) -> None:
    output = tmp_path / "output"
    logger = tmp_path / "logger"
    logger.write_text(
        f"#!/bin/sh\ntrap '' TERM\nexec 5>&-\ncat <&3 >{output}.out\ncat <&4 >{output}.err"
    )
    logger.chmod(0o755)
    await create(
        containerd,
        ["sh", "-c", "echo to stdout; echo to stderr >&2"],
        log_uri=f"binary://{logger}?container=web",
    )
    await containerd.processes.start("web")
    await containerd.processes.wait("web")

    await containerd.processes.delete("web")

    assert output.with_suffix(".out").read_text() == "to stdout\n"
    assert output.with_suffix(".err").read_text() == "to stderr\n"


async def test_what_a_container_uses_is_measured(containerd: Containerd) -> None:
    limit = 64 << 20
    await create(containerd, ["sh", "-c", "while :; do :; done"], memory_bytes=limit)
    await containerd.processes.start("web")

    async with asyncio.timeout(DEADLINE_S):
        while (used := (await containerd.processes.metrics(["web"]))["web"]).cpu_total_ns < 10**8:
            await asyncio.sleep(0.01)

    assert used.cpu_user_ns + used.cpu_kernel_ns > 0
    assert used.memory_limit_bytes == limit
    assert 0 < used.memory_bytes < limit
    assert {"pgfault", "inactive_file"} <= used.memory_stats.keys()
    assert await containerd.processes.metrics(["nonesuch"]) == {}
    assert await containerd.processes.metrics([]) == {}


async def test_a_kill_by_the_kernel_is_told_beside_the_exit(containerd: Containerd) -> None:
    namespace = containerd.namespace
    filters = [f'namespace=={namespace},topic~="^/(tasks|containers)/"']
    # a shim watches from when it has started a container: what is killed at once may not be told
    script = "until [ -e /go ]; do sleep 0.01; done; exec dd if=/dev/zero of=/dev/null bs=100M"
    pid = await create(containerd, ["sh", "-c", script], memory_bytes=8 << 20)

    told: dict[type[object], object] = {}
    async with aclosing(containerd.events.subscribe(filters)) as events:
        await _subscribed(containerd, events)
        await containerd.processes.start("web")
        Path(f"/proc/{pid}/root/go").touch()
        async with asyncio.timeout(DEADLINE_S):
            async for event in events:
                assert event.namespace == namespace
                told[type(event.payload)] = event.payload
                if {TaskOom, TaskExit} <= told.keys():  # in whatever order
                    break

    assert told[TaskOom] == TaskOom(container_id="web")
    exit_ = told[TaskExit]
    assert isinstance(exit_, TaskExit)
    assert (exit_.container_id, exit_.id, exit_.code) == ("web", "web", 128 + signal.SIGKILL)
    assert (await containerd.processes.metrics(["web"]))["web"].oom_kills > 0


async def _subscribed(client: Containerd, events: AsyncIterator[Event]) -> None:
    """Return when events come: make harmless ones until one of them is there."""

    async def first() -> None:
        while (await anext(events)).topic != "/containers/update":
            pass  # of the creation, late

    waiting = asyncio.create_task(first())
    async with asyncio.timeout(DEADLINE_S):
        while not waiting.done():
            await client.containers.set_labels("web", {"subscribed": "soon"})
    await waiting


async def test_a_logger_that_never_gets_ready_meets_the_deadline_and_leaves_nothing(
    containerd: Containerd, hanging_logger: Path, private_containerd: PrivateContainerd
) -> None:
    with pytest.raises(DeadlineError):
        await create(containerd, FOREVER, log_uri=f"binary://{hanging_logger}?a=b", deadline_s=5)
    left_by_containerd = shims_of(containerd), processes_with(str(hanging_logger))

    await containerd.processes.force_delete("web")

    assert all(left_by_containerd), "containerd tidies up by itself now: simplify"
    assert shims_of(containerd) == {}
    assert processes_with(str(hanging_logger)) == []
    bundles = f"*/*task/{containerd.namespace}/*"
    wait_for(
        lambda: not list(private_containerd.directory.glob(bundles)), "bundles to go", DEADLINE_S
    )
    assert await containerd.processes.list() == ()


@pytest.mark.parametrize("state", ["created", "running", "stopped", "without its record"])
async def test_force_delete_removes_a_process_in_whatever_state(
    containerd: Containerd, state: str
) -> None:
    pid = await create(containerd, FOREVER)
    if state != "created":
        await containerd.processes.start("web")
    if state == "stopped":
        await containerd.processes.kill("web", signal.SIGKILL)
        await containerd.processes.wait("web")
    if state == "without its record":
        await containerd.containers.delete("web")

    await containerd.processes.force_delete("web")

    assert shims_of(containerd) == {}
    assert arguments(pid) == [""]
    assert await containerd.processes.list() == ()


async def test_waiting_ends_with_an_error_when_the_shim_dies(containerd: Containerd) -> None:
    await create(containerd, FOREVER)
    await containerd.processes.start("web")
    (shim,) = shims_of(containerd)

    async with _waiting(containerd) as waiting:
        os.kill(shim, signal.SIGKILL)

        with pytest.raises(ContainerdError):
            await waiting


@asynccontextmanager
async def _waiting(client: Containerd) -> AsyncIterator[asyncio.Task[int]]:
    """Wait for `web` in the background; containerd has been asked when the body begins."""

    async def exit_code() -> int:
        return (await client.processes.wait("web")).code

    waiting = asyncio.create_task(exit_code())
    try:
        async with asyncio.timeout(DEADLINE_S):
            await client.processes.get("web")  # asked after, so answered after it was asked
            yield waiting
    finally:
        waiting.cancel()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["orderly", "crash"])
async def test_waiting_outlives_a_restart_of_containerd(
    containerd: Containerd, private_containerd: PrivateContainerd, how: signal.Signals
) -> None:
    await create(containerd, ["sh", "-c", "trap 'exit 42' TERM; while :; do sleep 0.05; done"])
    await containerd.processes.start("web")

    async with _waiting(containerd) as waiting:
        await asyncio.to_thread(private_containerd.stop, how)
        await asyncio.to_thread(private_containerd.start)
        await containerd.wait_until_served()
        running = await containerd.processes.get("web")
        waiting_still = not waiting.done()
        await containerd.processes.kill("web", signal.SIGTERM)

        assert await waiting == 42

    assert waiting_still
    assert running.status is ProcessStatus.RUNNING


async def test_an_exit_while_containerd_is_away_is_told_afterwards(
    containerd: Containerd, private_containerd: PrivateContainerd
) -> None:
    pid = await create(containerd, FOREVER)
    await containerd.processes.start("web")

    async with _waiting(containerd) as waiting:
        await asyncio.to_thread(private_containerd.stop)
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(private_containerd.start)

        assert await waiting == 128 + signal.SIGKILL


async def test_a_call_made_while_containerd_is_away_is_answered_when_it_is_back(
    containerd: Containerd, private_containerd: PrivateContainerd
) -> None:
    await asyncio.to_thread(private_containerd.stop)
    try:
        listing = asyncio.create_task(containerd.containers.list())
        await asyncio.sleep(0)
    finally:
        await asyncio.to_thread(private_containerd.start)

    assert await listing == ()
