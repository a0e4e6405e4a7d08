"""A disk without space: nothing new begins, and what is there can be stopped."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.agents import SimulatedAgent, at_work
from tests.fixtures.controlplane import ControlPlane, StartControlPlane
from tests.fixtures.ecs import FARGATE, create_service, describe_task, kind_of, run, running

CLUSTER = "arn:aws:ecs:us-east-1:000000000000:cluster/default"

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one, with room for the database and its reserve."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=0700", "none", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def database() -> None:
    """That of PostgreSQL is on another machine's disk."""


@pytest.fixture
def state_dir(disk: Path) -> Path:
    return disk / "state"


@pytest.fixture
async def plane(start_control_plane: StartControlPlane, state_dir: Path) -> ControlPlane:
    plane = await asyncio.to_thread(start_control_plane)
    await asyncio.to_thread(plane.client().register_task_definition, **FARGATE)
    async with asyncio.timeout(15):
        while not (state_dir / "state.db.reserve").exists():
            await asyncio.sleep(0.02)
    return plane


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def write_until_refused(ecs: Any) -> None:
    """Take what room SQLite's log of changes still has."""
    for number in range(2000):
        tag = {"key": f"k{number % 40}", "value": "x" * 250}
        ecs.tag_resource(resourceArn=CLUSTER, tags=[tag])


async def fill_for_good(disk: Path, ecs: Any) -> None:
    fill(disk)
    with pytest.raises(ClientError) as refusal:
        await asyncio.to_thread(write_until_refused, ecs)
    assert kind_of(refusal) == "ServerException"


async def test_task_is_stopped_on_a_full_disk_and_no_other_begins(
    plane: ControlPlane, disk: Path
) -> None:
    ecs = plane.client()
    async with SimulatedAgent(plane) as agent:
        made = (await asyncio.to_thread(run, ecs))["tasks"][0]["taskArn"]
        await agent.bring_up(await agent.take())
        await fill_for_good(disk, ecs)

        with pytest.raises(ClientError) as refusal:
            await asyncio.to_thread(run, ecs)
        await asyncio.to_thread(ecs.stop_task, task=made)
        await agent.bring_down(await agent.take(), exit_code=0)
        ended = await asyncio.to_thread(describe_task, ecs, made)

    assert kind_of(refusal) == "ServerException"
    assert (ended["lastStatus"], ended["stopCode"]) == ("STOPPED", "UserInitiated")


async def test_service_is_deleted_on_a_full_disk(plane: ControlPlane, disk: Path) -> None:
    ecs = plane.client()
    async with SimulatedAgent(plane) as agent, at_work(agent):
        await asyncio.to_thread(create_service, ecs)
        while (
            len([t for t in await asyncio.to_thread(running, ecs) if t["lastStatus"] == "RUNNING"])
            < 2
        ):
            await asyncio.sleep(0.05)
        await fill_for_good(disk, ecs)

        await asyncio.to_thread(ecs.delete_service, service="web", force=True)
        while await asyncio.to_thread(running, ecs):
            await asyncio.sleep(0.05)


async def test_agent_that_comes_back_on_a_full_disk_is_told_what_to_stop(
    plane: ControlPlane, disk: Path
) -> None:
    ecs = plane.client()
    agent = SimulatedAgent(plane)
    async with agent:
        made = (await asyncio.to_thread(run, ecs))["tasks"][0]["taskArn"]
        await agent.bring_up(await agent.take())
    await fill_for_good(disk, ecs)
    again = SimulatedAgent(plane)
    again.instance_arn = agent.instance_arn
    async with again:
        await asyncio.to_thread(ecs.stop_task, task=made)
        task = await again.take()

    assert (task["arn"], task["desiredStatus"]) == (made, "STOPPED")
