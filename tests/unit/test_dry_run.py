import asyncio
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.dry_run import MessageError, print_steps, read_messages, render_steps
from fargate_agent.plan import Site
from fargate_agent.task.store import TaskRecord, TaskStore
from tests.messages import TASK_ID, container_json, eni_json, site, task_json, task_message

SITE: Site = site(Path("/state"))
APP = container_json(
    "app",
    dependsOn=[{"containerName": "init", "condition": "SUCCESS"}],
    stopTimeout=5,
    environment={"PASSWORD": "hush"},
)
INIT = container_json("init", essential=False)


def test_steps_are_printed_in_the_order_in_which_they_are_done_and_undone() -> None:
    assert render_steps(task_message(APP, INIT), SITE) == [
        f"task {TASK_ID}: demo:7, cluster default",
        "set up, steps of one number side by side:",
        f"  1  netns fargate-{TASK_ID}",
        f"  1  storage, lease, cgroup and files of {TASK_ID}",
        "  2  ENI eni-0123456789abcdef0 10.213.0.5/24",
        "  2  resolver of the VPC",
        "  3  metadata endpoint",
        "interfaces of the task:",
        "     eth1: eni-0123456789abcdef0, veth 02:00:00:00:00:05, 10.213.0.5/24 via 10.213.0.1",
        "pull through the first ENI, side by side:",
        "     app:1",
        "     init:1",
        "create and start each container when its dependencies allow:",
        "     init, not essential, image init:1, log driver json-file",
        "     app, essential, image app:1, log driver json-file, after init (SUCCESS)",
        "take down, when an essential container ends or a stop comes:",
        "     app (at most 45 s)",
        "     init, after app (at most 70 s)",
        "  1  metadata endpoint (at most 30 s)",
        "  2  ENI eni-0123456789abcdef0 10.213.0.5/24 (at most 30 s)",
        "  2  resolver of the VPC (at most 30 s)",
        f"  3  netns fargate-{TASK_ID} (at most 30 s)",
        f"  3  storage, lease, cgroup and files of {TASK_ID} (at most 30 s)",
    ]


def test_ipv6_address_of_an_eni_is_printed() -> None:
    eni = eni_json(ipv6Addresses=[{"address": "fd00::5"}], subnetGatewayIpv6Address="fd00::1/64")

    lines = render_steps(task_message(elasticNetworkInterfaces=[eni]), SITE)

    assert any(line.endswith(", fd00::5/64 via fd00::1") for line in lines)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(task_json(), id="task"),
        pytest.param(
            {"type": "PayloadMessage", "message": {"tasks": [task_json()]}}, id="envelope"
        ),
        pytest.param({"tasks": [task_json()]}, id="payload"),
    ],
)
def test_message_is_found_in(document: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "message.json"
    file.write_text(json.dumps(document))

    assert read_messages(file) == [task_message()]


def test_message_is_found_in_the_record_of_an_agent(tmp_path: Path) -> None:
    record = TaskRecord(message=task_message(), boot_id="1")
    asyncio.run(TaskStore(tmp_path).write(TASK_ID, record))

    assert read_messages(tmp_path / f"{TASK_ID}.json") == [task_message()]


def test_message_is_read_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(json.dumps(task_json()).encode()))
    monkeypatch.setattr("sys.stdin", stdin)

    print_steps(Path("-"), SITE)

    assert capsys.readouterr().out.startswith(f"task {TASK_ID}: demo:7")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "m.json is not JSON: ", id="empty"),
        pytest.param("\xff", "m.json is not JSON: ", id="not-utf-8"),
        pytest.param("[]", "m.json holds no task message", id="list"),
        pytest.param('{"tasks": []}', "m.json holds no task message", id="no-task"),
        pytest.param('{"tasks": ["hush"]}', "m.json: ", id="task-is-text"),
        pytest.param('{"arn": "hush"}', "m.json: arn: ", id="wrong-members"),
    ],
)
def test_file_that_holds_no_message_is_named_and_its_values_are_not(
    text: str, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "m.json"
    file.write_bytes(text.encode("latin-1"))

    with pytest.raises(MessageError) as refusal:
        read_messages(file)

    assert expected in str(refusal.value)


def test_task_that_the_agent_refuses_has_the_reason_that_the_agent_gives() -> None:
    with pytest.raises(MessageError, match="^ResourceInitializationError: the task has no netw"):
        render_steps(task_message(elasticNetworkInterfaces=[]), SITE)


def test_command_needs_no_key_and_ends_with_65_for_a_file_that_is_absent(tmp_path: Path) -> None:
    file = tmp_path / "message.json"
    file.write_text(json.dumps(task_json(APP, INIT)))
    command = [sys.executable, "-m", "fargate_agent", "--config", "/dev/null", "plan"]

    done = subprocess.run([*command, file], capture_output=True, text=True, check=True)
    absent = subprocess.run([*command, "/absent"], capture_output=True, text=True, check=False)

    assert "app (at most 45 s)" in done.stdout
    assert "hush" not in done.stdout
    assert absent.returncode == os.EX_DATAERR
    assert absent.stderr == "fargate-agent: /absent: No such file or directory\n"
