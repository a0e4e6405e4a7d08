"""Passwords of registries that task definitions name, from Secrets Manager to containers that run.

The registry, and the AWS that has the secrets, are where only tasks can reach them.
"""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fixtures.aws import ROLE, Front, client, write_keys
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.registry import LOGIN, RealRegistry, run_registry
from tests.fixtures.stack import OUTSIDE, Stack, build_tool, make_stack, tool
from tests.fixtures.storage import read_data

# stand-ins for AWS start
pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(120)]

SCRIPT = "echo ran; exec sleep 1000"


@pytest.fixture
def private_registry(outside: tuple[Path, str], tmp_path: Path) -> Iterator[RealRegistry]:
    """A registry that wants a password, where only tasks can reach it."""
    with run_registry(
        (outside[0], outside[0]), tmp_path, login=LOGIN, address=f"{OUTSIDE}.1"
    ) as it:
        yield it


@pytest.fixture
async def stack(
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    outside: tuple[Path, str],
    aws_outside: Front,
) -> AsyncIterator[Stack]:
    """A stack that has to ask AWS through its tasks, and takes Docker Hub from the registry."""
    async with make_stack(
        tmp_path,
        private_containerd,
        outside,
        FARGATE_AGENT_AWS_ENDPOINT_URL=aws_outside.url,
        FARGATE_AGENT_AWS_CREDENTIALS_FILE=str(write_keys(tmp_path)),
        FARGATE_AGENT_ASSUME_ROLES="false",
        FARGATE_AGENT_REGISTRY_MIRRORS=json.dumps({"docker.io": f"{OUTSIDE}.1:5000/hub"}),
        FARGATE_AGENT_REGISTRY_AUTH_FILE=str(tmp_path / "config.json"),
    ) as made:
        yield made


def keep(moto: str, name: str, text: str) -> str:
    """Put a secret into Secrets Manager; return its ARN."""
    manager = client(moto, "secretsmanager")
    return str(manager.create_secret(Name=name, SecretString=text)["ARN"])


def login_as(directory: Path, host: str) -> None:
    """Give the agent a password of its own."""
    entry = {"username": LOGIN[0], "password": LOGIN[1]}
    (directory / "config.json").write_text(json.dumps({"auths": {host: entry}}))


def written(stack: Stack) -> str:
    """Return all that the programs have written, the database too."""
    given = {"htpasswd", "config.json", "registry", "netns"}
    return "".join(
        read_data(path).decode(errors="replace")
        for path in stack.root.rglob("*")
        if path.is_file() and not given & set(path.relative_to(stack.root).parts)
    )


async def test_image_is_pulled_with_the_password_of_its_definition(
    tmp_path: Path, stack: Stack, private_registry: RealRegistry, aws_outside: Front, moto: str
) -> None:
    image = await private_registry.push("team/tool", "1", build_tool())
    user, password = LOGIN
    right = keep(
        moto, f"login-{tmp_path.name}", json.dumps({"username": user, "password": password})
    )
    keep(moto, f"wrong-{tmp_path.name}", json.dumps({"username": user, "password": "n0t-it"}))
    good = {"repositoryCredentials": {"credentialsParameter": right}, "image": image}
    wrong = {"credentialsParameter": f"wrong-{tmp_path.name}"}
    bad = {"repositoryCredentials": wrong, "image": image, "essential": False}

    arn = stack.run(
        tool("main", SCRIPT, **good),
        tool("same", SCRIPT, **good),
        tool("side", SCRIPT, **bad),
        executionRoleArn=ROLE,
    )

    task = await stack.wait_for(arn, "RUNNING")
    containers = {container["name"]: container for container in task["containers"]}
    assert containers["main"]["lastStatus"] == containers["same"]["lastStatus"] == "RUNNING"
    assert containers["main"]["image"] == image
    assert containers["side"]["reason"].startswith("CannotPullContainerError: pull image manifest")
    assert "pull access denied" in containers["side"]["reason"]
    asked = [call.request["SecretId"] for call in aws_outside.named("GetSecretValue")]
    assert sorted(asked) == sorted([right, f"wrong-{tmp_path.name}"])
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")
    text = written(stack)
    assert "team/tool" in text
    for secret in (password, "n0t-it"):
        assert secret not in text
    assert stack.leftovers(arn) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            None,
            "unable to retrieve secret from asm: service call has been retried 1 time(s): "
            "failed to fetch secret none from secrets manager: ResourceNotFoundException",
            id="no secret",
        ),
        pytest.param(
            '{"user": "ann", "password": "s3cret-pa55"}',
            'is not {"username": "…", "password": "…"}',
            id="not a login",
        ),
    ],
)
async def test_password_that_is_not_to_be_had_ends_the_task(
    tmp_path: Path,
    stack: Stack,
    private_registry: RealRegistry,
    moto: str,
    text: str | None,
    reason: str,
) -> None:
    image = await private_registry.push("team/tool", "2", build_tool())
    login_as(tmp_path, private_registry.host)
    name = "none" if text is None else keep(moto, f"login-{tmp_path.name}", text)
    credentials = {"credentialsParameter": name}

    arn = stack.run(
        tool("main", SCRIPT, image=image),
        tool("side", SCRIPT, image=image, repositoryCredentials=credentials, essential=False),
        executionRoleArn=ROLE,
    )

    task = await stack.wait_for(arn, "STOPPED")
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith(
        "ResourceInitializationError: unable to pull secrets or registry auth: "
    )
    assert reason in task["stoppedReason"]
    assert "s3cret" not in task["stoppedReason"]
    assert stack.leftovers(arn) == []


async def test_image_of_docker_hub_runs_from_its_mirror_and_why_says_so(
    tmp_path: Path, stack: Stack, private_registry: RealRegistry
) -> None:
    await private_registry.push("hub/library/tool", "1", build_tool())
    login_as(tmp_path, private_registry.host)

    arn = stack.run(tool("main", SCRIPT, image="tool:1"))

    task = await stack.wait_for(arn, "RUNNING")
    assert task["containers"][0]["image"] == "tool:1"
    assert stack.ctr("images", "ls", "-q").split() == ["docker.io/library/tool:1"]
    task_id = arn.rpartition("/")[2]
    record = json.loads((stack.root / "agent" / "records" / f"{task_id}.json").read_text())
    by = f"{private_registry.host}/hub/library/tool:1"
    assert record["facts"]["replacements"] == [{"kind": "image", "what": "tool:1", "by": by}]
    assert LOGIN[1] not in written(stack)
    stack.stop(arn)
    await stack.wait_for(arn, "STOPPED")
