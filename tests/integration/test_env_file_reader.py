"""Environment files are read from moto's S3, through a task's network."""

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
from fargate_agent.plan import TaskPlan, plan_task
from fargate_agent.secrets import env_files
from fargate_agent.secrets.file_reader import EnvFileReader
from fargate_agent.secrets.objects import ObjectReference, _render_url
from fargate_agent.secrets.tries import SecretSettings
from tests.fixtures.aws import REGION, Front, client, role_json
from tests.fixtures.pulls import FAST, open_on_host
from tests.messages import site, task_arn, task_message

FAILED = "ResourceInitializationError: failed to download env files: "
COUNTED = FAILED + "service call has been retried {} time(s): "
REFUSED = "operation error S3: GetObject, https response error StatusCode: {}, api error "


@dataclass(kw_only=True)
class Reader:
    """Reads environment files as an agent does."""

    roles: Roles
    url: str
    open_socket: OpenTaskSocket = open_on_host
    settings: SecretSettings = SecretSettings(retry=FAST, inactivity_s=5)

    async def fetch(self, *arns: str, task: TaskPlan | None = None) -> dict[str, dict[str, str]]:
        site = AwsSite(region=REGION, endpoint_url=self.url)
        egress = Egress(self.open_socket)
        reader = EnvFileReader(self.roles, site, egress, self.settings)
        return {arn: dict(v) for arn, v in (await reader.fetch(task or plan(), arns)).items()}

    async def fail(self, *arns: str, task: TaskPlan | None = None) -> str:
        with pytest.raises(ResourceInitializationError) as caught:
            await self.fetch(*arns, task=task)
        return caught.value.reason


@pytest.fixture
def reader(front: Front) -> Reader:
    return Reader(roles=Roles(), url=front.url)


def plan(**changes: Any) -> TaskPlan:
    message = task_message(arn=task_arn(uuid.uuid4().hex), executionRoleCredentials=role_json())
    return replace(plan_task(message, site(Path("/nowhere"))), **changes)


@pytest.fixture
def bucket(moto: str) -> str:
    name = f"bucket-{secrets.token_hex(4)}"
    client(moto, "s3").create_bucket(Bucket=name)
    return name


def put(moto: str, bucket: str, key: str, content: bytes) -> str:
    client(moto, "s3").put_object(Bucket=bucket, Key=key, Body=content)
    return f"arn:aws:s3:::{bucket}/{key}"


@pytest.mark.parametrize("key", ["a.env", "path/to/b c+d=é~%2F.env", "a//b.env"])
async def test_file_is_read_whatever_its_key(
    reader: Reader, moto: str, bucket: str, key: str
) -> None:
    arn = put(moto, bucket, key, b"A=1\nB=two words\n")

    assert await reader.fetch(arn) == {arn: {"A": "1", "B": "two words"}}


async def test_files_are_read_side_by_side(
    reader: Reader, moto: str, bucket: str, front: Front
) -> None:
    arns = [put(moto, bucket, f"{number}.env", b"N=%d" % number) for number in range(10)]

    files = await reader.fetch(*arns)

    assert [files[arn] for arn in arns] == [{"N": str(number)} for number in range(10)]
    assert len(front.named("GetObject")) == 10


@pytest.mark.parametrize(
    ("arn", "text"),
    [
        pytest.param(
            "arn:aws:s3:::{bucket}/gone.env",
            COUNTED.format(1)
            + REFUSED.format(404)
            + "NoSuchKey: The specified key does not exist. (arn:aws:s3:::{bucket}/gone.env)",
            id="key",
        ),
        pytest.param(
            "arn:aws:s3:::{bucket}-gone/a.env",
            COUNTED.format(1)
            + REFUSED.format(404)
            + "NoSuchBucket: The specified bucket does not exist "
            + "(arn:aws:s3:::{bucket}-gone/a.env)",
            id="bucket",
        ),
        pytest.param(
            "s3://bucket/key",
            FAILED + "'s3://bucket/key' is no object of S3: arn:aws:s3:::bucket/key is one",
            id="no ARN",
        ),
    ],
)
async def test_file_that_is_not_there_ends_the_task(
    reader: Reader, bucket: str, arn: str, text: str
) -> None:
    assert await reader.fail(arn.format(bucket=bucket)) == text.format(bucket=bucket)


async def test_denied_file_is_asked_for_once(
    reader: Reader, moto: str, bucket: str, front: Front
) -> None:
    arn = put(moto, bucket, "a.env", b"A=1")
    denied = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    front.faults.append((403, denied))

    reason = await reader.fail(arn)

    refused = REFUSED.format(403)
    assert reason == f"{COUNTED.format(1)}{refused}AccessDenied: Access Denied ({arn})"
    assert len(front.named("GetObject")) == 1


