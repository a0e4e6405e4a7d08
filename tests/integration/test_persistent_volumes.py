"""Containers on named volumes that outlive their tasks."""

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root

MOUNT: Any = {"mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}]}
VOLUME = {
    "name": "data",
    "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": True},
}
TASK: Any = {"volumes": [VOLUME]}


async def test_next_task_finds_what_the_one_before_wrote(bench: Bench) -> None:
    await bench.run("echo kept >/data/file; stat -c '%U %a' /data", TASK, **MOUNT)
    after = await bench.run("cat /data/file", TASK, **MOUNT)

    assert after.output == "kept\n"


async def test_two_tasks_have_a_volume_at_the_same_time(bench: Bench) -> None:
    first = await bench.begin(
        "until [ -e /data/ping ]; do sleep 0.1; done; echo >/data/pong", TASK, **MOUNT
    )
    second = await bench.begin(
        "echo >/data/ping; until [ -e /data/pong ]; do sleep 0.1; done", TASK, **MOUNT
    )

    ended = [await bench.finish(task) for task in (second, first)]

    assert [one.status.code for one in ended] == [0, 0]
    assert sorted(path.name for path in volume(bench).iterdir()) == ["ping", "pong"]


def volume(bench: Bench) -> Path:
    return bench.directory / "volumes" / "data"
