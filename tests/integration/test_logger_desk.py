"""Loggers of real containers ask the agent on its socket; nobody else is told anything there."""

import asyncio
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fargate_agent.credentials.roles import Roles
from fargate_agent.drivers import LoggerUser
from fargate_agent.logdriver.catalog import make_log_drivers
from fargate_agent.network.namespaces import inside, socket_in_netns
from fargate_agent.plan import ContainerPlan, TaskPlan
from fargate_agent.settings import AgentSettings
from tests.fixtures.aws import REGION, Front, client, role_json
from tests.fixtures.machine import find_groups, wait_for
from tests.fixtures.office import Office
from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root

DEADLINE_S = 20.0
NOBODY = LoggerUser(uid=65534, gid=65534)
ETH_P_ALL = 3

TICKS = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.2; done"


@pytest.fixture
def office(bench: Bench, tmp_path: Path) -> Office:
    settings = AgentSettings(socket=tmp_path / "agent.sock", region=REGION, aws="real")
    return Office(bench=bench, settings=settings)


@pytest.fixture
async def aws(netns: Path, moto: str) -> AsyncIterator[Front]:
    """AWS on the loopback of the task, where only its logger and its containers reach it."""
    front = Front(upstream=moto)
    listener = socket_in_netns(netns, socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    async with front.serve(listener):
        yield front


@contextmanager
def sniffing(netns: Path) -> Iterator[list[bytes]]:
    """Take down all frames of a namespace, as a container with raw sockets can."""
    with inside(netns):
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sniffer.settimeout(0.2)
    frames: list[bytes] = []
    ended = threading.Event()

    def take() -> None:
        while not ended.is_set():
            try:
                frames.append(sniffer.recv(65536))
            except TimeoutError:
                continue

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield frames
    finally:
        ended.set()
        thread.join()
        sniffer.close()


def log_uri(office: Office, front: Front, task: TaskPlan) -> str:
    settings = office.settings.model_copy(update={"awslogs_endpoint": front.url})
    driver = make_log_drivers(settings, office.user)["awslogs"]
    uri = driver.uri(task, task.containers[0])
    assert uri is not None
    return uri


def plan_awslogs(office: Office, moto: str, key: str | None, script: str = TICKS) -> TaskPlan:
    group = f"/desk/{office.bench.directory.name}"
    client(moto, "logs").create_log_group(logGroupName=group)
    options = {"awslogs-group": group, "awslogs-region": REGION, "awslogs-stream-prefix": "p"}
    options["max-buffer-size"] = "100"  # so that nothing waits 5 s for more
    return office.bench.plan(
        {
            "command": ["sh", "-c", script],
            "logConfiguration": {"logDriver": "awslogs", "options": options},
        },
        executionRoleCredentials=role_json(key=key, lasts_s=200),  # so that they are asked for anew
    )


def sent_with(front: Front, key: str) -> int:
    return sum(call.key == key for call in front.named("PutLogEvents"))


async def until_sent(front: Front, key: str, times: int = 1) -> None:
    """Return when so many batches more were signed with a key."""
    wanted = sent_with(front, key) + times
    async with asyncio.timeout(DEADLINE_S):
        while sent_with(front, key) < wanted:
            await asyncio.sleep(0.02)


async def test_awslogs_follows_new_keys_and_the_agent_s_restart_and_a_sniffer_sees_none(
    office: Office, aws: Front, moto: str, netns: Path
) -> None:
    task = plan_awslogs(office, moto, "FIRST")
    assert task.execution_role is not None
    with sniffing(netns) as frames:
        async with office.open():
            container = await office.begin(task, log_uri(office, aws, task))
            pid = office.find_logger(container)
            await until_sent(aws, "FIRST")
            office.deliver(task, "SECOND", lasts_s=200)
            await until_sent(aws, "SECOND")
        await until_sent(aws, "SECOND")  # nobody is there to ask: it goes on with what it has
        office.roles = Roles()  # of an agent that starts anew
        office.deliver(task, "THIRD")
        async with office.open():
            await until_sent(aws, "THIRD", 2)

            assert pid is not None
            assert office.find_logger(container) == pid
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
            await office.end(container)

    assert any(b"tick" in frame for frame in frames)
    seen = b"".join(frames)
    for hidden in (b"secret-of", b"SecretAccessKey", b"/credentials/", b"/v2/"):
        assert hidden not in seen
    assert sent_with(aws, "FIRST") + sent_with(aws, "SECOND") + sent_with(aws, "THIRD") == len(
        aws.named("PutLogEvents")
    )
    assert f"unix://{office.settings.logger_socket}".encode() in arguments
    assert task.execution_role.credentials_id.encode() not in arguments


async def test_logger_that_starts_waits_for_keys_that_are_still_to_come(
    office: Office, aws: Front, moto: str
) -> None:
    task = plan_awslogs(office, moto, None)
    async with office.open(), asyncio.TaskGroup() as group:
        group.create_task(office.begin(task, log_uri(office, aws, task)))
        async with asyncio.timeout(DEADLINE_S):
            while office.find_logger(task.containers[0]) is None:
                await asyncio.sleep(0.02)
        office.deliver(task, "LATE")
        await until_sent(aws, "LATE")
        await office.end(task.containers[0])


async def test_logger_of_another_user_gets_keys_though_it_cannot_pass_to_the_socket(
    office: Office, aws: Front, moto: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    office.user = NOBODY
    task = plan_awslogs(office, moto, "FIRST")
    async with office.open():
        container = await office.begin(task, log_uri(office, aws, task))
        pid = office.find_logger(container)
        await until_sent(aws, "FIRST")
        office.deliver(task, "SECOND")
        await until_sent(aws, "SECOND")
        status = Path(f"/proc/{pid}/status").read_text()
        await office.end(container)

    assert "Uid:\t65534\t65534\t65534\t65534" in status


async def test_socket_is_for_root_and_the_user_of_loggers_alone(
    office: Office, tmp_path: Path
) -> None:
    path = office.settings.logger_socket
    modes = []
    for user in (None, NOBODY):
        office.user = user
        async with office.open():
            directory, made = path.parent.stat(), path.stat()
            assert stat.S_ISSOCK(made.st_mode)
            modes += [(oct(directory.st_mode & 0o777), directory.st_uid, directory.st_gid)]
            modes += [(oct(made.st_mode & 0o777), made.st_uid, made.st_gid)]
        assert not path.exists()

    assert modes == [
        *(("0o710", 0, 0), ("0o660", 0, 0)),
        *(("0o710", 0, 65534), ("0o660", 0, 65534)),
    ]


async def test_logger_is_told_what_belongs_to_its_container_and_a_token_once(
    office: Office,
) -> None:
    role = role_json(key="OWN")
    log = {"logDriver": "splunk", "options": {"splunk-token": "hidden"}}
    task, other = (
        office.bench.plan({"logConfiguration": log}, executionRoleCredentials=role)
        for _ in range(2)
    )
    own_id, other_id = task.containers[0].id, other.containers[0].id
    for one in (task, other):
        office.secrets.values[one.containers[0].log.secrets_id] = f"token of {one.id}"
    kinds = ("credentials", "splunk-token", "splunk-token")
    paths = [f"/{kind}/{own_id}" for kind in kinds]
    paths += ["/credentials/unknown", *(f"/{kind}/{other_id}" for kind in kinds[:2]), "/other"]

    async with office.open():
        answers = await office.ask(task, *paths)

    assert [status for status, _ in answers] == [200, 200, 404, 403, 403, 403, 404]
    assert role["secretAccessKey"] in answers[0][1]
    assert f"token of {task.id}" in answers[1][1]
    assert list(office.secrets.values.values()) == [f"token of {other.id}"]


async def test_logger_of_a_task_without_an_execution_role_is_told_so(office: Office) -> None:
    task = office.bench.plan({})

    async with office.open():
        ((status, body),) = await office.ask(task, f"/credentials/{task.containers[0].id}")

    assert status == 404
    assert "the task has no execution role" in body


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """One that everybody may pass, as /run is and pytest's aren't."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


def ask_from(where: str, office: Office, container: ContainerPlan) -> str:
    """Ask for a container's keys in a process of its own; return the status, or what went wrong.

    Where: a control group, by path, or a user, as `uid:gid`.
    """
    script = """if True:
        import os, socket, sys
        where, desk, container = sys.argv[1:]
        if where.startswith("/"):
            for group in where.split(","):
                open(group + "/cgroup.procs", "w").write("0")
        elif where:
            uid, gid = map(int, where.split(":"))
            os.setgroups([]); os.setgid(gid); os.setuid(uid)
        asking = socket.socket(socket.AF_UNIX)
        try:
            asking.connect(desk)
            head = f"GET /credentials/{container} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
            asking.sendall(head.encode())
            print((asking.recv(65536).decode().split() or ["", "nothing"])[1])
        except OSError as error:
            print(type(error).__name__)
    """
    path = str(office.settings.logger_socket)
    command = [sys.executable, "-ISc", script, where, path, container.id]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    return done.stdout.strip()


async def test_whoever_is_not_the_logger_of_a_container_is_told_nothing(
    office: Office, open_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    office.user = NOBODY
    office.settings = AgentSettings(socket=open_directory / "agent.sock")
    task = office.bench.plan({}, executionRoleCredentials=role_json())
    async with office.open():
        ((status, _),) = await office.ask(task, f"/credentials/{task.containers[0].id}")
        (container,) = task.containers
        groups = ",".join(str(group) for group in find_groups(container.cgroup))
        answers = [
            await asyncio.to_thread(ask_from, where, office, container)
            for where in ("", groups, "65534:65534", "65533:65534", "65533:65533")
        ]

    assert status == 200
    assert groups
    # Root and the user of loggers are heard, and refused; others don't get as far.
    assert answers[:3] == ["403"] * 3
    assert answers[3] in ("nothing", "ConnectionResetError", "BrokenPipeError")
    assert answers[4] == "PermissionError"
    assert "which is not the logger of container" in caplog.text


async def test_container_has_no_way_to_the_socket(office: Office) -> None:
    path = office.settings.logger_socket
    async with office.open():
        finished = await office.bench.run(f"ls -d {path.parent} {path}; cat /proc/net/unix")

    assert finished.output.count("No such file or directory") == 2
    assert str(path) not in finished.output.replace(f"ls: {path}", "").replace(
        f"ls: {path.parent}", ""
    )


async def test_socket_that_an_agent_left_behind_is_made_anew(office: Office) -> None:
    path = office.settings.logger_socket
    path.parent.mkdir()
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    inode = path.parent.stat().st_ino

    async with office.open():
        asking = socket.socket(socket.AF_UNIX)
        asking.connect(str(path))
        asking.close()

    assert path.parent.stat().st_ino == inode  # a logger may hold it
    wait_for(lambda: not path.exists(), "the socket to go away", DEADLINE_S)
    assert not list(path.parent.iterdir())
