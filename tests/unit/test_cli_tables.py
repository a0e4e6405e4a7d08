import re
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from fargate_agent.cli.clients.shapes import Task
from fargate_agent.cli.images.store import render_images
from fargate_agent.cli.keys.commands import render_keys
from fargate_agent.cli.output import NO_LIMIT, render_age, render_pair, render_status
from fargate_agent.cli.tasks.describe import render_task
from fargate_agent.cli.tasks.ps import render_tasks

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
TASK_ID = "0123456789abcdef0123456789abcdef"


def make_task(**changes: object) -> Task:
    task: Task = {
        "taskArn": f"arn:aws:ecs:us-east-1:000000000000:task/default/{TASK_ID}",
        "taskDefinitionArn": "arn:aws:ecs:us-east-1:000000000000:task-definition/web-and-client:12",
        "lastStatus": "RUNNING",
        "desiredStatus": "RUNNING",
        "cpu": "256",
        "memory": "512",
        "createdAt": NOW - timedelta(seconds=130),
        "startedAt": NOW - timedelta(seconds=120),
        "containers": [{"name": "web", "lastStatus": "RUNNING"}, {"name": "client"}],
        "attachments": [
            {
                "type": "ElasticNetworkInterface",
                "status": "ATTACHED",
                "details": [
                    {"name": "subnetId", "value": "subnet-default"},
                    {"name": "privateIPv4Address", "value": "10.255.255.254"},
                ],
            }
        ],
    }
    return cast(Task, {**task, **changes})


