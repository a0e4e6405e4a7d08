"""Output that leaves the machine: through the task's own interface, and whatever restarts."""

import asyncio
import json
import signal
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from fargate_agent.network.namespaces import socket_in_netns
from tests.e2e.test_restart import process_of
from tests.fixtures.aws import REGION, ROLE, Front, write_keys
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.machine import read_command_lines, wait_for
from tests.fixtures.nameserver import NameServer
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import DEADLINE_S, OUTSIDE, Stack, make_stack, tool
from tests.fixtures.storage import read_data

pytestmark = [pytest.mark.e2e, pytest.mark.root]

SERVER: Final = f"{OUTSIDE}.1"
HEC_PORT: Final = 8088
CLOUDWATCH_PORT: Final = 8089
NAME: Final = "logs.test"
PORTS: Final = {"fluentd": 24224, "gelf": 12201, "syslog": 514}


@dataclass(kw_only=True)
class Outside:
    """Destinations at the other end of the interface, and the server that knows their name."""

    cloudwatch: Front
    names: NameServer = field(default_factory=lambda: NameServer(records={(NAME, "A"): [SERVER]}))
    received: dict[tuple[int, str], bytes] = field(default_factory=dict)
    """By port, and the address that it came from."""
    collected: list[tuple[str, str]] = field(default_factory=list)
    """What Splunk's collector was given: authorization, and events."""

    @asynccontextmanager
    async def serve(self, netns: Path) -> AsyncIterator[None]:
        udp = bind(netns, socket.SOCK_DGRAM, 53)
        async with (
            self.names.serve(udp, bind(netns, socket.SOCK_STREAM, 53)),
            self.cloudwatch.serve(bind(netns, socket.SOCK_STREAM, CLOUDWATCH_PORT)),
        ):
            servers = [
                await asyncio.start_server(self._take, sock=bind(netns, socket.SOCK_STREAM, port))
                for port in PORTS.values()
            ]
            hec = bind(netns, socket.SOCK_STREAM, HEC_PORT)
            servers.append(
                await asyncio.get_running_loop().create_server(web.Server(self._collect), sock=hec)
            )
            yield
            for server in servers:
                server.close()

    async def _collect(self, request: web.BaseRequest) -> web.Response:
        if events := await request.text():
            self.collected.append((request.headers["Authorization"], events))
        return web.json_response({"text": "Success", "code": 0})

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = (writer.get_extra_info("sockname")[1], writer.get_extra_info("peername")[0])
        while data := await reader.read(65536):
            self.received[source] = self.received.get(source, b"") + data
        writer.close()

    async def wait_for(self, driver: str, text: bytes) -> str:
        """Return the address that a text came from."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for (port, address), data in self.received.items():
                    if port == PORTS[driver] and text in data:
                        return address
                await asyncio.sleep(0.02)

    def read(self, driver: str) -> bytes:
        """Return all that came for a driver."""
        if driver == "awslogs":
            puts = [call.request for call in self.cloudwatch.named("PutLogEvents")]
            return json.dumps(puts).encode()
        if driver == "splunk":
            return "".join(events for _, events in self.collected).encode()
        return b"".join(data for (port, _), data in self.received.items() if port == PORTS[driver])

    async def wait_for_line(self, driver: str, line: bytes) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while line not in self.read(driver):
                await asyncio.sleep(0.02)


def bind(netns: Path, kind: int, port: int) -> socket.socket:
    made = socket_in_netns(netns, socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((SERVER, port))
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


@pytest.fixture
async def destinations(outside: tuple[Path, str], moto: str) -> AsyncIterator[Outside]:
    made = Outside(cloudwatch=Front(upstream=moto))
    async with made.serve(outside[0]):
        yield made


@pytest.fixture
async def stack(
    tmp_path: Path, private_containerd: PrivateContainerd, outside: tuple[Path, str], front: Front
) -> AsyncIterator[Stack]:
    """The programs, with a cluster that takes log drivers which Fargate hasn't, and roles."""
    async with make_stack(
        tmp_path,
        private_containerd,
        outside,
        plane_toml='relaxed_clusters = ["default"]\n',
        subnet_toml=f'dns = ["{SERVER}"]\n',
        FARGATE_AGENT_AWS_ENDPOINT_URL=front.url,
        FARGATE_AGENT_AWS_CREDENTIALS_FILE=str(write_keys(tmp_path)),
        FARGATE_AGENT_AWSLOGS_ENDPOINT=f"http://{SERVER}:{CLOUDWATCH_PORT}",
    ) as made:
        yield made


