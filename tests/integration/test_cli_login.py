"""`fargate login` as a program, against the part of an agent that keeps logins."""

import asyncio
import base64
import json
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from fargate_agent.image.reference import DOCKER_HUB
from fargate_agent.image.registry.checking import LoginCheck
from fargate_agent.image.registry.hosts import Hosts
from fargate_agent.image.registry.kept_logins import KeptLogins, read_auths
from fargate_agent.local.registries import RegistryRoutes
from fargate_agent.local.secrets import SecretRoutes
from fargate_agent.local.server import LocalServer
from fargate_agent.secrets.local_store import LocalSecrets
from tests.fixtures.cli import Cli, plain_env
from tests.fixtures.registry import FakeRegistry

PASSWORD = "s3cret:pa55 wörd"


@dataclass(frozen=True, kw_only=True)
class Agent:
    """What listens on the socket, and what it keeps."""

    cli: Cli
    logins: KeptLogins
    auth_file: Path

    async def find(self, registry: str) -> tuple[str, str] | None:
        """What a pull would show."""
        auths = await asyncio.to_thread(read_auths, self.logins, self.auth_file)
        found = await auths.find(registry)
        return None if found is None else (found.username, found.password)


@pytest.fixture
async def agent(tmp_path: Path, fake_registry: FakeRegistry) -> AsyncIterator[Agent]:
    nobody, socket = cast(Any, None), tmp_path / "agent.sock"
    logins, auth_file = KeptLogins(tmp_path / "state"), tmp_path / "config.json"
    server = LocalServer(
        supervisor=nobody,
        images=nobody,
        secrets=SecretRoutes(store=LocalSecrets(tmp_path / "state"), are_used=True),
        registries=RegistryRoutes(
            logins=logins,
            auth_file=auth_file,
            check=LoginCheck(hosts=Hosts(insecure=frozenset({fake_registry.host}))),
        ),
        findings=nobody,
        look=nobody,
        logs_dir=Path("/nowhere"),
        log_copy=True,
        spool_dir=Path("/nowhere"),
        is_connected=lambda: True,
        containerd_version="",
        cgroups="",
        render_metrics=nobody,
    )
    cli = Cli(
        plain_env(FARGATE_AGENT_SOCKET=str(socket), AWS_ENDPOINT_URL_ECS="http://127.0.0.1:9")
    )
    async with server.serve(socket):
        yield Agent(cli=cli, logins=logins, auth_file=auth_file)


def basic(password: str = PASSWORD) -> str:
    return f"Basic {base64.b64encode(f'ann:{password}'.encode()).decode()}"


async def log_in(agent: Agent, registry: str, *options: str, password: str = PASSWORD) -> Any:
    arguments = ("login", registry, "--username", "ann", "--password-stdin", *options)
    return await agent.cli.run(*arguments, stdin=f"{password}\n")


async def test_login_that_the_registry_takes_is_kept_and_forgotten_again(
    agent: Agent, fake_registry: FakeRegistry
) -> None:
    fake_registry.basic = basic()
    host = fake_registry.host

    done = await log_in(agent, host)

    assert (done.code, done.out, done.err) == (0, f"logged in to {host}\n", "")
    assert await agent.find(host) == ("ann", PASSWORD)
    assert stat.S_IMODE(agent.logins.file.stat().st_mode) == 0o600
    listed = await agent.cli.run("login", "--list")
    assert [line.split() for line in listed.out.splitlines()] == [
        ["REGISTRY", "USER", "FROM"],
        [host, "ann", "login"],
    ]

    assert (await agent.cli.run("logout", host)).out == f"logged out of {host}\n"

    assert await agent.find(host) is None
    again = await agent.cli.run("logout", host)
    assert again.code != 0
    assert f"no login for {host} is kept" in again.err


async def test_token_service_of_the_registry_is_asked(
    agent: Agent, fake_registry: FakeRegistry
) -> None:
    fake_registry.token_realm = f"http://{fake_registry.host}/token"
    fake_registry.basic = basic()

    done = await log_in(agent, fake_registry.host)

    assert done.code == 0, done.err
    assert "GET /token" in fake_registry.requests


