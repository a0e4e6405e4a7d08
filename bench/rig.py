"""What every benchmark stands on: a private containerd, the real agent, and a control plane.

The control plane does nothing but hand over messages and note when the answers come.
"""

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

CLUSTER_ARN = "arn:aws:ecs:us-east-1:000000000000:cluster/bench"
INSTANCE_ARN = "arn:aws:ecs:us-east-1:000000000000:container-instance/bench/1"
NAMESPACE = "bench"
SUBNET = "10.189.0"
STARTED_WITHIN_S = 120

_numbers = itertools.count(10)


@dataclass
class Rig:
    """A running agent and the machinery around it."""

    root: Path
    containerd: Path
    agent: subprocess.Popen[bytes]
    socket: Path
    websocket: web.WebSocketResponse
    connections: asyncio.Queue[web.WebSocketResponse]
    """Further ones: an agent that has heard nothing for a while connects again."""
    oci_runtime: str = "runc"
    """The program that both the agent and `start_ctr` make containers with."""
    changes: dict[str, list[tuple[float, dict[str, Any]]]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, task: dict[str, Any]) -> None:
        """Hand a task over."""
        while self.websocket.closed or not self.connections.empty():
            async with asyncio.timeout(STARTED_WITHIN_S):
                self.websocket = await self.connections.get()
        await self.websocket.send_json(
            {
                "type": "PayloadMessage",
                "message": {
                    "messageId": str(uuid.uuid4()),
                    "clusterArn": CLUSTER_ARN,
                    "containerInstanceArn": INSTANCE_ARN,
                    "generatedAt": 0,
                    "tasks": [task],
                },
            }
        )

    async def wait_for(self, arn: str, status: str) -> tuple[float, dict[str, Any]]:
        """Return when the change came, and the change."""
        async with asyncio.timeout(STARTED_WITHIN_S):
            while True:
                for at_s, change in self.changes.get(arn, []):
                    if change["status"] == status:
                        return at_s, change
                    if change["status"] == "STOPPED":
                        raise RuntimeError(f"the task stopped: {change.get('reason')}")
                self.changed.clear()
                await self.changed.wait()

    async def run(self, task: dict[str, Any]) -> float:
        """Run a task; return the seconds from its message to the report of RUNNING."""
        start_s = time.perf_counter()
        await self.send(task)
        return (await self.wait_for(task["arn"], "RUNNING"))[0] - start_s

    async def stop(self, task: dict[str, Any]) -> None:
        """End a task and wait until nothing is left of it."""
        await self.send({**task, "desiredStatus": "STOPPED"})
        await self.wait_for(task["arn"], "STOPPED")

    def ctr(self, *arguments: str, namespace: str = NAMESPACE) -> str:
        """Run containerd's own client."""
        return run("ctr", "-a", str(self.containerd), "-n", namespace, *arguments)

    def agent_rss_bytes(self) -> int:
        """Return the resident memory of the agent."""
        status = Path(f"/proc/{self.agent.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024


def run(*command: str) -> str:
    """Run a program and return what it wrote."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])}…: {done.stderr.strip()[-300:]}")
    return done.stdout


def new_task(
    image: str, *, eni: dict[str, Any] | None = None, containers: int = 1
) -> dict[str, Any]:
    """Return the message of a task whose containers sleep."""
    number = next(_numbers)
    address = f"{SUBNET.rsplit('.', 1)[0]}.{number // 200}.{number % 200 + 10}"
    return {
        "arn": f"arn:aws:ecs:us-east-1:000000000000:task/bench/{uuid.uuid4().hex}",
        "taskClusterArn": CLUSTER_ARN,
        "desiredStatus": "RUNNING",
        "family": "bench",
        "version": "1",
        "cpu": 0.25,
        "memory": 512,
        "containers": [
            {
                "name": f"c{index}",
                "image": image,
                "command": ["/bin/sleep", "1000"],
                "stopTimeout": 0,
            }
            for index in range(containers)
        ],
        "elasticNetworkInterfaces": [
            {
                "attachmentArn": f"arn:aws:ecs:us-east-1:000000000000:attachment/{uuid.uuid4()}",
                "ec2Id": f"eni-{uuid.uuid4().hex[:17]}",
                "macAddress": "02:be:" + ":".join(f"{b:02x}" for b in number.to_bytes(4)),
                "ipv4Addresses": [{"primary": True, "privateAddress": address}],
                "subnetGatewayIpv4Address": f"{SUBNET}.1/16",
                "privateDnsName": f"ip-{address.replace('.', '-')}.ec2.internal",
                "interfaceAssociationProtocol": "veth",
                **(eni or {}),
            }
        ],
    }


@asynccontextmanager
async def rig(
    root: Path,
    environment: Mapping[str, str] | None = None,
    oci_runtime: str = "runc",
    prefix: Sequence[str] = (),
) -> AsyncIterator[Rig]:
    """Start everything, with these variables in the agent's environment; take it down again.

    `prefix` is a command that runs another one, here containerd and the agent.
    """
    root.mkdir(exist_ok=True)
    containerd_socket = root / "containerd.sock"
    containerd = _start_containerd(root, containerd_socket, prefix)
    try:
        await _until(lambda: _served(containerd_socket), "containerd")
        async with _control_plane() as (url, connections, changes, changed):
            socket, settings = root / "agent.sock", root / "agent.toml"
            settings.touch()
            agent = subprocess.Popen(
                [*prefix, Path(sys.executable).parent / "fargate-agent"],
                stderr=(root / "agent.log").open("ab"),
                env={
                    **os.environ,
                    "FARGATE_AGENT_CONFIG": str(settings),
                    "FARGATE_AGENT_CONTROL_PLANE": url,
                    "FARGATE_AGENT_ACCESS_KEY_ID": "bench",
                    "FARGATE_AGENT_SECRET_ACCESS_KEY": "bench",
                    "FARGATE_AGENT_CONTAINERD_ADDRESS": str(containerd_socket),
                    "FARGATE_AGENT_CONTAINERD_NAMESPACE": NAMESPACE,
                    "FARGATE_AGENT_SOCKET": str(socket),
                    "FARGATE_AGENT_STATE_DIR": str(root / "agent"),
                    "FARGATE_AGENT_NETNS_DIR": str(root / "netns"),
                    "FARGATE_AGENT_RUNC_ROOT": str(root / "runc"),
                    "FARGATE_AGENT_OCI_RUNTIME": oci_runtime,
                    "FARGATE_AGENT_IMAGE_PULL_BEHAVIOR": "prefer-cached",
                    **(environment or {}),
                },
            )
            try:
                async with asyncio.timeout(30):
                    websocket = await connections.get()
                yield Rig(
                    root,
                    containerd_socket,
                    agent,
                    socket,
                    websocket,
                    connections,
                    oci_runtime,
                    changes,
                    changed,
                )
                await _drain(socket)
            finally:
                agent.terminate()
                agent.wait(30)
    finally:
        containerd.terminate()
        containerd.wait(30)
        shutil.rmtree(root / "containerd", ignore_errors=True)
        for group in Path("/sys/fs/cgroup").glob(f"*/{NAMESPACE}"):
            group.rmdir()  # ctr leaves it


def _start_containerd(root: Path, socket: Path, prefix: Sequence[str]) -> subprocess.Popen[bytes]:
    config = root / "containerd.toml"
    config.write_text(
        f"""version = 2
root = "{root}/containerd/root"
state = "{root}/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{socket}"
"""
    )
    log = (root / "containerd.log").open("ab")
    return subprocess.Popen([*prefix, "containerd", "-c", config], stdout=log, stderr=log)


def _served(socket: Path) -> bool:
    try:
        run("ctr", "-a", str(socket), "version")
    except RuntimeError:
        return False
    return True


async def _until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(300):
        if await asyncio.to_thread(condition):
            return
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{what} did not come")


async def _drain(socket: Path) -> None:
    connector = aiohttp.UnixConnector(str(socket))
    async with aiohttp.ClientSession(connector=connector) as http:
        body = {"timeoutSeconds": 300}
        async with http.post("http://agent/v1/drain", json=body) as answer:
            answer.raise_for_status()


@asynccontextmanager
async def _control_plane() -> AsyncIterator[tuple[str, asyncio.Queue[Any], Any, asyncio.Event]]:
    connections: asyncio.Queue[web.WebSocketResponse] = asyncio.Queue()
    changes: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    changed = asyncio.Event()

    async def call(request: web.Request) -> web.Response:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        body = await request.json()
        answers = {
            "RegisterContainerInstance": {
                "containerInstance": {"containerInstanceArn": INSTANCE_ARN}
            },
            "DiscoverPollEndpoint": {"endpoint": f"http://{request.host}"},
        }
        if operation == "SubmitTaskStateChange":
            changes.setdefault(body["task"], []).append((time.perf_counter(), body))
            changed.set()
        return web.json_response(answers.get(operation, {}))

    async def connect(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        connections.put_nowait(websocket)
        async for _ in websocket:
            pass
        return websocket

    app = web.Application()
    app.add_routes([web.post("/", call), web.get("/ws", connect)])
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}", connections, changes, changed
    finally:
        await runner.cleanup()
