"""Credentials and secrets on the metadata endpoint: who gets them, and how often."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from botocore.utils import ContainerMetadataFetcher

from fargate_agent.aws.calls import AwsSite
from fargate_agent.credentials.roles import Roles, RoleSettings
from fargate_agent.drivers import ContainerUsage
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.metadata import MetadataNetns
from fargate_agent.network.namespaces import inside
from fargate_agent.network.netlink import read_link_stats
from fargate_agent.plan import ContainerPlan, TaskPlan, plan_task
from fargate_agent.secrets.store import TaskSecrets
from fargate_agent.task.status import TaskFacts
from fargate_agent.tmds.confidential import Confidential
from fargate_agent.tmds.server import TaskMetadata
from tests.fixtures.aws import REGION, ROLE, Front, write_keys
from tests.fixtures.network import MakeNetns
from tests.fixtures.runtime import Bench
from tests.fixtures.tmds import count_listeners, fetch
from tests.messages import container_json, site, task_arn, task_message

pytestmark = pytest.mark.root

SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:splunk-AbCdEf"
SPLUNK = {
    "logDriver": "splunk",
    "options": {"splunk-url": "http://splunk:8088"},
    "secretOptions": [{"name": "splunk-token", "valueFrom": SECRET}],
}

PLAIN = {"splunk-url": "http://splunk:8088", "splunk-token": "splunk-secret"}


@dataclass(frozen=True)
class View:
    plan: TaskPlan
    facts: TaskFacts


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, and the secrets that it hands out."""

    metadata: TaskMetadata
    secrets: TaskSecrets

    async def ensure(self, task: TaskPlan) -> None:
        await self.metadata.ensure(task)
        await self.secrets.ensure(task)

    async def release(self, task: TaskPlan) -> None:
        await self.secrets.release(task)
        await self.metadata.release(task)


@dataclass(kw_only=True)
class Agent:
    """The endpoint of an agent, and what its surroundings say."""

    metadata_netns: MetadataNetns
    http: aiohttp.ClientSession
    site: AwsSite
    role_settings: RoleSettings
    tasks: dict[str, View] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    """Names of containers that exist."""
    secrets: dict[str, str] = field(default_factory=lambda: {SECRET: "splunk-secret"})
    fetched: list[set[str]] = field(default_factory=list)

    def endpoint(self) -> Endpoint:
        """Make an endpoint, as a fresh agent does."""
        roles = Roles(self.http, self.site, self.role_settings)
        secrets = TaskSecrets(self._fetch, roles, self._exists)
        metadata = TaskMetadata(
            find_task=self.tasks.get,
            bind_listener=self.metadata_netns.bind,
            read_usage=self._read_usage,
            read_link_stats=read_link_stats,
            snapshotter="overlayfs",
            confidential=Confidential(roles, secrets),
        )
        return Endpoint(metadata, secrets)

    def add(self, task: TaskPlan) -> TaskPlan:
        self.tasks[task.id] = View(task, TaskFacts())
        return task

    def plan(self, netns: Path, *containers: dict[str, Any], role: bool = True) -> TaskPlan:
        changes: dict[str, Any] = {"executionRoleCredentials": role_json()} if role else {}
        message = task_message(*containers, arn=task_arn(uuid.uuid4().hex), **changes)
        return self.add(replace(plan_task(message, site(Path("/nowhere"))), netns=netns))

    async def _exists(self, container: ContainerPlan) -> bool:
        return container.name in self.made

    async def _fetch(self, task: TaskPlan, references: Collection[str]) -> Mapping[str, str]:
        self.fetched.append(set(references))
        if missing := set(references) - self.secrets.keys():
            raise ResourceInitializationError(f"no secret {missing}")
        return {one: self.secrets[one] for one in references}

    async def _read_usage(
        self, containers: tuple[ContainerPlan, ...]
    ) -> Mapping[str, ContainerUsage]:
        return {}


def role_json() -> dict[str, str]:
    return {"credentialsId": str(uuid.uuid4()), "roleArn": ROLE}


def credentials_path(task: TaskPlan) -> str:
    assert task.execution_role is not None
    return f"/v2/credentials/{task.execution_role.credentials_id}"


def token_path(task: TaskPlan, index: int = 0) -> str:
    return f"/v2/splunk-token/{task.containers[index].log.secrets_id}"


