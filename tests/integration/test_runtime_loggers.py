"""The loggers of containers: whose memory they use, and what becomes of one that can't work.

With each cgroup driver that works on this machine.
"""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.drivers import LogDriver, LoggerUser
from fargate_agent.errors import ContainerRuntimeTimeoutError, ResourceInitializationError
from fargate_agent.logdriver.catalog import make_log_drivers
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.runtime.cgroupdriver import CgroupDriverName
from fargate_agent.runtime.loggers import make_directories
from fargate_agent.settings import AgentSettings
from tests.fixtures.loggers import LOGGER, read_text
from tests.fixtures.machine import arguments, find_groups, wait_for
from tests.fixtures.runtime import Bench, make_runtime, require_driver

pytestmark = pytest.mark.root

NOBODY = LoggerUser(uid=65534, gid=65534)

EATER_MIB = 48
EATER = f"""\
#!/usr/bin/python3
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
held = b"x" * ({EATER_MIB} << 20)
with open(sys.argv[2], "w") as file:
    file.write(f"{{os.getpid()}} {{os.getppid()}}\\n")
os.close(5)
while os.read(3, 4096):
    pass
"""
"""A logger that needs memory; tells its process id and its parent's, which is the shim."""

HANGING = EATER.replace("os.close(5)", "")

SLOW = f"""\
{EATER}
import time
time.sleep(1.5)
with open(sys.argv[2], "a") as file:
    file.write("all is sent\\n")
"""


@pytest.fixture(params=["systemd", "cgroupfs"])
def cgroup_driver(request: pytest.FixtureRequest) -> CgroupDriverName:
    driver: CgroupDriverName = request.param
    require_driver(driver)
    return driver


def make_program(bench: Bench, text: str) -> Path:
    program = bench.directory / "eater"
    program.write_text(text)
    program.chmod(0o755)
    return program


def memory_bytes(path: str) -> int:
    """Return what the kernel counts for a group and all below it."""
    names = ("memory.usage_in_bytes", "memory.current")
    files = [group / name for group in find_groups(path) for name in names]
    return max(int(file.read_text()) for file in files if file.exists())


def groups_of(pid: int) -> set[str]:
    """Return the groups of a process; of cgroup v1, those that count memory and processors."""
    rows = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    v1 = {path for _, names, path in rows if {"memory", "cpu"} & set(names.split(","))}
    return v1 or {rows[0][2]}


