"""A logger that is killed while its container runs, and what takes its place.

With each cgroup driver that works on this machine.
"""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime import logger_start
from fargate_agent.runtime.cgroupdriver import CgroupDriverName
from fargate_agent.runtime.logger_processes import LoggerProcess, find_logger
from tests.fixtures.loggers import read_records
from tests.fixtures.machine import arguments
from tests.fixtures.runtime import Bench, make_runtime, require_driver
from tests.integration.test_runtime_loggers import groups_of, make_program, real_drivers, runs

pytestmark = pytest.mark.root

DEADLINE_S = 60

WRITER = """
trap 'go=1' USR1
echo ready
until [ -n "$go" ]; do sleep 0.02; done
for i in $(seq 20000); do echo line $i; done
exit 3
"""
"""Writes more than a pipe holds, when it is told to."""

TICKS = "echo ready; while echo tick; do sleep 0.02; done; exit 3"
"""Ends when nobody can read it any more."""

SLOW = """\
#!/usr/bin/python3
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[2], "a") as file:
    os.write(5, b"!")
    os.close(5)
    while text := os.read(3, 4096):
        file.write(text.decode())
        file.flush()
    time.sleep(1.5)
    file.write("all is sent\\n")
"""


@pytest.fixture(params=["systemd", "cgroupfs"])
def cgroup_driver(request: pytest.FixtureRequest) -> CgroupDriverName:
    driver: CgroupDriverName = request.param
    require_driver(driver)
    return driver


@pytest.fixture
def listener(bench: Bench) -> Iterator[socket.socket]:
    """A destination in the network namespace of tasks; what it gets waits in the kernel."""
    with socket_in_netns(bench.netns, socket.AF_INET, socket.SOCK_STREAM) as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        yield made


async def begin(
    bench: Bench,
    script: str,
    driver: str,
    listener: socket.socket | None = None,
    *,
    terminal: bool = False,
) -> TaskPlan:
    """Return when the first line of a task was written down."""
    options = {}
    if listener is not None:
        host, port = listener.getsockname()
        options = {"fluentd-address": f"{host}:{port}"}
    task = bench.plan(
        {
            "command": ["sh", "-c", script],
            "logConfiguration": {"logDriver": driver, "options": options},
            "pseudoTerminal": terminal,
            "stopTimeout": 1,
        }
    )
    (container,) = task.containers
    await bench.prepare(task)
    uri = real_drivers()[driver].uri(task, container)
    await bench.runtime.create(task, container, bench.image(), uri)
    await bench.runtime.start(task, container)
    await until(lambda: read_lines(container)[:1] == ["ready"], "the first line")
    return task


def read_lines(container: ContainerPlan) -> list[str]:
    """Return the lines of a container, in their order, as its loggers wrote them down."""
    count, text = 0, ""
    while (file := Path(f"{container.log_path}{f'.{count}' if count else ''}")).exists():
        text = "".join(record["log"] for record in read_records(file)) + text
        count += 1
    return text.replace("\r", "").splitlines()