async def test_refusal_without_a_word_is_told_as_s3_s_clients_do(
    reader: Reader, moto: str, bucket: str, front: Front
) -> None:
    arn = put(moto, bucket, "a.env", b"A=1")
    front.faults.append((403, ""))

    reason = await reader.fail(arn)

    assert reason == f"{COUNTED.format(1)}{REFUSED.format(403)}Forbidden: Forbidden ({arn})"


async def test_busy_s3_is_asked_again(reader: Reader, moto: str, bucket: str, front: Front) -> None:
    arn = put(moto, bucket, "a.env", b"A=1")
    slow = "<Error><Code>SlowDown</Code><Message>Slow</Message></Error>"
    front.faults.extend([(503, slow), (500, "oops")])

    assert await reader.fetch(arn) == {arn: {"A": "1"}}
    assert len(front.named("GetObject")) == 3


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((301, "<Error><Region>eu-west-1</Region></Error>"), id="moved"),
        pytest.param((307, "<Error><Region>eu-west-1</Region></Error>"), id="for now"),
        pytest.param(
            (
                400,
                "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>",
            ),
            id="signed for another region",
        ),
    ],
)
async def test_bucket_of_another_region_is_asked_there(
    reader: Reader, moto: str, bucket: str, front: Front, answer: tuple[int, str]
) -> None:
    arn = put(moto, bucket, "a.env", b"A=1")
    front.faults.append(answer)

    assert await reader.fetch(arn) == {arn: {"A": "1"}}
    assert [call.region for call in front.named("GetObject")] == [REGION, "eu-west-1"]


async def test_bucket_that_is_nowhere_is_given_up(
    reader: Reader, bucket: str, front: Front
) -> None:
    regions = ("eu-west-1", "eu-west-2", "eu-west-1", "eu-west-2")
    front.faults.extend((301, f"<Error><Region>{one}</Region></Error>") for one in regions)

    reason = await reader.fail(f"arn:aws:s3:::{bucket}/a.env")

    assert f"bucket {bucket} is not in the region that S3 names" in reason
    assert len(front.named("GetObject")) == 3


async def test_file_that_is_too_large_is_refused(reader: Reader, moto: str, bucket: str) -> None:
    arn = put(moto, bucket, "a.env", b"#" * (env_files.MAX_FILE_BYTES + 1))

    reason = await reader.fail(arn)

    assert reason.startswith(COUNTED.format(1))
    assert f"is larger than {env_files.MAX_FILE_BYTES} bytes ({arn})" in reason


async def test_file_with_what_no_variable_can_have_is_refused_without_showing_it(
    reader: Reader, moto: str, bucket: str
) -> None:
    arn = put(moto, bucket, "a.env", b"A=1\nB=geheim\xff\n")

    assert await reader.fail(arn) == f"{FAILED}line 2 is not UTF-8 ({arn})"


async def test_s3_that_does_not_answer_is_given_up(
    reader: Reader, bucket: str, front: Front
) -> None:
    reader.settings = replace(reader.settings, deadline_s=0.3)
    front.go.clear()

    assert await reader.fail(f"arn:aws:s3:::{bucket}/a.env") == (
        f"{FAILED}not done within 0.3 s: context deadline exceeded. "
        "Please check your task network configuration."
    )


async def test_task_without_an_execution_role_has_no_files(reader: Reader) -> None:
    reason = await reader.fail("arn:aws:s3:::b/a.env", task=plan(execution_role=None))

    assert reason == f"{FAILED}the task has no execution role"


async def test_task_without_files_asks_nobody(reader: Reader, front: Front) -> None:
    assert await reader.fetch() == {}
    assert front.calls == []


@pytest.mark.parametrize(
    ("bucket", "url"),
    [
        ("bucket-1", "https://bucket-1.s3.eu-west-1.amazonaws.com/a/b%20c%2Bd.env"),
        ("my.bucket", "https://s3.eu-west-1.amazonaws.com/my.bucket/a/b%20c%2Bd.env"),
    ],
)
def test_bucket_of_aws_stands_in_the_host_where_a_certificate_fits(bucket: str, url: str) -> None:
    reference = ObjectReference(bucket=bucket, key="a/b c+d.env")

    assert _render_url(AwsSite(region="us-east-1"), "eu-west-1", reference) == url


@pytest.mark.root
async def test_file_is_asked_for_from_inside_the_task(
    reader: Reader, moto: str, bucket: str, netns: Path
) -> None:
    arn = put(moto, bucket, "a.env", b"A=1")
    listener = socket_in_netns(netns, socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.99", 8000))
    inner = Front(upstream=moto)
    reader.open_socket = socket_in_netns

    async with inner.serve(listener):
        reader.url = inner.url
        files = await reader.fetch(arn, task=plan(netns=netns))

    assert files == {arn: {"A": "1"}}
    assert [call.name for call in inner.calls] == ["GetObject"]
