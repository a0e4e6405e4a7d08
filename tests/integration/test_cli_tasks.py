"""`fargate run`, `ps`, `describe`, `stop` as programs, against the real control plane."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fixtures.agents import SimulatedAgent
from tests.fixtures.cli import Cli, LocalSocket, cli_for, definition
from tests.fixtures.controlplane import ControlPlane

pytestmark = pytest.mark.one_store


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "task.json"
    path.write_text(json.dumps(definition()))
    return str(path)


@pytest.fixture
def cli(control_plane: ControlPlane, tmp_path: Path) -> Cli:
    return cli_for(control_plane, tmp_path / "none.sock")


@pytest.fixture
async def obedient_agent(simulated_agent: SimulatedAgent) -> AsyncIterator[SimulatedAgent]:
    """An agent that brings up and takes down whatever it is told to."""
    job = asyncio.create_task(simulated_agent.run())
    yield simulated_agent
    job.cancel()
    await asyncio.wait([job])


@pytest.mark.usefixtures("obedient_agent")
async def test_task_is_run_listed_described_and_stopped(cli: Cli, file: str) -> None:
    ran = await cli.run("run", file, "--started-by", "me")
    assert ran.code == 0, ran.err
    task_id = ran.out.strip().rpartition("/")[2]
    assert len(task_id) == 32

    listed = await cli.run("ps")
    assert listed.out.splitlines()[1].split()[:2] == [task_id[:12], "web:1"]

    described = await cli.run("describe", task_id[:8])
    assert described.code == 0
    assert f"task          {task_id}\n" in described.out
    assert "started by    me\n" in described.out
    assert "10.0.0." in described.out

    stopped = await cli.run("stop", task_id[:8], "--reason", "enough", "--wait")
    assert (stopped.code, stopped.out) == (0, f"{task_id}: STOPPED\n")

    gone, kept = await cli.run("ps"), await cli.run("ps", "-a")
    assert task_id[:12] not in gone.out
    assert task_id[:12] in kept.out
    ended = await cli.run("describe", task_id)
    assert "STOPPED, exit code 0" in ended.out
    assert "enough (UserInitiated)" in ended.out


async def test_health_and_restarts_are_listed_described_and_explained(
    control_plane: ControlPlane, simulated_agent: SimulatedAgent, tmp_path: Path
) -> None:
    moments = {"createdAt": None, "startedAt": "2026-11-21T10:00:00+00:00"}
    ended = {**moments, "finishedAt": "2026-11-21T10:00:09+00:00", "exitCode": 5}
    health = {
        "status": "UNHEALTHY",
        "since": "2026-11-21T10:00:30+00:00",
        "failingStreak": 3,
        "exitCode": 1,
        "output": "connection refused",
    }
    known = {"name": "app", "restartCount": 2, "runs": [ended], "health": health}
    file = tmp_path / "task.json"
    document = definition()
    document["containerDefinitions"][1] |= {
        "healthCheck": {"command": ["CMD", "true"]},
        "restartPolicy": {"enabled": True},
    }
    file.write_text(json.dumps(document))
    cli = cli_for(control_plane, tmp_path / "agent.sock")
    ran = await cli.run("run", str(file))
    assert ran.code == 0, ran.err
    arn = ran.out.strip()
    await simulated_agent.bring_up(await simulated_agent.take())
    task = (await cli.run("describe", arn, "--output", "json")).document["taskArn"]
    await simulated_agent.report(task, healthStatus="UNKNOWN", restartCount=2)
    await simulated_agent.report_health(task, "UNHEALTHY")

    elsewhere = await cli.run("describe", task)
    listed = await cli.run("ps")
    async with LocalSocket(tmp_path / "agent.sock", containers=[known]).serve():
        described = await cli.run("describe", task)
        why = await cli.run("why", task)
        parsed = (await cli.run("describe", task, "--output", "json")).document

    assert "restarts      2\n" in elsewhere.out
    assert "last check" not in elsewhere.out
    assert listed.out.splitlines()[1].split()[2:4] == ["RUNNING", "UNHEALTHY"]
    assert "3 checks in a row failed with exit code 1\n" in described.out
    assert "last check    connection refused\n" in described.out
    assert ", 9 s, exit code 5\n" in described.out
    assert why.out.startswith("The health check of container app fails: 3 checks in a row failed")
    assert parsed["containers"][1]["health"]["since"] == "2026-11-21T10:00:30Z"


async def test_why_knows_from_the_definition_which_containers_are_essential(
    cli: Cli, simulated_agent: SimulatedAgent, tmp_path: Path
) -> None:
    file, document = tmp_path / "task.json", definition()
    side, app = document["containerDefinitions"]
    side["essential"], app["essential"] = True, False
    app["healthCheck"] = {"command": ["CMD", "true"]}
    file.write_text(json.dumps(document))
    task = (await cli.run("run", str(file))).out.strip()
    await simulated_agent.bring_up(await simulated_agent.take())
    await simulated_agent.report_health(task, "UNHEALTHY")

    why = await cli.run("why", task)

    assert "It isn't essential: the task goes on" in why.out


@pytest.mark.usefixtures("obedient_agent")
async def test_answers_are_json_documents(cli: Cli, file: str) -> None:
    ran = await cli.run("run", file, "--count", "2", "--output", "json")
    arns = [task["taskArn"] for task in ran.document["tasks"]]
    assert len(arns) == 2
    assert ran.document["failures"] == []

    described = await cli.run("describe", arns[0], "--output", "json")
    stopped = await cli.run("stop", arns[0], "--output", "json")

    assert described.document["taskArn"] == arns[0]
    assert described.document["createdAt"].endswith("Z")
    assert stopped.document["desiredStatus"] == "STOPPED"


@pytest.mark.usefixtures("obedient_agent")
async def test_run_hands_on_overrides_and_reads_stdin(cli: Cli) -> None:
    ran = await cli.run(
        "run",
        "-",
        "--override",
        "app.environment.A=1",
        "--override",
        'app.command=["true"]',
        "--override",
        "memory=1024",
        "--output",
        "json",
        stdin=json.dumps(definition()),
    )

    (task,) = ran.document["tasks"]
    overrides = {o["name"]: o for o in task["overrides"]["containerOverrides"]}
    assert overrides["app"]["command"] == ["true"]
    assert overrides["app"]["environment"] == [{"name": "A", "value": "1"}]
    assert task["memory"] == "1024"


@pytest.mark.usefixtures("obedient_agent")
async def test_prefix_that_several_tasks_share_is_refused_with_their_ids(
    cli: Cli, file: str
) -> None:
    ids: dict[str, str] = {}
    while True:  # among 17 ids two begin with the same digit
        ran = await cli.run("run", file, "--count", "9", "--output", "json")
        for task in ran.document["tasks"]:
            task_id = task["taskArn"].rpartition("/")[2]
            if task_id[0] in ids:
                break
            ids[task_id[0]] = task_id
        else:
            continue
        break

    refused = await cli.run("describe", task_id[0])

    assert refused.code == 1
    assert f"tasks begin with '{task_id[0]}': " in refused.err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            {"colour": "red"},
            'RegisterTaskDefinition: Unknown parameter in input: "colour"',
            id="unknown field",
        ),
        pytest.param(
            {"containerDefinitions": [{"name": "a", "image": "b", "portMappings": [{"port": 1}]}]},
            'Unknown parameter in containerDefinitions[0].portMappings[0]: "port"',
            id="unknown field deep down",
        ),
        pytest.param(
            {"cpu": 256},
            "Invalid type for parameter cpu, value: 256, type: int, valid types: str",
            id="wrong type",
        ),
        pytest.param(
            {"memory": "513"},
            "ClientException: No Fargate configuration exists for given values",
            id="no such size",
        ),
        pytest.param(
            {"networkMode": "host"},
            "ClientException: Fargate only supports network mode",
            id="network mode",
        ),
    ],
)
async def test_definition_that_is_refused_is_named_with_its_field(
    cli: Cli, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    file = tmp_path / "task.json"
    file.write_text(json.dumps(definition(**change)))

    refused = await cli.run("run", str(file))

    assert refused.code == 1
    assert refused.err.startswith(f"fargate: {file}: RegisterTaskDefinition: ")
    assert said in refused.err
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["ps", "--cluster", "none"], "ClusterNotFoundException", id="cluster"),
        pytest.param(["describe", "f" * 32], f"no task {'f' * 32} in cluster default", id="id"),
        pytest.param(["stop", "abc"], "no task begins with 'abc' in cluster default", id="prefix"),
        pytest.param(["stop", "f" * 32], "StopTask: InvalidParameterException", id="stop"),
        pytest.param(["logs", "abc"], "no task begins with 'abc'", id="logs"),
    ],
)
async def test_what_is_not_there_is_said_in_one_line(
    cli: Cli, arguments: list[str], said: str
) -> None:
    refused = await cli.run(*arguments)

    assert refused.code == 1
    assert said in refused.err
    assert refused.err.count("\n") == 1


async def test_task_that_finds_no_capacity_is_refused(cli: Cli, file: str) -> None:
    refused = await cli.run("run", file)

    assert refused.code == 1
    assert refused.err.startswith("fargate: RunTask: ")
    assert refused.out == ""


async def test_subnet_that_is_not_there_is_named(cli: Cli, file: str) -> None:
    refused = await cli.run("run", file, "--subnet", "subnet-nowhere")

    assert refused.code == 1
    assert "subnet-nowhere" in refused.err


async def test_wrong_secret_is_refused_without_showing_it(cli: Cli) -> None:
    cli.env["AWS_SECRET_ACCESS_KEY"] = "not-the-right-secret"

    refused = await cli.run("ps")

    assert refused.code == 1
    assert "InvalidSignatureException" in refused.err
    assert "not-the-right-secret" not in refused.err


async def test_credentials_that_are_missing_are_asked_for(cli: Cli, tmp_path: Path) -> None:
    del cli.env["AWS_ACCESS_KEY_ID"], cli.env["AWS_SECRET_ACCESS_KEY"]
    cli.env["HOME"] = str(tmp_path)

    refused = await cli.run("ps")

    assert refused.code == 1
    assert "no key for the control plane at http://127.0.0.1:" in refused.err
