"""What a container looks for of the execution role's keys, and doesn't find.

The keys are the logger's, which sends the output of another container of the same task. Meanwhile
CloudWatch Logs calls them expired, so that the logger fetches them again.
"""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from aiohttp import web

from tests.fixtures.aws import REGION, Front, write_keys
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.machine import arguments
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import Stack, bind_outside, make_outside, make_stack
from tests.third_party.images import add_plain_python, plain_python

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.root,
    pytest.mark.timeout(120),  # a stack, and moto
    pytest.mark.asyncio(loop_scope="module"),
]

ROLE: Final = "arn:aws:iam::123456789012:role/execution"
AWS_PORT: Final = 5005
DEADLINE_S: Final = 60
SNIFF_S: Final = 8
EXPIRED: Final = '{"__type": "ExpiredTokenException", "message": "The security token is expired"}'
LOG: Final = {
    "logDriver": "awslogs",
    "options": {
        "awslogs-group": "/spied",
        "awslogs-create-group": "true",
        "awslogs-region": REGION,
        "awslogs-stream-prefix": "app",
    },
}


@dataclass(kw_only=True)
class Sts(Front):
    """Remembers the secrets that were given."""

    secrets: set[str] = field(default_factory=set)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        answer = await super()._answer(request)
        if isinstance(answer.body, bytes):
            found = re.findall(rb"<SecretAccessKey>(.*?)<", answer.body)
            self.secrets |= {secret.decode() for secret in found}
        return answer


@dataclass(kw_only=True)
class Spied:
    """A task with a spy in one container, and output of another one that is sent to AWS."""

    stack: Stack
    task_id: str
    spy: str
    logs: Front
    secrets: set[str]

    async def start(self, kind: str, *arguments: str) -> asyncio.subprocess.Process:
        """Run the program inside the spy's container."""
        return await asyncio.create_subprocess_exec(
            *("ctr", "-a", str(self.stack.containerd.socket), "-n", self.stack.namespace),
            *("tasks", "exec", "--exec-id", f"{kind}", self.spy),
            *("python", "-B", "/inside/spy.py", kind, *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, kind: str, *arguments: str) -> Any:
        async with asyncio.timeout(DEADLINE_S):
            process = await self.start(kind, *arguments)
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return json.loads(out)

    def find_ours(self) -> dict[int, str]:
        """Return the command lines of the agent, its shims and loggers, by process id."""
        lines = {
            int(path.name): " ".join(arguments(int(path.name)))
            for path in Path("/proc").glob("[0-9]*")
        }
        return {
            pid: line
            for pid, line in lines.items()
            if pid == self.stack.agent.pid or (self.task_id in line and "/inside/" not in line)
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spied(
    tmp_path_factory: pytest.TempPathFactory, private_containerd: PrivateContainerd, moto: str
) -> AsyncIterator[Spied]:
    root = tmp_path_factory.mktemp("spied")
    sts, logs, registry = Sts(upstream=moto), Front(upstream=moto), FakeRegistry()
    add_plain_python(registry)
    with make_outside() as outside:
        async with (
            registry.serve(bind_outside(outside[0], 5000)),
            logs.serve(bind_outside(outside[0], AWS_PORT)),
            sts.serve(socket.create_server(("127.0.0.1", 0))),
            make_stack(
                root,
                private_containerd,
                outside,
                plane_toml=f'aws_endpoint_url = "{sts.url}"\n'
                f'aws_credentials_file = "{write_keys(root)}"\n',
                FARGATE_AGENT_AWS_ENDPOINT_URL=logs.url,
            ) as stack,
        ):
            talker = {**plain_python("talker", "talker.py"), "logConfiguration": LOG}
            arn = stack.run(plain_python("spy", "keeper.py"), talker, executionRoleArn=ROLE)
            await stack.wait_for(arn, "RUNNING")
            task_id = arn.rpartition("/")[2]
            yield Spied(
                stack=stack,
                task_id=task_id,
                spy=find_container(stack, task_id, "keeper.py"),
                logs=logs,
                secrets=sts.secrets,
            )


def find_container(stack: Stack, task_id: str, program: str) -> str:
    """Return the id of the container of a task that runs a program."""
    for name in stack.ctr("containers", "ls", "-q").split():
        if task_id in name and program in stack.ctr("containers", "info", name):
            return name
    raise LookupError(program)


async def test_keys_are_on_no_interface_while_a_logger_fetches_them(spied: Spied) -> None:
    words = ["GET /v4/", "SecretAccessKey", "/v2/credentials", "splunk-token", *spied.secrets]
    spy = await spied.start("sniff", str(SNIFF_S), *words)
    assert spy.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        assert json.loads(await spy.stdout.readline()) == "listening"
        spied.logs.faults.append((400, EXPIRED))
        while spied.logs.faults:
            await asyncio.sleep(0.05)
        sent = len(spied.logs.named("PutLogEvents"))
        while len(spied.logs.named("PutLogEvents")) == sent:  # what was refused is sent again
            await asyncio.sleep(0.05)
        out, err = await spy.communicate()

    assert spy.returncode == 0, err.decode()
    found = json.loads(out)
    assert spied.secrets
    assert {"eth0", "eth1"} <= set(found["interfaces"])
    assert found["seen"] == ["GET /v4/"]  # its own request, so it does read what passes


async def test_loggers_and_agent_are_out_of_reach(spied: Spied) -> None:
    ours = spied.find_ours()

    found = await spied.run("processes", *map(str, ours))

    assert any("logger" in line for line in ours.values())
    assert found["done"] == []
    assert all("/inside/" in line for line in found["visible"].values()), found["visible"]


async def test_sockets_of_the_agent_are_out_of_reach(spied: Spied) -> None:
    ours = [spied.stack.socket, Path(f"{spied.stack.socket}.loggers/agent.sock")]
    assert all(path.is_socket() for path in ours)

    found = await spied.run("sockets", *map(str, ours))

    assert found == {"reached": [], "abstract": [], "files": []}


async def test_no_command_line_has_a_way_to_keys(spied: Spied) -> None:
    lines = "\n".join(spied.find_ours().values())

    assert not re.search(r"/v[12]/(credentials|splunk-token)", lines)
    assert not any(secret in lines for secret in spied.secrets)
