"""Credentials on the metadata endpoint: those of a task's own role, for its own containers."""

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from botocore.utils import ContainerMetadataFetcher

from fargate_agent.credentials.audit import Audit
from fargate_agent.credentials.roles import Roles
from fargate_agent.drivers import ContainerUsage
from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.namespaces import inside
from fargate_agent.network.netlink import read_link_stats
from fargate_agent.plan import ContainerPlan, RolePlan, TaskPlan, plan_task, read_keys
from fargate_agent.task.status import TaskFacts
from fargate_agent.tmds.confidential import Confidential
from fargate_agent.tmds.sampling import Sampler
from fargate_agent.tmds.server import TaskMetadata
from fargate_agent.wire.messages import RoleCredentialsMessage
from tests.fixtures.aws import ROLE, role_json
from tests.fixtures.network import MakeNetns
from tests.fixtures.runtime import Bench
from tests.fixtures.tmds import Answer, Desk, View, fetch, make_sources
from tests.messages import site, task_arn, task_message

pytestmark = pytest.mark.root

MEMBERS = ["RoleArn", "AccessKeyId", "SecretAccessKey", "Token", "Expiration"]


@dataclass(kw_only=True)
class Agent:
    """The endpoint of an agent, and the credentials that it was sent."""

    metadata: TaskMetadata
    roles: Roles
    tasks: dict[str, View] = field(default_factory=dict)

    async def add(self, task: TaskPlan) -> TaskPlan:
        self.tasks[task.id] = View(task, TaskFacts())
        await self.metadata.ensure(task)
        return task

    async def plan(self, netns: Path, **roles: dict[str, str]) -> TaskPlan:
        message = task_message(arn=task_arn(uuid.uuid4().hex), **roles)
        return await self.add(replace(plan_task(message, site(Path("/nowhere"))), netns=netns))

    def deliver(self, task: TaskPlan, role: RolePlan | None, key: str) -> None:
        assert role is not None
        keys = read_keys(RoleCredentialsMessage.model_validate(role_json(key=key)))
        assert keys is not None
        self.roles.deliver(task.id, role.credentials_id, keys)


def make_agent(metadata_netns: MetadataNetns, arn_file: Path) -> Agent:
    async def read_usage(_: tuple[ContainerPlan, ...]) -> Mapping[str, ContainerUsage]:
        return {}

    tasks: dict[str, View] = {}
    roles = Roles()
    confidential = Confidential(roles, Audit(arn_file))
    metadata = TaskMetadata(
        make_sources(tasks, confidential, Sampler(read_usage, read_link_stats), Desk()),
        bind_listener=metadata_netns.bind,
    )
    return Agent(metadata=metadata, roles=roles, tasks=tasks)


@pytest.fixture
async def agent(metadata_netns: MetadataNetns, tmp_path: Path) -> AsyncIterator[Agent]:
    made = make_agent(metadata_netns, tmp_path / "arn")
    async with made.metadata:
        yield made


def path_of(role: RolePlan | None) -> str:
    assert role is not None
    return f"/v2/credentials/{role.credentials_id}"


def refusal(answer: Answer) -> tuple[int, str, str]:
    """Return status, code and message of a refusal that says its status twice."""
    assert answer.kind == "application/json"
    assert list(answer.json) == ["code", "message", "HTTPErrorCode"]
    assert answer.json["HTTPErrorCode"] == answer.status
    return answer.status, answer.json["code"], answer.json["message"]


async def test_credentials_of_the_task_role_are_served_as_they_came(
    agent: Agent, netns: Path
) -> None:
    sent = {**role_json(), "expiration": "2099-01-05T12:00:00.5+02:00"}
    task = await agent.plan(netns, roleCredentials=sent)

    answer = await fetch(netns, path_of(task.task_role))
    legacy = await fetch(netns, f"/v1/credentials?id={sent['credentialsId']}")

    assert (answer.status, answer.kind) == (200, "application/json")
    assert list(answer.json) == MEMBERS
    assert answer.json == legacy.json
    assert answer.json == {
        "RoleArn": ROLE,
        "AccessKeyId": sent["accessKeyId"],
        "SecretAccessKey": sent["secretAccessKey"],
        "Token": sent["sessionToken"],
        "Expiration": "2099-01-05T10:00:00Z",
    }


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_any_method_will_do(agent: Agent, netns: Path, method: str) -> None:
    task = await agent.plan(netns, roleCredentials=role_json())

    assert (await fetch(netns, path_of(task.task_role), method)).status == 200


async def test_credentials_are_what_an_sdk_understands(agent: Agent, netns: Path) -> None:
    task = await agent.plan(netns, roleCredentials=role_json())

    def ask() -> Any:
        with inside(netns):
            return ContainerMetadataFetcher().retrieve_uri(path_of(task.task_role))

    answer = await asyncio.to_thread(ask)

    assert answer == (await fetch(netns, path_of(task.task_role))).json


