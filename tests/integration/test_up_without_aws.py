"""The example of a definition from production: on a machine without AWS and without a network."""

import asyncio
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.fixtures.cli import FARGATE, Outcome, finish
from tests.fixtures.up import DEADLINE_S, EXAMPLES, Up

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

SECTION = re.compile(r"^## without-aws\n(.*?)^## ", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def read_steps() -> list[str]:
    """The commands of the section, block by block."""
    section = SECTION.search((EXAMPLES / "README.md").read_text())
    assert section is not None
    return BLOCK.findall(section[1])


async def shell(script: str, directory: Path, env: dict[str, str]) -> Outcome:
    """Run commands as their reader would: in this directory, the program found by its name."""
    path = f"{Path(FARGATE).parent}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-eu",
        "-c",
        script,
        cwd=directory,
        env={**env, "PATH": path},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return await finish(process, within_s=2 * DEADLINE_S)


def routes_out() -> list[str]:
    """Default routes of this network namespace. Source: proc(5), /proc/net/route."""
    lines = Path("/proc/self/net/route").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[1] == "00000000"]


async def test_definition_from_production_runs_unchanged(up: Up, tmp_path: Path) -> None:
    examples = tmp_path / "examples"
    shutil.copytree(EXAMPLES, examples)
    before_up, steps = read_steps()
    setting, start = before_up.strip().splitlines()
    assert start.split()[:4] == ["sudo", "-E", "fargate", "up"]
    name = "FARGATE_AGENT_LOCAL_BUCKETS"
    told = await shell(f'{setting}\nprintf %s "${name}"', examples, dict(os.environ))
    up.env = {name: told.out, "HOME": str(tmp_path)}  # no keys of this machine's user
    cli = await up.ready()
    said = "".join(up.output)

    done = await shell(steps, examples, cli.env)

    assert done.code == 0, done
    assert routes_out() == []
    assert "AWS: local" in said
    for line in (
        "app | hello from a bucket, prod",
        "app | database: shop, a password of 15 characters",
        "app | log level: debug",
        "app | task role: a key that begins with ASIA",
    ):
        assert f"{line}\n" in done.out, done.out
    _, found, told_why = done.out.partition("\nreplaced on this machine\n")
    assert found, done.out
    replaced = [line.strip() for line in told_why.partition("\n\n")[0].splitlines()]
    kinds = {line.partition(" arn:")[0].partition(" /ecs")[0] for line in replaced}
    assert kinds == {"secret", "environment file", "logs", "role"}
    assert "for this laptop" not in done.out
    assert await up.end() == 0


def test_definition_is_as_production_has_it() -> None:
    definition = json.loads((EXAMPLES / "without-aws" / "task.json").read_text())
    (container,) = definition["containerDefinitions"]

    assert ".dkr.ecr." in container["image"]
    assert {"taskRoleArn", "executionRoleArn"} <= definition.keys()
    sources = [secret["valueFrom"].split(":")[2] for secret in container["secrets"]]
    assert set(sources) == {"secretsmanager", "ssm"}
    assert container["environmentFiles"]
    assert container["logConfiguration"]["logDriver"] == "awslogs"
