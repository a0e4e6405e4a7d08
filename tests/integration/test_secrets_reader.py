"""Secrets are read from moto's Secrets Manager and Parameter Store, through a task's network."""

import asyncio
import logging
import secrets
import socket
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.aws.calls import AwsSite
from fargate_agent.credentials.roles import Roles
from fargate_agent.egress.session import Egress
from fargate_agent.egress.sockets import OpenTaskSocket
from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.namespaces import socket_in_netns
from fargate_agent.plan import DnsPlan, TaskPlan, plan_task
from fargate_agent.secrets.reader import SecretReader
from fargate_agent.secrets.tries import SecretSettings
from tests.fixtures.aws import REGION, ROLE, Front, client, role_json
from tests.fixtures.nameserver import NameServer
from tests.fixtures.pulls import FAST, open_on_host
from tests.messages import site, task_arn, task_message

THROTTLED = (400, '{"__type": "ThrottlingException", "message": "Rate exceeded"}')
DENIED = (
    400,
    '{"__type": "AccessDeniedException", "Message": "User is not authorized to perform this"}',
)
PREFIX = "ResourceInitializationError: unable to pull secrets or registry auth: "
FROM_ASM = (
    f"{PREFIX}execution resource retrieval failed: unable to retrieve secret from asm: "
    "service call has been retried {} time(s): "
)
FROM_SSM = (
    f"{PREFIX}execution resource retrieval failed: unable to retrieve secrets from ssm: "
    "service call has been retried {} time(s): "
)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What moto keeps, under names of the test's own."""

    secret: str
    """ARN of an object, whose `user` was `old` before."""
    versions: tuple[str, str]
    """Ids of its versions, the older one first."""
    text: str
    """ARN of a secret that is no object."""
    binary: str
    parameter: str
    """Name of a SecureString."""
    parameter_arn: str


@pytest.fixture
def kept(moto: str) -> Kept:
    name = secrets.token_hex(4)
    manager, ssm = client(moto, "secretsmanager"), client(moto, "ssm")
    old = '{"user": "old", "port": 5432}'
    first = manager.create_secret(Name=f"app/{name}", SecretString=old)
    new = '{"user": "new", "port": 5432, "tls": true}'
    second = manager.put_secret_value(SecretId=first["ARN"], SecretString=new)
    text = manager.create_secret(Name=f"text-{name}", SecretString="not JSON")
    binary = manager.create_secret(Name=f"binary-{name}", SecretBinary=b"\x00")
    ssm.put_parameter(Name=f"/app/{name}", Value="parameter-value", Type="SecureString")
    return Kept(
        secret=first["ARN"],
        versions=(first["VersionId"], second["VersionId"]),
        text=text["ARN"],
        binary=binary["ARN"],
        parameter=f"/app/{name}",
        parameter_arn=ssm.get_parameter(Name=f"/app/{name}")["Parameter"]["ARN"],
    )


@dataclass(kw_only=True)
class Reader:
    """Reads secrets as an agent does."""

    roles: Roles
    url: str
    open_socket: OpenTaskSocket = open_on_host
    settings: SecretSettings = SecretSettings(retry=FAST, inactivity_s=5)

    async def fetch(self, *references: str, task: TaskPlan | None = None) -> dict[str, str]:
        aws = AwsSite(region=REGION, endpoint_url=self.url)
        reader = SecretReader(self.roles, aws, Egress(self.open_socket), self.settings)
        return dict(await reader.fetch(task or plan(), references))

    async def fail(self, *references: str, task: TaskPlan | None = None) -> str:
        with pytest.raises(ResourceInitializationError) as caught:
            await self.fetch(*references, task=task)
        return caught.value.reason


@pytest.fixture
def reader(front: Front) -> Reader:
    return Reader(roles=Roles(), url=front.url)


def plan(key: str | None = "ASIADELIVERED", **changes: Any) -> TaskPlan:
    role = role_json(key=key)
    message = task_message(arn=task_arn(uuid.uuid4().hex), executionRoleCredentials=role)
    return replace(plan_task(message, site(Path("/nowhere"))), **changes)


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        pytest.param("{secret}", '{"user": "new", "port": 5432, "tls": true}', id="whole"),
        pytest.param("{secret}:user::", "new", id="key"),
        pytest.param("{secret}:port::", "5432", id="number"),
        pytest.param("{secret}:tls::", "true", id="boolean"),
        pytest.param("{secret}:user:AWSPREVIOUS:", "old", id="key of stage"),
        pytest.param("{secret}:user:AWSCURRENT:", "new", id="key of current stage"),
        pytest.param("{secret}::AWSPREVIOUS:", '{"user": "old", "port": 5432}', id="stage"),
        pytest.param("{secret}:user::{old}", "old", id="key of version"),
        pytest.param("{secret}:::{old}", '{"user": "old", "port": 5432}', id="version"),
        pytest.param("{text}", "not JSON", id="text"),
        pytest.param("{parameter}", "parameter-value", id="parameter"),
        pytest.param("{parameter_arn}", "parameter-value", id="parameter ARN"),
    ],
)
async def test_value_is_read_by_each_form_of_reference(
    reader: Reader, kept: Kept, reference: str, value: str
) -> None:
    reference = reference.format(**vars(kept), old=kept.versions[0])

    assert await reader.fetch(reference) == {reference: value}


