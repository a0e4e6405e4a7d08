"""Directories that stand for EFS on a machine whose mounts are shared, as systemd has them.

What an operator mounts or unmounts there is the operator's, whatever tasks begin and end.
"""

import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.plan import EfsPlan, TaskPlan, plan_task
from fargate_agent.volumes import efs as module
from fargate_agent.volumes.efs import EfsVolumes
from fargate_agent.volumes.ephemeral import _sweep
from fargate_agent.volumes.mounts import bind, list_mounts, unmount
from tests.messages import container_json, site, task_arn, task_message

pytestmark = pytest.mark.root

FS = "fs-0123456789abcdef0"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Path]:
    """A file system whose mounts are shared, with the operator's directories and the agent's."""
    path = tmp_path / "machine"
    path.mkdir()
    mount(path)
    try:
        subprocess.run(["mount", "--make-shared", path], check=True)
        (path / "srv" / "media" / "disk").mkdir(parents=True)
        yield path
        assert list_mounts(path / "tasks") == []
    finally:
        for one in list_mounts(path):
            unmount(one.mountpoint)
        unmount(path)


@pytest.fixture
def media(machine: Path) -> Path:
    return machine / "srv" / "media"


@pytest.fixture
def driver(machine: Path) -> EfsVolumes:
    async def resolve(_: TaskPlan, host: str) -> list[str]:
        raise OSError(f"lookup {host}: no such host")

    return EfsVolumes(machine / "tasks", resolve, lambda *_: pytest.fail("there is no server"))


def mount(path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path], check=True)


def bind_as_older_agents(descriptor: int, mountpoint: Path) -> None:
    """Bind into the peer group of what is shown."""
    source = f"/proc/{os.getpid()}/fd/{descriptor}"
    subprocess.run(["mount", "--no-canonicalize", "--bind", source, mountpoint], check=True)


def plan(machine: Path) -> TaskPlan:
    message = task_message(
        container_json(),
        arn=task_arn(uuid.uuid4().hex),
        volumes=[{"name": "v", "efsVolumeConfiguration": {"fileSystemId": FS}}],
    )
    task = plan_task(message, site(machine))
    task.directory.mkdir(parents=True)
    asked = EfsPlan(file_system_id=FS, path="/", directory=machine / "srv" / "media")
    return replace(task, volumes=(replace(task.volumes[0], efs=asked),))


def mounts_of(path: Path) -> list[Path]:
    return sorted(one.mountpoint for one in list_mounts(path))


@pytest.mark.parametrize("place", ["", "disk"], ids=["at it", "below it"])
async def test_disk_that_is_mounted_while_a_task_runs_stays_when_it_ends(
    machine: Path, media: Path, driver: EfsVolumes, place: str
) -> None:
    task = plan(machine)
    (volume,) = task.volumes
    await driver.ensure(task, volume)

    mount(media / place)

    assert mounts_of(machine / "tasks") == [volume.source]
    await driver.release(task, volume)
    assert mounts_of(media.parent) == [media / place]


async def test_disk_that_is_unmounted_while_a_task_runs_stays_for_the_task_alone(
    machine: Path, media: Path, driver: EfsVolumes
) -> None:
    mount(media)
    (media / "file").touch()
    task = plan(machine)
    (volume,) = task.volumes
    await driver.ensure(task, volume)

    subprocess.run(["umount", media], check=True)

    assert (volume.source / "file").exists()
    await driver.release(task, volume)


@pytest.mark.parametrize("end", ["release", "sweep", "sweep of all mounts"])
async def test_disk_stays_when_what_an_older_agent_bound_is_taken_away(
    machine: Path, media: Path, driver: EfsVolumes, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    task = plan(machine)
    (volume,) = task.volumes
    with monkeypatch.context() as patched:
        patched.setattr(module, "bind", bind_as_older_agents)
        await driver.ensure(task, volume)
    mount(media / "disk")
    assert mounts_of(machine / "tasks") == [volume.source, volume.source / "disk"]

    if end == "release":
        await driver.release(task, volume)
    elif end == "sweep":
        assert await driver.sweep(()) == [f"{task.id}/v"]
    else:
        _sweep(machine / "tasks", ())

    assert mounts_of(machine / "tasks") == []
    assert mounts_of(media) == [media / "disk"]


@pytest.mark.parametrize("is_recursive", [False, True])
def test_bind_shows_what_is_mounted_below_if_it_is_asked_to(
    machine: Path, media: Path, is_recursive: bool
) -> None:
    mount(media / "disk")
    (media / "disk" / "file").touch()
    place = machine / "tasks" / "a"
    place.mkdir(parents=True)
    descriptor = os.open(media, os.O_PATH | os.O_CLOEXEC)
    bind(descriptor, place, is_recursive=is_recursive)
    os.close(descriptor)

    assert (place / "disk" / "file").exists() == is_recursive
    mount(media / "disk" / ".")  # one more, which only the operator sees
    assert len(mounts_of(place)) == int(is_recursive)
    unmount(place)
    assert mounts_of(media) == [media / "disk"] * 2


def test_bind_shows_a_file(machine: Path, media: Path) -> None:
    (media / "file").write_text("text")
    (machine / "tasks").mkdir()
    (machine / "tasks" / "a").touch()
    descriptor = os.open(media / "file", os.O_PATH | os.O_CLOEXEC)
    bind(descriptor, machine / "tasks" / "a")
    os.close(descriptor)

    assert (machine / "tasks" / "a").read_text() == "text"
    unmount(machine / "tasks" / "a")


@pytest.mark.parametrize("end", ["release", "sweep"])
async def test_nobody_is_interrupted_who_has_the_directory_s_server_mounted_as_well(
    machine: Path, media: Path, driver: EfsVolumes, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """The directory is on a mount of NFS of the operator's, for which a tmpfs stands here."""
    mount(media)
    monkeypatch.setattr(module, "NFS", "tmpfs")
    for force in ("unmount_nfs", "abort_requests"):
        monkeypatch.setattr(module, force, lambda *_, **__: pytest.fail("requests are aborted"))
    task = plan(machine)
    (volume,) = task.volumes
    await driver.ensure(task, volume)
    await driver.ensure(task, volume)

    await driver.interrupt(task, volume)
    await (driver.release(task, volume) if end == "release" else driver.sweep(()))

    assert mounts_of(media.parent) == [media]