def uncoloured(lines: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


def test_tasks_are_a_table_where_there_is_room() -> None:
    header, row = uncoloured(render_tasks([make_task()], 200, NOW))

    assert header.split() == ["TASK", "DEFINITION", "STATUS", "ADDRESS", "STARTED", "CONTAINERS"]
    assert re.split(r"\s{2,}", row) == [
        "0123456789ab",
        "web-and-client:12",
        "RUNNING",
        "10.255.255.254",
        "2m ago",
        "web,client",
    ]


@pytest.mark.parametrize("width", [60, 40])
def test_tasks_fit_a_narrow_terminal_and_lose_nothing(width: int) -> None:
    task = make_task(lastStatus="DEPROVISIONING")

    lines = uncoloured(render_tasks([task, task], width, NOW))

    assert max(map(len, lines)) <= width
    for told in (
        "0123456789ab",
        "web-and-client:12",
        "DEPROVISIONING",
        "10.255.255.254",
        "web,client",
    ):
        assert sum(told in line for line in lines) == 2


def test_tasks_are_listed_the_youngest_first() -> None:
    old, new = make_task(createdAt=NOW - timedelta(hours=1)), make_task()
    old["taskArn"] = old["taskArn"].replace(TASK_ID, "f" * 32)

    rows = render_tasks([old, new], NO_LIMIT, NOW)[1:]

    assert [row[:4] for row in rows] == ["0123", "ffff"]


def test_tasks_that_are_not_there_leave_the_header() -> None:
    assert len(render_tasks([], 200, NOW)) == 1


def test_task_without_an_address_has_a_dash() -> None:
    row = uncoloured(render_tasks([make_task(attachments=[], startedAt=None)], 200, NOW))[1]

    assert re.split(r"\s{2,}", row)[3:5] == ["-", "-"]


def test_exit_codes_are_listed_in_the_order_of_the_containers() -> None:
    task = make_task(containers=[{"name": "web", "exitCode": 137}, {"name": "client"}])

    header, row = uncoloured(render_tasks([task], 200, NOW, with_exits=True))
    narrow = "\n".join(uncoloured(render_tasks([task], 40, NOW, with_exits=True)))

    assert header.split()[3] == "EXIT"
    assert re.split(r"\s{2,}", row)[3] == "137,-"
    assert "exit 137,-" in narrow


def test_images_are_a_table() -> None:
    users = [
        {"taskArn": f"arn:aws:ecs:us-east-1:0:task/c/{n * 32}", "family": "web", "revision": "7"}
        for n in "ab"
    ]
    image = {
        "name": "web:1",
        "digest": f"sha256:{'a' * 64}",
        "sizeBytes": 3 << 20,
        "unpackedBytes": 5 << 20,
        "lastUsedAt": (NOW - timedelta(hours=2)).isoformat(),
        "usedBy": users,
    }
    header = re.split(r"\s{2,}", render_images([image], 200, NOW)[0])
    row = re.split(r"\s{2,}", render_images([image], 200, NOW)[1])

    assert dict(zip(header, row, strict=True)) == {
        "IMAGE": "web:1",
        "DIGEST": "sha256:aaaaaaaaaaaa",
        "SIZE": "3.0 MiB",
        "UNPACKED": "5.0 MiB",
        "LAST USED": "2h ago",
        "IN USE BY": "aaaaaaaaaaaa (web:7) +1",
    }
    narrow = render_images([image], 40, NOW)
    assert narrow[0] == "web:1"
    assert max(map(len, narrow)) <= 40


def test_images_of_an_agent_that_knows_no_uses_are_a_table() -> None:
    image = {"name": "web:1", "digest": f"sha256:{'a' * 64}", "sizeBytes": 3 << 20}

    row = render_images([image], 200, NOW)[1]

    assert row.split() == ["web:1", "sha256:aaaaaaaaaaaa", "3.0", "MiB", "-", "-", "-"]


def test_described_task_says_why_it_stopped_and_how_each_container_ended() -> None:
    task = make_task(
        lastStatus="STOPPED",
        desiredStatus="STOPPED",
        stopCode="EssentialContainerExited",
        stoppedReason="Essential container in task exited",
        containers=[
            {"name": "web", "lastStatus": "STOPPED", "exitCode": 137, "reason": "OutOfMemoryError"},
            {"name": "client", "lastStatus": "STOPPED", "exitCode": 0},
        ],
    )

    text = "\n".join(uncoloured(render_task(task, 200, NOW)))

    assert "Essential container in task exited (EssentialContainerExited)" in text
    assert "STOPPED, exit code 137" in text
    assert "OutOfMemoryError" in text
    assert "STOPPED, exit code 0" in text
    assert "0.25 vCPU, 512 MiB" in text
    assert "10.255.255.254" in text


def test_described_task_wraps_long_reasons_between_words() -> None:
    task = make_task(lastStatus="STOPPED", stoppedReason="word " * 40)

    lines = uncoloured(render_task(task, 60, NOW))

    assert all(len(line) <= 60 for line in lines if "word" in line)
    assert sum(line.count("word") for line in lines) == 40


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s ago"), (59, "59s ago"), (60, "1m ago"), (7200, "2h ago"), (90000, "1d ago")],
)
def test_age_is_told_in_its_largest_unit(seconds: int, text: str) -> None:
    assert render_age(NOW - timedelta(seconds=seconds), NOW) == text


def test_keys_are_short_lines_where_there_is_no_room() -> None:
    key = {"key": "AKIA2345", "principal": "ci", "status": "Active", "expires": None}

    assert uncoloured(render_keys([key], 30)) == [
        "AKIA2345",
        "  principal ci  status Active",
        "  expires -",
    ]


def test_reasons_can_not_change_the_screen() -> None:
    reason = "enough\x1b[2J\nof it"
    container = {"name": "web", "lastStatus": "STOPPED", "reason": f"web: {reason}"}
    task = make_task(lastStatus="STOPPED", stoppedReason=reason, containers=[container])

    described = uncoloured(render_task(task, NO_LIMIT, NOW))

    assert "reason        enough [2J of it" in described
    assert "reason        web: enough [2J of it" in described


def test_colour_takes_no_room() -> None:
    text = f"{render_status('STOPPED')}, exit code 0"

    lines = render_pair("container", text, len("container     STOPPED, exit code 0"))

    assert lines == [f"container     {text}"]


def test_text_hangs_below_itself() -> None:
    lines = render_pair("reason", "one two-three four", 28)

    assert lines == ["reason        one two-three", "              four"]


def test_blank_text_is_left_out() -> None:
    assert render_pair("started by", "  ", 28) == []