async def test_all_secrets_of_a_task_are_read_with_the_role_s_credentials(
    reader: Reader, kept: Kept, front: Front
) -> None:
    task = plan()
    references = {f"{kept.secret}:user::", kept.text, kept.parameter}

    values = await reader.fetch(*references, task=task)

    assert task.execution_role is not None
    role = await reader.roles.keys(task, task.execution_role)
    assert values.keys() == references
    calls = front.calls
    assert sorted(c.name for c in calls) == ["GetParameters", "GetSecretValue", "GetSecretValue"]
    assert {(call.key, call.token) for call in calls} == {(role.access_key, role.token)}


async def test_more_parameters_than_one_call_takes_are_read(
    reader: Reader, front: Front, moto: str
) -> None:
    base = f"/many/{secrets.token_hex(4)}"
    ssm = client(moto, "ssm")
    for number in range(11):
        ssm.put_parameter(Name=f"{base}/{number}", Value=f"value {number}", Type="String")
    names = [f"{base}/{number}" for number in range(11)]

    values = await reader.fetch(*names)

    assert values == {name: f"value {number}" for number, name in enumerate(names)}
    calls = front.named("GetParameters")
    assert sorted(len(call.request["Names"]) for call in calls) == [1, 10]
    assert all(call.request["WithDecryption"] is True for call in calls)


async def test_twenty_secrets_and_parameters_are_asked_for_before_the_first_answer(
    reader: Reader, front: Front, moto: str
) -> None:
    mark = secrets.token_hex(4)
    manager, ssm = client(moto, "secretsmanager"), client(moto, "ssm")
    arns = [
        manager.create_secret(Name=f"{mark}-{number}", SecretString=f"value {number}")["ARN"]
        for number in range(20)
    ]
    ssm.put_parameter(Name=f"/{mark}", Value="parameter", Type="String")
    front.go.clear()

    fetching = asyncio.create_task(reader.fetch(*arns, f"/{mark}"))
    async with asyncio.timeout(20):
        while len(front.calls) < 21:
            await asyncio.sleep(0.01)
    front.go.set()

    assert len(await fetching) == 21
    assert len(front.named("GetSecretValue")) == 20


async def test_keys_of_one_secret_are_one_call(reader: Reader, kept: Kept, front: Front) -> None:
    wanted = {f"{kept.secret}:user::": "new", f"{kept.secret}:port::": "5432"}

    assert await reader.fetch(*wanted) == wanted
    assert len(front.named("GetSecretValue")) == 1


async def test_versions_of_a_parameter_are_told_apart(reader: Reader, moto: str) -> None:
    name = f"/versions/{secrets.token_hex(4)}"
    for number in range(1, 4):
        client(moto, "ssm").put_parameter(
            Name=name, Value=f"value {number}", Type="String", Overwrite=True
        )
    wanted = {name: "value 3", f"{name}:1": "value 1", f"{name}:2": "value 2"}

    assert await reader.fetch(*wanted) == wanted


async def test_task_without_secrets_asks_nobody(reader: Reader, front: Front) -> None:
    assert await reader.fetch() == {}
    assert front.calls == []


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        pytest.param(
            "{secret}-gone",
            FROM_ASM.format(1)
            + "failed to fetch secret {secret}-gone from secrets manager: "
            + "ResourceNotFoundException: Secrets Manager can't find the specified secret.",
            id="secret",
        ),
        pytest.param(
            "{secret}:nobody::",
            FROM_ASM.format(1)
            + "retrieved secret from Secrets Manager did not contain json key nobody",
            id="key",
        ),
        pytest.param(
            "{text}:user::",
            FROM_ASM.format(1) + "the secret is not a JSON object, so it has no key user",
            id="no object",
        ),
        pytest.param(
            "{binary}",
            FROM_ASM.format(1)
            + "failed to fetch secret {binary} from secrets manager: "
            + "the secret has no SecretString",
            id="binary",
        ),
        pytest.param(
            "{parameter}/gone",
            FROM_SSM.format(1) + "invalid ssm parameters: {parameter}/gone",
            id="parameter",
        ),
        pytest.param(
            "{secret}:user",
            f"{PREFIX}execution resource retrieval failed: unexpected ARN format with parameters "
            "when trying to retrieve ASM secret: '{secret}:user'",
            id="reference",
        ),
    ],
)
async def test_value_that_is_not_there_ends_the_task_in_the_words_of_fargate(
    reader: Reader, kept: Kept, reference: str, text: str
) -> None:
    reason = await reader.fail(reference.format(**vars(kept)))

    assert reason == text.format(**vars(kept))


