"""AWS's SDKs find the keys of a task's role in its containers, and new ones before these end.

STS gives keys that last for seconds at first, so that the SDKs ask again at once.
"""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from tests.fixtures.aws import REGION, Front, write_keys
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import OUTSIDE, Stack, bind_outside, make_outside, make_stack
from tests.third_party.images import add_images, javascript, python
from tests.third_party.told import Told, run_all

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(180)]  # all in the first one

ROLE: Final = "arn:aws:iam::123456789012:role/app"
AWS_PORT: Final = 5005
SHORT_S: Final = 30
"""How long the first keys last. The control plane has new ones when a third of it is left."""
LOG: Final = {
    "logDriver": "awslogs",
    "options": {
        "awslogs-group": "/third-party",
        "awslogs-create-group": "true",
        "awslogs-region": REGION,
        "awslogs-stream-prefix": "app",
    },
}


@dataclass(kw_only=True)
class ShortFront(Front):
    """Stands for an STS whose first keys of the task's role soon end."""

    given: int = 0

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        answer = await super()._answer(request)
        body = answer.body
        if not isinstance(body, bytes) or b":assumed-role/app/" not in body:
            return answer
        self.given += 1
        if self.given == 1:
            ends = (datetime.now(UTC) + timedelta(seconds=SHORT_S)).strftime("%Y-%m-%dT%H:%M:%SZ")
            body = re.sub(rb"<Expiration>.*?<", f"<Expiration>{ends}<".encode(), body)
        return web.Response(status=answer.status, body=body)


@dataclass(frozen=True)
class Ran:
    """What the programs said, and what AWS was asked."""

    told: Told
    calls: list[tuple[str, str, str]]
    """Of the AWS that tasks reach: operation, key, address of the caller."""


@asynccontextmanager
async def running(
    root: Path, containerd: PrivateContainerd, moto: str
) -> AsyncIterator[tuple[Stack, Front]]:
    """A stack with two ways to one AWS: STS for the control plane, and the other for tasks."""
    sts, outer = ShortFront(upstream=moto), Front(upstream=moto)
    with make_outside() as outside:
        registry = FakeRegistry()
        add_images(registry)
        async with (
            registry.serve(bind_outside(outside[0], 5000)),
            outer.serve(bind_outside(outside[0], AWS_PORT)),
            sts.serve(socket.create_server(("127.0.0.1", 0))),
            make_stack(
                root,
                containerd,
                outside,
                plane_toml=f'aws_endpoint_url = "{sts.url}"\n'
                f'aws_credentials_file = "{write_keys(root)}"\n',
                FARGATE_AGENT_AWS_ENDPOINT_URL=outer.url,
            ) as stack,
        ):
            yield stack, outer


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory, private_containerd: PrivateContainerd, moto: str
) -> Ran:
    async def run() -> Ran:
        variables = {
            "STS_URL": f"http://{OUTSIDE}.1:{AWS_PORT}",
            "PATIENCE_S": "70",
        }
        logged = {"logConfiguration": LOG}
        programs = [
            python("botocore", "aws_keys.py", **variables),
            javascript("sdk", "aws_keys.mjs", **variables),
            {**python("opentelemetry-python", "opentelemetry_ecs.py"), **logged},
            {**javascript("opentelemetry-javascript", "opentelemetry_ecs.mjs"), **logged},
        ]
        roles = {"taskRoleArn": ROLE, "executionRoleArn": f"{ROLE}-execution"}
        root = tmp_path_factory.mktemp("third-party")
        async with running(root, private_containerd, moto) as (stack, outer):
            told = await run_all(stack, programs, **roles)
        return Ran(told, [(call.name, call.key, call.peer) for call in outer.calls])

    return asyncio.run(run())


def read_lines(ran: Ran, name: str) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in ran.told.lines[name]]
    except ValueError:
        raise AssertionError("\n".join(ran.told.lines[name])) from None


def test_botocore_is_the_role_and_gets_new_keys(ran: Ran) -> None:
    first, second = read_lines(ran, "botocore")

    task_id = ran.told.task["taskArn"].rpartition("/")[2]
    assert first["method"] == "container-role"
    assert (
        first["caller"]
        == second["caller"]
        == f"arn:aws:sts::123456789012:assumed-role/app/{task_id}"
    )
    assert first["key"] != second["key"]
    used = [key for name, key, peer in ran.calls if name == "GetCallerIdentity"]
    assert used == [first["key"], second["key"]]


def test_sdk_of_javascript_finds_the_same_keys_and_gets_new_ones(ran: Ran) -> None:
    first, second = read_lines(ran, "sdk")

    botocores = [line["key"] for line in read_lines(ran, "botocore")]
    keys = {first[name] for name in ("byMetadata", "byHttp", "byChain")}
    assert [*keys, second["key"]] == botocores
    assert first["expires"]


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_opentelemetry_knows_where_output_goes(ran: Ran, language: str) -> None:
    name = f"opentelemetry-{language}"

    found = ran.told.read(name)

    group = "arn:aws:logs:us-east-1:000000000000:log-group:/third-party"
    stream = f"app/{name}/{ran.told.task['taskArn'].rpartition('/')[2]}"
    assert found["aws.log.group.names"] == ["/third-party"]
    assert found["aws.log.group.arns"] == [group]
    assert found["aws.log.stream.names"] == [stream]
    assert found["aws.log.stream.arns"] == [f"{group}:log-stream:{stream}"]


def test_tasks_role_is_not_what_output_is_sent_with(ran: Ran) -> None:
    tasks = {
        line["key"]
        for name in ("botocore", "sdk")
        for line in read_lines(ran, name)
        if "key" in line
    }

    loggers = {key for name, key, _ in ran.calls if name == "PutLogEvents"}

    assert loggers
    assert loggers.isdisjoint(tasks)