@pytest.fixture
async def agent(
    front: Front, metadata_netns: MetadataNetns, tmp_path: Path
) -> AsyncIterator[Agent]:
    async with aiohttp.ClientSession() as http:
        yield Agent(
            metadata_netns=metadata_netns,
            http=http,
            site=AwsSite(region=REGION, endpoint_url=front.url),
            role_settings=RoleSettings(credentials_file=write_keys(tmp_path)),
        )


@pytest.fixture
async def endpoint(agent: Agent) -> AsyncIterator[Endpoint]:
    endpoint = agent.endpoint()
    async with endpoint.metadata:
        yield endpoint


async def test_logger_reads_the_credentials_of_the_execution_role(
    agent: Agent, endpoint: Endpoint, front: Front, netns: Path
) -> None:
    task = agent.plan(netns)
    await endpoint.ensure(task)

    answer = await fetch(netns, credentials_path(task))

    (call,) = front.calls
    assert (answer.status, answer.kind) == (200, "application/json")
    assert list(answer.json) == [
        "RoleArn",
        "AccessKeyId",
        "SecretAccessKey",
        "Token",
        "Expiration",
    ]
    assert answer.json["RoleArn"] == ROLE
    assert answer.json["AccessKeyId"].startswith("ASIA")
    assert call.request["RoleSessionName"] == task.id


async def test_credentials_are_what_an_sdk_understands(
    agent: Agent, endpoint: Endpoint, netns: Path
) -> None:
    task = agent.plan(netns)
    await endpoint.ensure(task)

    def ask() -> Any:
        with inside(netns):
            return ContainerMetadataFetcher().retrieve_uri(credentials_path(task))

    answer = await asyncio.to_thread(ask)

    assert answer == (await fetch(netns, credentials_path(task))).json


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        pytest.param(
            "/v2/credentials/", "NoIdInRequest", "No Credential ID in the request", id="no id"
        ),
        pytest.param(
            f"/v2/credentials/{uuid.uuid4()}",
            "InvalidIdInRequest",
            "Credentials not found",
            id="unknown",
        ),
        pytest.param(
            "/v2/credentials/%C3%BC", "InvalidIdInRequest", "Credentials not found", id="no ASCII"
        ),
    ],
)
async def test_wrong_id_is_refused_as_the_ecs_agent_does(
    agent: Agent, endpoint: Endpoint, front: Front, netns: Path, path: str, code: str, text: str
) -> None:
    await endpoint.ensure(agent.plan(netns))

    answer = await fetch(netns, path)

    assert (answer.status, answer.kind) == (400, "application/json")
    message = f"CredentialsV2Request: {text}"
    assert answer.json == {"code": code, "message": message, "HTTPErrorCode": 400}
    assert front.calls == []


async def test_credentials_are_for_their_own_task_only(
    agent: Agent, endpoint: Endpoint, front: Front, make_netns: MakeNetns
) -> None:
    task, other, roleless = (
        agent.plan(await make_netns()),
        agent.plan(await make_netns()),
        agent.plan(await make_netns(), role=False),
    )
    for one in (task, other, roleless):
        await endpoint.ensure(one)

    answers = [await fetch(one.netns, credentials_path(task)) for one in (other, roleless)]

    assert [answer.json["code"] for answer in answers] == ["InvalidIdInRequest"] * 2
    assert front.calls == []


async def test_credentials_that_cannot_be_had_are_an_error_that_says_why(
    agent: Agent, netns: Path
) -> None:
    agent.role_settings = RoleSettings()
    endpoint, task = agent.endpoint(), agent.plan(netns)
    async with endpoint.metadata:
        await endpoint.ensure(task)

        answer = await fetch(netns, credentials_path(task))

    assert answer.status == 500
    assert answer.json == {
        "code": "InternalServerError",
        "message": "CredentialsV2Request: this machine has no AWS keys: set aws_credentials_file, "
        "or assume_roles = false where a local stack takes any",
        "HTTPErrorCode": 500,
    }


async def test_agent_that_starts_anew_assumes_the_role_anew(
    agent: Agent, front: Front, netns: Path
) -> None:
    task = agent.plan(netns)
    answers = []

    for _ in range(2):
        endpoint = agent.endpoint()
        async with endpoint.metadata:
            await endpoint.ensure(task)
            answers.append(await fetch(netns, credentials_path(task)))

    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].json["AccessKeyId"] != answers[1].json["AccessKeyId"]
    assert len(front.calls) == 2