async def test_throttled_call_is_made_again(reader: Reader, kept: Kept, front: Front) -> None:
    task = plan()
    front.faults.extend([THROTTLED, (500, "oops")])

    values = await reader.fetch(kept.text, task=task)

    assert values == {kept.text: "not JSON"}
    assert len(front.named("GetSecretValue")) == 3


async def test_call_that_is_throttled_for_ever_counts_its_tries(
    reader: Reader, kept: Kept, front: Front
) -> None:
    task = plan()
    front.faults.extend([THROTTLED] * 10)

    reason = await reader.fail(kept.parameter, task=task)

    assert reason == FROM_SSM.format(3) + "ThrottlingException: Rate exceeded"


async def test_denied_call_is_not_made_again(reader: Reader, kept: Kept, front: Front) -> None:
    task = plan()
    front.faults.append(DENIED)

    reason = await reader.fail(kept.text, task=task)

    assert reason == (
        FROM_ASM.format(1) + f"failed to fetch secret {kept.text} from secrets manager: "
        "AccessDeniedException: User is not authorized to perform this"
    )
    assert len(front.named("GetSecretValue")) == 1


async def test_refusal_that_quotes_the_request_shows_no_token(
    reader: Reader, kept: Kept, front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    task = plan()
    await reader.fetch(kept.parameter, task=task)
    token = front.calls[-1].token
    said = f"The signature does not match.\\n\\nPOST\\nx-amz-security-token:{token}\\n"
    front.faults.append((403, f'{{"__type": "InvalidSignatureException", "message": "{said}"}}'))

    with caplog.at_level(logging.DEBUG, logger="fargate_agent"):
        reason = await reader.fail(kept.parameter, task=task)

    assert token
    assert reason.endswith("InvalidSignatureException: The signature does not match.")
    assert token not in caplog.text + reason


async def test_service_out_of_reach_is_a_fault_of_the_task_s_network(
    reader: Reader, kept: Kept
) -> None:
    reader.url = "http://127.0.0.1:1"

    reason = await reader.fail(kept.text)

    assert reason == (
        FROM_ASM.format(3) + f"failed to fetch secret {kept.text} from secrets manager: "
        'RequestError: send request failed caused by: Post "http://127.0.0.1:1/": '
        "dial tcp 127.0.0.1:1: connect: connection refused. "
        "Please check your task network configuration."
    )


async def test_service_that_does_not_answer_is_given_up(
    reader: Reader, kept: Kept, front: Front
) -> None:
    task = plan()
    reader.settings = replace(reader.settings, deadline_s=0.3)
    front.go.clear()

    reason = await reader.fail(kept.text, task=task)

    assert reason == (
        f"{PREFIX}execution resource retrieval failed: not done within 0.3 s: "
        "context deadline exceeded. Please check your task network configuration."
    )


async def test_role_whose_credentials_do_not_come_is_the_reason(reader: Reader, kept: Kept) -> None:
    reader.roles = Roles(wait_s=0.1)

    reason = await reader.fail(kept.text, task=plan(key=None))

    assert reason.startswith(FROM_ASM.format(1))
    assert reason.endswith(f"has sent no credentials of role {ROLE} within 0.1 s")


async def test_task_without_an_execution_role_has_no_secrets(reader: Reader, kept: Kept) -> None:
    reason = await reader.fail(kept.text, task=plan(execution_role=None))

    assert reason.endswith("execution resource retrieval failed: the task has no execution role")


async def test_no_value_gets_into_the_log_or_a_reason(
    reader: Reader, kept: Kept, front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    front.faults.append((500, ""))

    with caplog.at_level(logging.DEBUG, logger="fargate_agent"):
        await reader.fetch(kept.text, kept.parameter)
        reason = await reader.fail(f"{kept.text}:user::")

    for value in ("not JSON", "parameter-value", "secret-of", "token-of"):
        assert value not in caplog.text + reason


@pytest.mark.root
async def test_secrets_are_asked_for_from_inside_the_task_by_a_name_that_only_it_knows(
    reader: Reader, kept: Kept, netns: Path, moto: str
) -> None:
    task = plan(netns=netns, dns=DnsPlan(servers=("127.0.0.53",), search=(), hostname="test"))
    names = NameServer(records={("aws.test", "A"): ["127.0.0.99"]})
    udp, tcp = (
        socket_in_netns(netns, socket.AF_INET, kind)
        for kind in (
            socket.SOCK_DGRAM,
            socket.SOCK_STREAM,
        )
    )
    for sock in (udp, tcp):
        sock.bind(("127.0.0.53", 53))
        sock.setblocking(False)
    listener = socket_in_netns(netns, socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.99", 8000))
    inner = Front(upstream=moto)
    reader.url, reader.open_socket = "http://aws.test:8000", socket_in_netns

    async with names.serve(udp, tcp), inner.serve(listener):
        values = await reader.fetch(kept.text, task=task)

    assert values == {kept.text: "not JSON"}
    assert [call.name for call in inner.calls] == ["GetSecretValue"]
    assert names.queries == ["udp aws.test A"]