def runs(pid: int) -> bool:
    """Whether a process does anything yet; one that has ended may wait for init to notice."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_logger_and_shim_count_for_their_task_and_not_for_the_container(
    bench: Bench,
) -> None:
    task = bench.plan({"command": ["sleep", "60"], "stopTimeout": 2}, memory=256)
    (container,) = task.containers
    await bench.prepare(task)
    program = make_program(bench, EATER)

    await bench.runtime.create(task, container, bench.image(), bench.log_uri(container, program))
    await bench.runtime.start(task, container)

    pids = [int(text) for text in bench.output_file(container).read_text().split()]
    for pid in pids:
        (group,) = groups_of(pid)
        assert task.id in group
        assert group.endswith((f"/loggers/{container.id}", f"/ecs-{container.id}-logger.scope"))
    assert memory_bytes(task.cgroup) > EATER_MIB << 20
    assert memory_bytes(container.cgroup) < EATER_MIB << 20

    await bench.runtime.stop(container)
    await bench.release(task)
    assert not any(runs(pid) for pid in pids)
    assert await bench.traces(task) == []


async def test_containers_of_a_task_come_and_go_in_the_group_of_loggers(bench: Bench) -> None:
    names = ("one", "two", "three")
    task = bench.plan(*({"name": name, "command": ["sh", "-c", "exit 0"]} for name in names))
    await bench.prepare(task)

    for container in task.containers:  # each when the one before has gone, with its logger
        await bench.create(task, container)
        await bench.runtime.start(task, container)
        assert (await bench.runtime.wait(container)).code == 0
        await bench.runtime.stop(container)
    await bench.release(task)

    assert await bench.traces(task) == []


@pytest.mark.parametrize(
    "terminal", [pytest.param(False, id="pipes"), pytest.param(True, id="terminal")]
)
async def test_logger_has_time_to_send_the_rest_when_its_container_is_gone(
    bench: Bench, terminal: bool
) -> None:
    task = bench.plan({"command": ["sh", "-c", "exit 0"], "pseudoTerminal": terminal})
    (container,) = task.containers
    await bench.prepare(task)
    uri = bench.log_uri(container, make_program(bench, SLOW))

    await bench.runtime.create(task, container, bench.image(), uri)
    await bench.runtime.start(task, container)
    await bench.runtime.wait(container)
    await bench.runtime.stop(container)
    await bench.release(task)

    assert bench.output_file(container).read_text().endswith("all is sent\n")


async def test_nothing_is_left_of_a_logger_that_never_gets_ready(
    bench: Bench, cgroup_driver: CgroupDriverName
) -> None:
    task = bench.plan({})
    (container,) = task.containers
    impatient = make_runtime(bench.containerd, [], create_timeout_s=8, cgroup_driver=cgroup_driver)
    await impatient.prepare(task)
    uri = bench.log_uri(container, make_program(bench, HANGING))

    with pytest.raises(ContainerRuntimeTimeoutError):
        await impatient.create(task, container, bench.image(), uri)

    pids = [int(text) for text in bench.output_file(container).read_text().split()]
    assert await impatient.stop(container) is None
    await impatient.release(task)
    assert not any(runs(pid) for pid in pids)
    assert await bench.traces(task) == []


def real_drivers(user: LoggerUser | None = None, **settings: str) -> dict[str, LogDriver]:
    made = AgentSettings.model_validate({"shim_loggers_dir": LOGGER.parent, **settings})
    return dict(make_log_drivers(made, user))


def plan_fluentd(bench: Bench, address: str, **container: object) -> TaskPlan:
    options = {"fluentd-address": address}
    log = {"logDriver": "fluentd", "options": options}
    return bench.plan({"logConfiguration": log, **container})


@pytest.mark.parametrize(
    "user", [pytest.param(None, id="root"), pytest.param(NOBODY, id="without-rights")]
)
async def test_container_does_not_start_when_its_logger_cannot_work(
    bench: Bench, user: LoggerUser | None
) -> None:
    task = plan_fluentd(bench, "127.0.0.1:9", command=["sh", "-c", "echo started"])
    (container,) = task.containers
    close_parents(bench.directory)
    await bench.prepare(task)
    make_directories(task, user)
    uri = real_drivers(user)["fluentd"].uri(task, container)
    await bench.runtime.create(task, container, bench.image(), uri)

    for _ in range(2):  # an agent that comes after this one is told as well
        with pytest.raises(ResourceInitializationError) as caught:
            await bench.runtime.start(task, container)

        assert caught.value.container == container.name
        assert caught.value.detail.startswith("failed to validate logger args: ")
        assert "connection refused" in caught.value.detail.lower()
        assert caught.value.detail.endswith(" : exit status 1")
    assert await bench.runtime.stop(container) is None
    await bench.release(task)
    assert not container.log_path.exists() or "started" not in read_text(container.log_path)
    assert await bench.traces(task) == []


@pytest.mark.parametrize(
    "terminal", [pytest.param(False, id="pipes"), pytest.param(True, id="terminal")]
)
async def test_output_goes_nowhere_when_no_copy_is_kept(bench: Bench, terminal: bool) -> None:
    script = "head -c 300000 /dev/zero; exit 5"  # more than a pipe holds
    log = {"logDriver": "none"}
    task = bench.plan(
        {"command": ["sh", "-c", script], "pseudoTerminal": terminal, "logConfiguration": log}
    )
    (container,) = task.containers
    await bench.prepare(task)
    uri = real_drivers(log_copy="false")["none"].uri(task, container)

    await bench.runtime.create(task, container, bench.image(), uri)
    await bench.runtime.start(task, container)
    status = await bench.runtime.wait(container)

    assert status.code == 5
    assert not container.log_path.exists()
    await bench.runtime.stop(container)


async def test_logger_without_rights_writes_and_rotates_its_copy(
    bench: Bench, listener: socket.socket
) -> None:
    task = bench.plan(
        {
            "command": ["sh", "-c", "for i in $(seq 400); do echo line $i; done; sleep 60"],
            "logConfiguration": {
                "logDriver": "fluentd",
                "options": {"fluentd-address": f"127.0.0.1:{listener.getsockname()[1]}"},
            },
            "stopTimeout": 1,
        }
    )
    (container,) = task.containers
    close_parents(bench.directory)
    await bench.prepare(task)
    make_directories(task, NOBODY)
    uri = real_drivers(NOBODY, log_max_size="4k")["fluentd"].uri(task, container)

    await bench.runtime.create(task, container, bench.image(), uri)
    await bench.runtime.start(task, container)

    first = container.log_path.with_name(container.log_path.name + ".1")
    wait_for(lambda: "line 400\n" in read_all(container.log_path.parent), "the last line", 10)
    assert first.exists()
    assert container.log_path.stat().st_uid == NOBODY.uid
    await bench.runtime.stop(replace(container, stop_timeout_s=0))


def read_all(directory: Path) -> str:
    """Return what a logger has written that may be giving its files other names."""
    text = ""
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            text += read_text(path)
    return text


def logger_of(container: ContainerPlan) -> int:
    """Return the process id of a container's logger."""
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return next(
        pid
        for pid in pids
        if Path((argv := arguments(pid))[0]).name == "python3" and container.id in argv
    )


@pytest.mark.parametrize("driver", ["json-file", "fluentd"])
async def test_container_learns_that_its_logger_was_killed_and_the_task_ends_as_ever(
    bench: Bench, listener: socket.socket, driver: str
) -> None:
    host, port = listener.getsockname()
    options = {"fluentd-address": f"{host}:{port}"} if driver == "fluentd" else {}
    task = bench.plan(
        {
            "command": ["sh", "-c", "while echo tick; do sleep 0.02; done; exit 3"],
            "logConfiguration": {"logDriver": driver, "options": options},
        }
    )
    (container,) = task.containers
    await bench.prepare(task)
    uri = real_drivers()[driver].uri(task, container)
    await bench.runtime.create(task, container, bench.image(), uri)
    await bench.runtime.start(task, container)
    wait_for(lambda: "tick\n" in read_all(container.log_path.parent), "the first line", 10)

    os.kill(logger_of(container), signal.SIGKILL)
    status = await bench.runtime.wait(container)

    assert status.code == 3
    await bench.runtime.stop(container)
    await bench.release(task)
    assert await bench.traces(task) == []


@pytest.fixture
def listener(bench: Bench) -> Iterator[socket.socket]:
    """A destination in the network namespace of tasks; what it gets waits in the kernel."""
    with socket_in_netns(bench.netns, socket.AF_INET, socket.SOCK_STREAM) as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        yield made


def close_parents(directory: Path) -> None:
    """Let nobody but root reach what is below a directory of the test, as in a state directory."""
    directory.chmod(0o700)