@pytest.mark.parametrize(
    ("log", "role"),
    [
        pytest.param(SPLUNK, True, id="secret"),
        pytest.param({"logDriver": "splunk", "options": PLAIN}, True, id="plain"),
        pytest.param({"logDriver": "splunk", "options": PLAIN}, False, id="plain-without-a-role"),
        pytest.param({**SPLUNK, "options": {"splunk-token": "other"}}, True, id="both"),
    ],
)
async def test_splunk_token_is_read_once(
    agent: Agent, endpoint: Endpoint, netns: Path, log: dict[str, Any], role: bool
) -> None:
    task = agent.plan(netns, container_json(logConfiguration=log), role=role)
    await endpoint.ensure(task)

    answers = [await fetch(netns, token_path(task)) for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 404]
    assert answers[0].json == {"token": "splunk-secret"}
    assert answers[1].json["code"] == "InvalidIdInRequest"


async def test_splunk_token_is_not_behind_an_id_that_a_container_knows(
    agent: Agent, endpoint: Endpoint, make_netns: MakeNetns
) -> None:
    task = agent.plan(await make_netns(), container_json(logConfiguration=SPLUNK))
    other = agent.plan(await make_netns(), container_json(logConfiguration=SPLUNK))
    for one in (task, other):
        await endpoint.ensure(one)
    guess = f"/v2/splunk-token/{task.containers[0].metadata_id}"

    answers = [await fetch(task.netns, guess), await fetch(other.netns, token_path(task))]

    assert [answer.status for answer in answers] == [404, 404]
    assert (await fetch(task.netns, token_path(task))).status == 200


async def test_only_containers_that_are_still_to_be_made_have_their_secrets_read(
    agent: Agent, endpoint: Endpoint, netns: Path
) -> None:
    agent.made, agent.secrets["/side"] = {"web"}, "side-secret"
    side = {**SPLUNK, "secretOptions": [{"name": "splunk-token", "valueFrom": "/side"}]}
    task = agent.plan(
        netns,
        container_json("web", logConfiguration=SPLUNK),
        container_json("side", logConfiguration=side),
    )

    await endpoint.ensure(task)
    answers = [await fetch(netns, token_path(task, index)) for index in range(2)]

    assert agent.fetched == [{"/side"}]
    assert [answer.status for answer in answers] == [404, 200]


async def test_secret_that_is_not_to_be_had_ends_the_start_and_nothing_is_left(
    agent: Agent, endpoint: Endpoint, netns: Path
) -> None:
    agent.secrets.clear()
    task = agent.plan(netns, container_json(logConfiguration=SPLUNK))

    with pytest.raises(ResourceInitializationError, match="no secret"):
        await endpoint.ensure(task)
    await endpoint.release(task)

    assert count_listeners(agent.metadata_netns.path) == 0


async def test_token_of_a_task_that_is_gone_is_gone(
    agent: Agent, endpoint: Endpoint, netns: Path
) -> None:
    task = agent.plan(netns, container_json(logConfiguration=SPLUNK))
    await endpoint.ensure(task)

    await endpoint.release(task)
    await endpoint.ensure(replace(task, containers=()))

    assert (await fetch(netns, token_path(task))).status == 404


async def test_container_reads_credentials_of_its_task_role_and_by_no_other_id(
    agent: Agent, endpoint: Endpoint, bench: Bench
) -> None:
    own, execution = role_json(), {**role_json(), "roleArn": f"{ROLE}-execution"}
    url = "http://169.254.170.2"
    read = f"wget -q -O - {url}$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
    script = f"env; {read}; echo; wget -O - {url}/v2/credentials/{uuid.uuid4()}"
    task = agent.add(
        bench.plan(
            {"command": ["sh", "-c", f"exec 2>&1; {script}"]},
            roleCredentials=own,
            executionRoleCredentials=execution,
        )
    )
    await endpoint.ensure(task)

    finished = await bench.finish(await bench.begin_planned(task))

    assert '{"RoleArn": "' + ROLE + '"' in finished.output
    assert '"AccessKeyId": "ASIA' in finished.output
    assert execution["credentialsId"] not in finished.output
    assert "HTTP/1.1 400 Bad Request" in finished.output
    assert finished.output.count("AccessKeyId") == 1
