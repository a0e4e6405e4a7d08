"""Programs that keep credentials, and identity tokens: who is asked, as whom, and who isn't."""

import asyncio
import base64
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.image.document import Document
from fargate_agent.image.registry.auth import AuthFile
from fargate_agent.image.registry.programs import ProgramError, ask_program
from tests.fixtures.pulls import eventually
from tests.fixtures.registry import FakeRegistry, Fault
from tests.fixtures.registry_client import AUTH, SECRET, add, opened, refusal

NOBODY = 65534
IDENTITY = "identity-t0ken"
ME = os.geteuid()


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in the PATH, which other users may look into."""
    with tempfile.TemporaryDirectory(prefix="programs-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
        yield directory


def write(directory: Path, script: str, mode: int = 0o755) -> Path:
    program = directory / "docker-credential-kept"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(mode)
    return program


def answer(user: str, secret: str) -> str:
    return f"cat >/dev/null; echo '{json.dumps({'Username': user, 'Secret': secret})}'"


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"credHelpers": {"{host}": "kept"}}, id="for the registry"),
        pytest.param({"credHelpers": {"https://{host}/v1/": "kept"}}, id="for its URL"),
        pytest.param({"credsStore": "kept"}, id="for all"),
        pytest.param(
            {"credsStore": "none", "credHelpers": {"{host}": "kept"}}, id="the nearer one"
        ),
        pytest.param(
            {"credsStore": "kept", "auths": {"{host}": {"auth": "d3Jvbmc6d3Jvbmc="}}},
            id="rather than the file",
        ),
    ],
)
async def test_registry_is_shown_what_a_program_keeps_for_it(
    fake_registry: FakeRegistry, programs: Path, config: dict[str, Any]
) -> None:
    name, image, _ = add(fake_registry)
    fake_registry.basic = f"Basic {AUTH}"
    asked = programs / "asked"
    write(programs, f"tee {asked} >/dev/null; {answer('ann', SECRET).partition('; ')[2]}")
    config = json.loads(json.dumps(config).replace("{host}", fake_registry.host))

    async with opened(name, fake_registry.host, config=config, uid=ME) as registry:
        assert (await registry.resolve()).target.digest == image.digest

    assert asked.read_text() == fake_registry.host


async def test_file_has_what_the_program_does_not_keep(
    fake_registry: FakeRegistry, programs: Path
) -> None:
    name, image, _ = add(fake_registry)
    fake_registry.basic = f"Basic {AUTH}"
    write(programs, "echo credentials not found in native keychain; exit 1")
    config = {"credsStore": "kept", "auths": {fake_registry.host: {"auth": AUTH}}}

    async with opened(name, fake_registry.host, config=config, uid=ME) as registry:
        assert (await registry.resolve()).target.digest == image.digest


async def test_program_is_asked_by_the_name_that_the_file_has(programs: Path) -> None:
    asked = programs / "asked"
    write(programs, f"tee {asked} >/dev/null; {answer('ann', SECRET).partition('; ')[2]}")
    file = AuthFile(Document("config", {"credHelpers": {"r.test": "kept"}}), ME)

    found = await file.find("R.test:443")

    assert found is not None
    assert asked.read_text() == "r.test"


async def test_docker_hub_is_asked_for_by_the_url_of_its_index(programs: Path) -> None:
    asked = programs / "asked"
    write(programs, f"tee {asked} >/dev/null; {answer('ann', SECRET).partition('; ')[2]}")

    kept = await ask_program("kept", ME, "docker.io")

    assert kept is not None
    assert (kept.username, kept.secret) == ("ann", SECRET)
    assert asked.read_text() == "https://{}/v1/".format("index.docker.io")
    assert SECRET not in repr(kept)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        pytest.param(
            "echo locked; exit 3",
            "ended with exit code 3 for r.test: locked",
            id="fails",
        ),
        pytest.param(f"echo {SECRET}", "is not JSON", id="no JSON"),
        pytest.param("head -c 100000 /dev/zero", "is larger than 65536 bytes", id="endless"),
        pytest.param("exec /none", "ended with exit code 127", id="no interpreter"),
    ],
)
async def test_program_without_an_answer_is_an_error_that_says_why(
    programs: Path, script: str, text: str
) -> None:
    write(programs, script)

    with pytest.raises(ProgramError) as caught:
        await ask_program("kept", ME, "r.test")

    assert text in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("end", ["wait", "exit 0"], ids=["waits", "ends, and its child talks"])
async def test_program_that_waits_for_a_person_is_ended_with_all_that_it_started(
    programs: Path, end: str
) -> None:
    pid = programs / "pid"
    write(programs, f"sleep 1000 & echo $! >{pid}; {end}")

    with pytest.raises(ProgramError, match=r"has no answer for r.test within 1 s"):
        await ask_program("kept", ME, "r.test", deadline_s=1)

    deadline = time.monotonic() + 5
    while is_running(int(pid.read_text())):
        assert time.monotonic() < deadline


async def test_program_ends_though_the_agent_was_killed(programs: Path) -> None:
    pid = programs / "pid"
    write(programs, f"sleep 1000 & echo $! >{pid}.new; mv {pid}.new {pid}; wait")
    ask = f"ask_program('kept', {ME}, 'r.test', deadline_s=2)"
    script = f"import asyncio\nfrom {ask_program.__module__} import ask_program\nasyncio.run({ask})"
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    await eventually(pid.exists)

    agent.kill()
    await agent.wait()

    assert is_running(int(pid.read_text()))
    await eventually(lambda: not is_running(int(pid.read_text())))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.root
async def test_program_runs_as_the_owner_of_the_file_and_sees_nothing_of_the_agents_environment(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FARGATE_AGENT_SECRET_ACCESS_KEY", SECRET)
    seen = programs / "seen"
    seen.touch()
    seen.chmod(0o666)
    write(programs, f"(id -u; id -G; pwd; env) >{seen}; {answer('ann', 'x')}")

    assert await ask_program("kept", NOBODY, "r.test") is not None

    uid, groups, directory, *environment = seen.read_text().splitlines()
    assert (uid, groups, directory) == (str(NOBODY), str(NOBODY), "/")
    names = {line.partition("=")[0] for line in environment}
    assert names <= {"PATH", "HOME", "USER", "LOGNAME", "PWD", "OLDPWD", "SHLVL", "_"}


@pytest.mark.parametrize("mode", [0o775, 0o757])
async def test_program_that_others_can_replace_is_not_run(programs: Path, mode: int) -> None:
    ran = programs / "ran"
    program = write(programs, f"touch {ran}; {answer('ann', 'x')}", mode)
    assert stat.S_IMODE(program.stat().st_mode) == mode

    with pytest.raises(ProgramError, match="can be replaced by others"):
        await ask_program("kept", ME, "r.test")

    assert not ran.exists()


@pytest.mark.root
async def test_program_of_another_user_is_not_run(programs: Path) -> None:
    program = write(programs, answer("ann", "x"))
    shutil.chown(program, NOBODY, NOBODY)

    with pytest.raises(ProgramError, match="can be replaced by others"):
        await ask_program("kept", 0, "r.test")


async def test_pull_says_what_is_wrong_with_the_program(
    fake_registry: FakeRegistry, programs: Path
) -> None:
    name, _, _ = add(fake_registry)
    fake_registry.basic = f"Basic {AUTH}"

    error = await refusal(name, fake_registry.host, config={"credsStore": "kept"}, uid=ME)

    assert str(error) == (
        "failed to authorize: there is no program docker-credential-kept in the PATH of the agent"
    )


@pytest.mark.parametrize("kept_by", ["file", "program"])
async def test_identity_token_is_posted_to_the_token_service_and_to_nobody_else(
    fake_registry: FakeRegistry, elsewhere: FakeRegistry, programs: Path, kept_by: str
) -> None:
    name, image, blob = add(fake_registry)
    fake_registry.challenges = [
        f'Bearer realm="http://{elsewhere.host}/token?x=1",service="acr",scope="repository:web:pull"'
    ]
    elsewhere.identity_token = IDENTITY
    user = base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode()
    config: dict[str, Any] = {
        "auths": {fake_registry.host: {"auth": user, "identitytoken": IDENTITY}}
    }
    if kept_by == "program":
        write(programs, answer("<token>", IDENTITY))
        config = {"credsStore": "kept"}
    hosts = (fake_registry.host, elsewhere.host)

    async with opened(name, *hosts, config=config, uid=ME) as registry:
        assert (await registry.resolve()).target.digest == image.digest
        async with registry.open_blob(blob, 0) as pieces:
            assert b"".join([piece async for piece in pieces]) == image.blobs[blob.digest]

    assert elsewhere.raw_paths == ["/token?x=1"]
    assert elsewhere.headers == [(elsewhere.host, "")]
    assert elsewhere.forms == [
        {
            "grant_type": "refresh_token",
            "refresh_token": IDENTITY,
            "service": "acr",
            "scope": "repository:web:pull",
            "client_id": "fargate-agent",
        }
    ]
    assert {shown for _, shown in fake_registry.headers} == {"", "Bearer token-1"}


async def test_identity_token_does_not_follow_the_token_service_elsewhere(
    fake_registry: FakeRegistry, elsewhere: FakeRegistry
) -> None:
    name, _, _ = add(fake_registry)
    fake_registry.token_realm = f"http://{fake_registry.host}/token"
    fake_registry.token_faults.append(Fault(redirect=f"http://{elsewhere.host}/token"))
    config = {"auths": {fake_registry.host: {"identitytoken": IDENTITY}}}
    hosts = (fake_registry.host, elsewhere.host)

    error = await refusal(name, *hosts, config=config)

    assert "which is shown no identity token" in str(error)
    assert elsewhere.requests == []


async def test_identity_token_that_is_refused_is_not_shown_in_the_error(
    fake_registry: FakeRegistry,
) -> None:
    name, _, _ = add(fake_registry)
    fake_registry.token_realm = f"http://{fake_registry.host}/token"
    fake_registry.identity_token = "another"
    config = {"auths": {fake_registry.host: {"identitytoken": IDENTITY}}}

    error = await refusal(name, fake_registry.host, config=config)

    assert error.tries == 1
    assert "failed to fetch oauth token: unexpected status from POST request" in str(error)
    assert IDENTITY not in str(error)