async def test_new_credentials_are_served_from_when_they_come(agent: Agent, netns: Path) -> None:
    task = await agent.plan(netns, roleCredentials=role_json(key="OLD"))
    first = await fetch(netns, path_of(task.task_role))

    agent.deliver(task, task.task_role, "NEW")
    second = await fetch(netns, path_of(task.task_role))

    assert (first.json["AccessKeyId"], second.json["AccessKeyId"]) == ("OLD", "NEW")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(role_json(key=None), id="not-sent-yet"),
        pytest.param(role_json(lasts_s=-1), id="ended"),
    ],
)
async def test_credentials_that_are_still_to_come_are_a_503_until_they_do(
    agent: Agent, netns: Path, sent: dict[str, str]
) -> None:
    task = await agent.plan(netns, roleCredentials=sent)

    before = [
        await fetch(netns, path_of(task.task_role)),
        await fetch(netns, f"/v1/credentials?id={sent['credentialsId']}"),
    ]
    agent.deliver(task, task.task_role, "LATE")
    after = await fetch(netns, path_of(task.task_role))

    assert [refusal(answer) for answer in before] == [
        (
            503,
            "CredentialsUninitialized",
            f"CredentialsV{version}Request: Credentials uninitialized for ID",
        )
        for version in (2, 1)
    ]
    assert (after.status, after.json["AccessKeyId"]) == (200, "LATE")


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        pytest.param(
            "/v2/credentials/", "NoIdInRequest", "V2Request: No Credential ID in the request",
            id="no id",
        ),
        pytest.param(
            "/v1/credentials", "NoIdInRequest", "V1Request: No Credential ID in the request",
            id="no id in the query",
        ),
        pytest.param(
            f"/v2/credentials/{uuid.uuid4()}", "InvalidIdInRequest",
            "V2Request: Credentials not found", id="unknown",
        ),
        pytest.param(
            f"/v1/credentials?id={uuid.uuid4()}", "InvalidIdInRequest",
            "V1Request: Credentials not found", id="unknown in the query",
        ),
        pytest.param(
            "/v2/credentials/%C3%BC", "InvalidIdInRequest",
            "V2Request: Credentials not found", id="no ASCII",
        ),
        pytest.param(
            "/v1/credentials?id=%FF%C3%BC", "InvalidIdInRequest",
            "V1Request: Credentials not found", id="no UTF-8",
        ),
    ],
)  # fmt: skip
async def test_wrong_id_is_refused_as_the_ecs_agent_does(
    agent: Agent, netns: Path, path: str, code: str, text: str
) -> None:
    await agent.plan(netns, roleCredentials=role_json())

    assert refusal(await fetch(netns, path)) == (400, code, f"Credentials{text}")


async def test_credentials_of_the_execution_role_are_not_here(agent: Agent, netns: Path) -> None:
    task = await agent.plan(
        netns, roleCredentials=role_json(), executionRoleCredentials=role_json(key="LOGGERS")
    )

    answer = await fetch(netns, path_of(task.execution_role))

    assert refusal(answer)[:2] == (400, "InvalidIdInRequest")
    assert (await fetch(netns, "/v2/splunk-token/x")).status == 404


async def test_credentials_are_for_their_own_task_only(agent: Agent, make_netns: MakeNetns) -> None:
    task = await agent.plan(await make_netns(), roleCredentials=role_json())
    other = await agent.plan(await make_netns(), roleCredentials=role_json())
    roleless = await agent.plan(await make_netns())

    answers = [await fetch(one.netns, path_of(task.task_role)) for one in (other, roleless)]

    assert [refusal(answer)[1] for answer in answers] == ["InvalidIdInRequest"] * 2


async def test_each_request_is_a_line_of_the_audit_log_without_id_or_key(
    agent: Agent, netns: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent = role_json()
    task = await agent.plan(netns, roleCredentials=sent)
    (tmp_path / "arn").write_text("arn:of:this-instance\n")

    with caplog.at_level(logging.INFO):
        await fetch(netns, path_of(task.task_role))
        await fetch(netns, f"/v1/credentials?id={uuid.uuid4()}")
        await fetch(netns, f"/v4/{task.containers[0].metadata_id}/task")

    lines = [one.getMessage() for one in caplog.records if one.name == "fargate_agent.audit"]
    assert [line.split('"')[:2] for line in lines] == [
        ["200 ", "/v2/credentials"],
        ["400 ", "/v1/credentials"],
    ]
    end = f"{task.arn} GetCredentials default arn:of:this-instance"
    assert lines[0].endswith(f'" {ROLE} {end}')
    assert lines[1].endswith(f'" - {end}')
    assert "aiohttp" in lines[0]
    for secret in (sent["credentialsId"], sent["secretAccessKey"], sent["sessionToken"]):
        assert secret not in caplog.text


async def test_container_reads_credentials_of_its_task_role_and_by_no_other_id(
    agent: Agent, bench: Bench
) -> None:
    own, execution = role_json(key="OWN"), role_json(f"{ROLE}-execution", key="LOGGERS")
    url = "http://169.254.170.2"
    read = f"wget -q -O - {url}$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
    guess = f"wget -O - {url}/v2/credentials/{execution['credentialsId']}"
    task = await agent.add(
        bench.plan(
            {"command": ["sh", "-c", f"exec 2>&1; env; {read}; echo; {guess}"]},
            roleCredentials=own,
            executionRoleCredentials=execution,
        )
    )

    finished = await bench.finish(await bench.begin_planned(task))

    line = next(line for line in finished.output.splitlines() if line.startswith("{"))
    assert json.loads(line)["SecretAccessKey"] == own["secretAccessKey"]
    assert "HTTP/1.1 400 Bad Request" in finished.output
    assert "LOGGERS" not in finished.output
    assert finished.output.count("AccessKeyId") == 1
