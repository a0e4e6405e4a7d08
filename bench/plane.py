"""The control plane's program under load: its process, a client that costs little, and an agent.

The agent touches nothing on the machine. It acknowledges each task and reports that it is pending,
runs, and has stopped.
"""

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

REGION = "us-east-1"
CONNECTIONS = 16
DEADLINE_S = 120

Json = dict[str, Any]

CONFIG = """
[[subnets]]
id = "subnet-default"
cidr = "10.0.0.0/16"
gateway = "10.0.0.1"
"""


@dataclass
class Program:
    """The control plane, running."""

    process: subprocess.Popen[bytes]
    url: str
    keys: dict[str, Credentials]
    """By principal."""

    def rss_bytes(self) -> int:
        """Return its resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def cpu_s(self) -> float:
        """Return the seconds of processor time that it has used."""
        return cpu_s(self.process.pid)

    def end(self) -> None:
        """Return when it has ended."""
        self.process.terminate()
        self.process.wait(DEADLINE_S)


def cpu_s(pid: int) -> float:
    """Return the seconds of processor time that a process and its children have used."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(_cpu_ticks(process) for process in [str(pid), *children]) / os.sysconf("SC_CLK_TCK")


def _cpu_ticks(pid: str) -> int:
    """Return what a process has used, with its children that have ended; 0 if it has just ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(field) for field in fields[11:15])


@asynccontextmanager
async def running_program(root: Path, database: str | None) -> AsyncIterator[Program]:
    """Start it, give it when it is ready, and end it."""
    program = await asyncio.to_thread(start_program, root, database)
    try:
        yield program
    finally:
        await asyncio.to_thread(program.end)


def start_program(root: Path, database: str | None) -> Program:
    """Return when it is ready; None as database is SQLite, below `root`."""
    root.mkdir(exist_ok=True)
    config = root / "control-plane.toml"
    config.write_text(CONFIG)
    variables = {} if database is None else {"FARGATE_CONTROL_PLANE_DATABASE": database}
    process = subprocess.Popen(
        [Path(sys.executable).parent / "fargate-control-plane", "--listen", "http://127.0.0.1:0"],
        env={
            **os.environ,
            "FARGATE_CONTROL_PLANE_CONFIG": str(config),
            "FARGATE_CONTROL_PLANE_STATE_DIR": str(root / "state"),
            "FARGATE_CONTROL_PLANE_LOG_LEVEL": "warning",
            **variables,
        },
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    if not line.startswith("ready "):
        raise RuntimeError("the control plane does not start")
    found = tomllib.loads((root / "state" / "keys.toml").read_text())["key"]
    keys = {
        key["principal"]: Credentials(key["access_key_id"], key["secret_access_key"])
        for key in found
    }
    return Program(process, line.split()[1], keys)


class Client:
    """Calls operations of a JSON 1.1 API, with as little work as can be."""

    def __init__(self, url: str, key: Credentials) -> None:
        self.url = url
        self._key = key
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        self._http = aiohttp.ClientSession(connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    async def call(self, operation: str, **request: object) -> Json:
        """Return the answer.

        Raises:
            RuntimeError: it is an error.
        """
        assert self._http is not None
        body = json.dumps(request).encode()
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"AmazonEC2ContainerServiceV20141113.{operation}",
        }
        signed = self._sign("POST", f"{self.url}/", data=body, headers=headers)
        async with self._http.post(f"{self.url}/", data=body, headers=signed) as answer:
            content = await answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{operation}: {content[:300]!r}")
            answered: Json = json.loads(content)
            return answered

    async def connect(self, **parameters: str) -> aiohttp.ClientWebSocketResponse:
        """Open the agent's websocket."""
        assert self._http is not None
        url = f"{self.url}/ws"
        signed = self._sign("GET", url, params=parameters)
        return await self._http.ws_connect(
            f"{url}?{urlencode(parameters)}", headers=signed, max_msg_size=0
        )

    def _sign(self, method: str, url: str, **parts: object) -> dict[str, str]:
        request = AWSRequest(method=method, url=url, **parts)
        SigV4Auth(self._key, "ecs", REGION).add_auth(request)
        return dict(request.headers.items())


@dataclass
class Agent:
    """Does what it is told, as far as the control plane can see."""

    client: Client
    arn: str | None = None
    """Of its container instance; None until it registers for the first time."""
    ended: int = 0
    """Tasks whose STOPPED was taken."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    work: asyncio.Task[None] | None = None

    async def serve(self, connected: asyncio.Event) -> None:
        """Register, connect, and run every task to its end, until cancelled."""
        known = {} if self.arn is None else {"containerInstanceArn": self.arn}
        answer = await self.client.call("RegisterContainerInstance", cluster="default", **known)
        self.arn = arn = answer["containerInstance"]["containerInstanceArn"]
        socket = await self.client.connect(
            clusterArn="default", containerInstanceArn=arn, agentVersion="0.0.0", seqNum="1"
        )
        connected.set()
        async with asyncio.TaskGroup() as lives:
            async for message in socket:
                frame = json.loads(message.data)
                if frame["type"] in {"PayloadMessage", "HeartbeatMessage"}:
                    ack = {
                        "messageId": frame["message"]["messageId"],
                        "cluster": "default",
                        "containerInstance": arn,
                    }
                    await socket.send_json({"type": "AckRequest", "message": ack})
                for task in frame["message"].get("tasks", []):
                    if "elasticNetworkInterfaces" in task:  # no manifest
                        lives.create_task(self._live(task))

    async def _live(self, task: Json) -> None:
        (eni,) = task["elasticNetworkInterfaces"]
        attached = {"attachmentArn": eni["attachmentArn"], "status": "ATTACHED"}
        await self._report(task, "PENDING", attachments=[attached])
        for status in ("RUNNING", "STOPPED"):
            names = [container["name"] for container in task["containers"]]
            containers = [{"containerName": name, "status": status} for name in names]
            await self._report(task, status, containers=containers)
        self.ended += 1
        self.news.set()

    async def _report(self, task: Json, status: str, **facts: object) -> None:
        await self.client.call(
            "SubmitTaskStateChange", cluster="default", task=task["arn"], status=status, **facts
        )

    async def wait_ended(self, count: int) -> None:
        """Return when so many tasks have ended; raise what the agent fails with."""
        while self.ended < count:
            self.news.clear()
            if self.work is not None and self.work.done():
                self.work.result()
            await self.news.wait()


@asynccontextmanager
async def working_agent(program: Program, arn: str | None = None) -> AsyncIterator[Agent]:
    """Give an agent that is connected and does its work; with an ARN it is one that comes back."""
    async with Client(program.url, program.keys["agent"]) as client:
        agent, connected = Agent(client, arn), asyncio.Event()
        agent.work = asyncio.create_task(agent.serve(connected))
        agent.work.add_done_callback(lambda _: agent.news.set())
        await connected.wait()
        try:
            yield agent
        finally:
            agent.work.cancel()
            await asyncio.wait([agent.work])