def logging(driver: str, **options: str) -> dict[str, Any]:
    """Return the part of a container that sends its output to the destination outside."""
    if driver == "awslogs":
        names = {"awslogs-group": "/test/drivers", "awslogs-create-group": "true"}
        address = {**names, "awslogs-region": REGION, "awslogs-stream-prefix": "test"}
    elif driver == "splunk":
        address = {"splunk-url": f"http://{SERVER}:{HEC_PORT}", "splunk-token": "token"}
    else:
        address = {f"{driver}-address": f"tcp://{NAME}:{PORTS[driver]}"}
    return {"logConfiguration": {"logDriver": driver, "options": {**address, **options}}}


def run(stack: Stack, *containers: dict[str, Any]) -> str:
    return stack.run(*containers, requiresCompatibilities=["EC2"], executionRoleArn=ROLE)


def address_of(task: dict[str, Any]) -> str:
    details = task["attachments"][0]["details"]
    return str(next(one["value"] for one in details if one["name"] == "privateIPv4Address"))


async def test_output_leaves_by_the_interface_of_the_task_and_a_copy_stays(
    stack: Stack, registry: FakeRegistry, destinations: Outside
) -> None:
    arn = run(
        stack,
        *(
            tool(driver, f"echo hello from {driver}; sleep 1000", **logging(driver))
            for driver in PORTS
        ),
    )
    address = address_of(await stack.wait_for(arn, "RUNNING"))

    for driver in PORTS:
        assert await destinations.wait_for(driver, b"hello from %b" % driver.encode()) == address
        lines = await stack.wait_for_log(arn, f"hello from {driver}")
        assert f"{driver}: hello from {driver}" in lines
    assert f"udp {NAME} A" in destinations.names.queries

    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")
    assert stack.leftovers(arn) == []


@pytest.mark.parametrize("driver", [*PORTS, "awslogs", "splunk"])
async def test_logging_goes_on_while_agent_and_containerd_come_and_go(
    stack: Stack, registry: FakeRegistry, destinations: Outside, driver: str
) -> None:
    script = (
        "echo line-1; while [ ! -e /tmp/two ]; do sleep 0.1; done; echo line-2;"
        "while [ ! -e /tmp/three ]; do sleep 0.1; done; echo line-3; exit 7"
    )
    tmpfs = {"linuxParameters": {"tmpfs": [{"containerPath": "/tmp", "size": 1}]}}
    arn = run(stack, tool("main", script, **tmpfs, **logging(driver)))
    await stack.wait_for_log(arn, "line-1")
    await stack.wait_for(arn, "RUNNING")
    inside = Path(f"/proc/{process_of(stack, arn)}/root/tmp")

    stack.agent.end(signal.SIGKILL)
    stack.containerd.stop()
    (inside / "two").touch()
    await destinations.wait_for_line(driver, b"line-2")
    stack.containerd.start()
    stack.agent.start()
    wait_for(lambda: stack.agent.wrote("agent is ready"), "the next agent", DEADLINE_S)
    (inside / "three").touch()
    task = await stack.wait_for(arn, "STOPPED")

    await destinations.wait_for_line(driver, b"line-3")
    assert [destinations.read(driver).count(b"line-%d" % n) for n in (1, 2, 3)] == [1, 1, 1]
    assert task["containers"][0]["exitCode"] == 7
    assert await stack.logs(arn) == ["main: line-1", "main: line-2", "main: line-3"]
    assert stack.leftovers(arn) == []