@pytest.mark.parametrize("tokens", [False, True], ids=["registry", "token service"])
async def test_login_that_is_refused_is_not_kept_and_not_repeated(
    agent: Agent, fake_registry: FakeRegistry, tokens: bool
) -> None:
    if tokens:
        fake_registry.token_realm = f"http://{fake_registry.host}/token"
    fake_registry.basic = basic("another")

    done = await log_in(agent, fake_registry.host)

    assert done.code != 0
    assert done.err.startswith(f"fargate: agent: {fake_registry.host}: ")
    assert "401" in done.err or "refused the user name and the password" in done.err
    assert PASSWORD not in done.err
    assert await agent.find(fake_registry.host) is None


async def test_registry_that_wants_no_login_is_said(
    agent: Agent, fake_registry: FakeRegistry
) -> None:
    done = await log_in(agent, fake_registry.host)

    assert done.code == 0
    assert "answers without a login, so the user name and the password were not" in done.err


async def test_registry_that_only_tasks_reach_is_not_asked(agent: Agent) -> None:
    refused = await log_in(agent, "127.0.0.1:1")
    kept = await log_in(agent, "127.0.0.1:1", "--no-verify")

    assert refused.code != 0
    assert "connection refused" in refused.err
    assert kept.code == 0, kept.err
    assert await agent.find("127.0.0.1:1") == ("ann", PASSWORD)


@pytest.mark.parametrize(
    "name",
    ["docker.io", "index.docker.io", f"https://index.{DOCKER_HUB}/v1/", "registry-1.docker.io"],
)
async def test_names_of_docker_hub_are_one(agent: Agent, name: str) -> None:
    done = await log_in(agent, name, "--no-verify")

    said = "kept the login for docker.io, which wasn't asked whether it takes it\n"
    assert (done.out, done.err) == (said, "")
    assert await agent.find("docker.io") == ("ann", PASSWORD)


async def test_login_comes_before_the_file_of_the_settings(agent: Agent) -> None:
    pair = base64.b64encode(b"bob:other").decode()
    auths = {"a.test": {"auth": pair}, "b.test": {"auth": pair}}
    agent.auth_file.write_text(json.dumps({"auths": auths, "credHelpers": {"c.test": "kept"}}))

    await log_in(agent, "a.test", "--no-verify")

    assert await agent.find("a.test") == ("ann", PASSWORD)
    assert await agent.find("b.test") == ("bob", "other")
    listed = await agent.cli.run("login", "--list", "--output", "json")
    assert [
        (one["registry"], one["username"], one["from"]) for one in json.loads(listed.out)["logins"]
    ] == [
        ("a.test", "ann", "login"),
        ("a.test", "bob", "registry_auth_file"),
        ("b.test", "bob", "registry_auth_file"),
        ("c.test", "", "registry_auth_file"),
    ]


@pytest.mark.parametrize(
    ("arguments", "given", "text"),
    [
        pytest.param((), "", "name the registry", id="no registry"),
        pytest.param(("a.test",), "", "give the user name with --username", id="no user"),
        pytest.param(("a.test", "-u", "ann"), "", "--password-stdin", id="no password"),
        pytest.param(
            ("a.test", "-u", "ann", "--password-stdin"), "\n", "standard input is empty", id="empty"
        ),
        pytest.param(
            ("a.test/team", "-u", "a:b", "--password-stdin", "--no-verify"),
            "x",
            "colon",
            id="colon",
        ),
        pytest.param(
            ("not a host", "-u", "ann", "--password-stdin", "--no-verify"),
            "x",
            "must be HOST or HOST:PORT",
            id="no host",
        ),
        pytest.param(("--list", "a.test"), "", "--list takes no registry", id="list and login"),
    ],
)
async def test_what_cannot_be_kept_is_refused(
    agent: Agent, arguments: tuple[str, ...], given: str, text: str
) -> None:
    done = await agent.cli.run("login", *arguments, stdin=given)

    assert done.code != 0
    assert text in done.err
    assert not agent.logins.file.exists()


async def test_file_that_was_spoilt_is_named(agent: Agent) -> None:
    agent.logins.file.parent.mkdir()
    agent.logins.file.write_text("{")

    done = await log_in(agent, "a.test", "--no-verify")

    assert done.code != 0
    assert f"{agent.logins.file}: " in done.err
    assert "remove it, and log in again" in done.err