async def until(done: Callable[[], object], what: str) -> None:
    """Return when `done` says so, while other things go on."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not done():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"waited {DEADLINE_S} s for {what}")


def find(bench: Bench, container: ContainerPlan) -> LoggerProcess | None:
    return find_logger(bench.runtime._cgroups, container)


async def kill(bench: Bench, container: ContainerPlan) -> None:
    """Kill the logger of a container that does nothing at the moment; return when it has gone."""
    found = find(bench, container)
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    await until(lambda: not runs(found.pid), "the logger to go")


async def wait_for_another(bench: Bench, container: ContainerPlan) -> int:
    """Return the process id of the logger that has taken the place of another."""
    await until(lambda: find_another(bench, container), "another one")
    found = find_another(bench, container)
    assert found is not None
    return found


def find_another(bench: Bench, container: ContainerPlan) -> int | None:
    """Not before it has become the logger."""
    found = find(bench, container)
    if found is None or not found.in_place or logger_start.__file__ in arguments(found.pid):
        return None
    return found.pid


@asynccontextmanager
async def watched(bench: Bench, container: ContainerPlan) -> AsyncIterator[asyncio.Task[None]]:
    """Watch the logger of a container, from the time on when its pipes are held."""
    found = find(bench, container)
    before = open_pipes()
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(bench.runtime.watch_logger(container))
        if found is not None and not found.in_place:
            await until(lambda: len(open_pipes()) >= len(before) + 2, "its pipes to be held")
        else:
            await until(lambda: watch.done() or holds_process(found), "its process to be watched")
        yield watch
        watch.cancel()


def open_pipes() -> list[str]:
    return [link for link in descriptors() if link.startswith("pipe:")]


def holds_process(found: LoggerProcess | None) -> bool:
    infos = Path("/proc/self/fdinfo").iterdir()
    return found is not None and any(f"Pid:\t{found.pid}\n" in read(info) for info in infos)


def descriptors() -> list[str]:
    return [link for path in Path("/proc/self/fd").iterdir() if (link := follow(path))]


def follow(path: Path) -> str:
    try:
        return str(path.readlink())
    except FileNotFoundError:  # the directory's own
        return ""


def read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize(
    ("driver", "terminal"),
    [
        pytest.param("json-file", False, id="json-file"),
        pytest.param("json-file", True, id="json-file-terminal"),
        pytest.param("fluentd", False, id="fluentd"),
    ],
)
async def test_no_line_is_lost_that_a_killed_logger_had_not_read(
    bench: Bench, listener: socket.socket, driver: str, *, terminal: bool
) -> None:
    destination = listener if driver == "fluentd" else None
    task = await begin(bench, WRITER, driver, destination, terminal=terminal)
    (container,) = task.containers
    logger = find(bench, container)
    assert logger is not None
    async with watched(bench, container):
        os.kill(logger.pid, signal.SIGSTOP)
        await bench.containerd.processes.kill(container.id, signal.SIGUSR1)
        await kill(bench, container)

        status = await bench.runtime.wait(container)
    await bench.runtime.stop(container)

    assert status.code == 3
    assert read_lines(container) == ["ready", *(f"line {i}" for i in range(1, 20001))]
    await bench.release(task)
    assert await bench.traces(task) == []


async def test_another_logger_is_like_the_first_one_and_outlives_who_started_it(
    bench: Bench,
) -> None:
    task = await begin(bench, TICKS, "json-file")
    (container,) = task.containers
    first = find(bench, container)
    assert first is not None
    (groups, directory) = groups_of(first.pid), Path(f"/proc/{first.pid}/cwd").readlink()
    async with watched(bench, container):
        await kill(bench, container)
        pid = await wait_for_another(bench, container)
        before = len(read_lines(container))
        await until(lambda: len(read_lines(container)) > before, "a line of the other logger")

    process = Path(f"/proc/{pid}")
    assert groups_of(pid) == groups
    assert (process / "cwd").readlink() == directory
    assert os.getsid(pid) != os.getsid(0)
    assert f"PPid:\t{os.getpid()}\n" not in (process / "status").read_text()
    variables = (process / "environ").read_text().split("\0")
    assert {one.partition("=")[0] for one in variables} >= {"CONTAINER_ID", "CONTAINER_NAMESPACE"}
    assert not any("PATH" in one.partition("=")[0] for one in variables)
    inherited = {link for path in (process / "fd").iterdir() if (link := follow(path))}
    assert not any("eventpoll" in link or "socket:" in link for link in inherited)


async def test_logger_that_took_the_place_of_another_is_not_replaced_not_by_a_successor_either(
    bench: Bench, cgroup_driver: CgroupDriverName
) -> None:
    task = await begin(bench, TICKS, "json-file")
    (container,) = task.containers
    async with watched(bench, container):
        await kill(bench, container)
        await wait_for_another(bench, container)
    bench.runtime = make_runtime(bench.containerd, [], cgroup_driver=cgroup_driver)
    held = descriptors()

    async with watched(bench, container) as watch:
        await kill(bench, container)
        async with asyncio.timeout(DEADLINE_S):
            await watch

        assert (await bench.runtime.wait(container)).code == 3
    assert len(descriptors()) <= len(held)


async def test_container_learns_it_when_nothing_can_take_the_place_of_its_logger(
    bench: Bench, listener: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    task = await begin(bench, TICKS, "fluentd", listener)
    (container,) = task.containers
    async with watched(bench, container) as watch:
        listener.close()
        await kill(bench, container)
        async with asyncio.timeout(DEADLINE_S):
            await watch

        assert (await bench.runtime.wait(container)).code == 3
    assert "no logger takes the place of the one that ended" in caplog.text
    assert "connection refused" in caplog.text.lower()
    assert not container.log_fault_path.exists()
    assert find(bench, container) is None


async def test_stop_waits_for_a_logger_of_which_the_shim_knows_nothing(bench: Bench) -> None:
    task = bench.plan({"command": ["sh", "-c", "echo ready; sleep 600"], "stopTimeout": 0})
    (container,) = task.containers
    await bench.prepare(task)
    uri = bench.log_uri(container, make_program(bench, SLOW))
    await bench.runtime.create(task, container, bench.image(), uri)
    await bench.runtime.start(task, container)
    await bench.wait_for_output(task, "ready")
    async with watched(bench, container):
        await kill(bench, container)
        await wait_for_another(bench, container)

    await bench.runtime.stop(container)

    assert bench.output_file(container).read_text() == "ready\nall is sent\n"