@pytest.mark.parametrize(
    ("options", "reasons"),
    [
        pytest.param(
            {"fluentd-address": f"tcp://{NAME}:9"},
            (
                "ResourceInitializationError: failed to validate logger args: ",
                "refused",
                " : exit status 1",
            ),
            id="nobody-listens",
        ),
        pytest.param(
            {"fluentd-address": "tcp://nowhere.test:24224"},
            ("failed to validate logger args: ", "lookup nowhere.test", " : exit status 1"),
            id="no-such-name",
        ),
        pytest.param(
            {"colour": "red"},
            (
                "ResourceInitializationError: failed to initialize logging driver: ",
                "unknown log opt 'colour' for fluentd log driver",
            ),
            id="unknown-option",
        ),
    ],
)
async def test_task_that_cannot_log_does_not_start_and_says_why(
    stack: Stack,
    registry: FakeRegistry,
    destinations: Outside,
    options: dict[str, str],
    reasons: tuple[str, ...],
) -> None:
    arn = run(stack, tool("main", "echo started", **logging("fluentd", **options)))

    task = await stack.wait_for(arn, "STOPPED")

    assert all(reason in task["stoppedReason"] for reason in reasons)
    assert task["stopCode"] == "TaskFailedToStart"
    assert "exitCode" not in task["containers"][0]
    assert not any("started" in line for line in await stack.logs(arn))
    assert stack.leftovers(arn) == []


def read_files(directory: Path) -> dict[Path, bytes]:
    """Return what stands in all files of a directory and below it."""
    return {path: read_data(path) for path in directory.rglob("*") if path.is_file()}


async def test_token_and_environment_stand_in_no_argument_no_log_and_no_file(
    stack: Stack, registry: FakeRegistry, destinations: Outside
) -> None:
    token, shown, hidden = (uuid.uuid4().hex for _ in range(3))
    secrets = [one.encode() for one in (token, shown, hidden)]
    chosen = {"env-regex": "^STAGE$"}
    options = {"splunk-url": f"http://{SERVER}:{HEC_PORT}", "splunk-token": token, **chosen}
    splunk = {"logConfiguration": {"logDriver": "splunk", "options": options}}
    values = {"STAGE": shown, "PASSWORD": hidden}
    environment = [{"name": name, "value": value} for name, value in values.items()]
    arn = run(
        stack,
        *(
            tool(name, "echo hello; sleep 1000", environment=environment, **log)
            for name, log in (("splunk", splunk), ("gelf", logging("gelf", **chosen)))
        ),
    )
    await stack.wait_for(arn, "RUNNING")
    await destinations.wait_for("gelf", shown.encode())
    async with asyncio.timeout(DEADLINE_S):
        while not any(shown in events for _, events in destinations.collected):
            await asyncio.sleep(0.02)

    files = read_files(stack.root / "agent")
    # The message itself, as long as the task runs: an agent that starts anew has nothing else.
    (record,) = (stack.root / "agent" / "records").glob("*.json")
    message = files.pop(record)
    assert [one for one in secrets if one not in message] == []
    assert (record.stat().st_mode & 0o777, record.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    seen = b"".join([stack.agent.log.read_bytes(), read_command_lines(), *files.values()])
    assert arn.rpartition("/")[2].encode() in seen
    assert [one for one in secrets if one in seen] == []
    assert {authorization for authorization, _ in destinations.collected} == {f"Splunk {token}"}
    arrived = str(destinations.collected).encode() + b"".join(destinations.received.values())
    assert hidden.encode() not in arrived
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")
    wait_for(lambda: not record.exists(), "the record to go", DEADLINE_S)
    left = b"".join([stack.agent.log.read_bytes(), *read_files(stack.root / "agent").values()])
    assert [one for one in secrets if one in left] == []
    assert stack.leftovers(arn) == []
