"""Containers on volumes of EFS for which a directory of the machine stands."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import EfsPlan, EfsRoot, TaskPlan
from fargate_agent.volumes.efs import EfsVolumes
from fargate_agent.volumes.mounts import list_mounts
from fargate_agent.wire.volume_kinds import VolumeKind
from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root

FS = "fs-0123456789abcdef0"
MOUNT: Any = {"mountPoints": [{"sourceVolume": "v", "containerPath": "/v", "readOnly": False}]}
VOLUME = {"name": "v", "efsVolumeConfiguration": {"fileSystemId": FS}}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory that stands for a file system; no task has a mount left."""
    (tmp_path / "nas").mkdir()
    yield tmp_path / "nas"
    assert list_mounts(tmp_path / "tasks") == []


def plan(bench: Bench, stand_in: Path | None, script: str, **changes: Any) -> TaskPlan:
    command = ["sh", "-c", f"exec 2>&1; {script}"]
    task = bench.plan({"command": command, **MOUNT}, volumes=[VOLUME])
    asked = EfsPlan(file_system_id=FS, path="/", directory=stand_in)
    return replace(task, volumes=(replace(task.volumes[0], efs=replace(asked, **changes)),))


async def run(bench: Bench, task: TaskPlan) -> str:
    return (await bench.finish(await bench.begin_planned(task))).output


async def test_next_task_finds_what_the_one_before_wrote(bench: Bench, directory: Path) -> None:
    first = plan(bench, directory, "echo kept >/v/file")
    assert await run(bench, first) == ""
    assert (directory / "file").read_text() == "kept\n"
    assert not first.directory.exists()

    assert await run(bench, plan(bench, directory, "cat /v/file")) == "kept\n"


async def test_two_tasks_have_a_file_system_at_the_same_time(bench: Bench, directory: Path) -> None:
    wait = "until [ -e /v/{0} ]; do sleep 0.1; done"
    one = plan(bench, directory, f"{wait.format('ping')}; echo >/v/pong")
    other = plan(bench, directory, f"echo >/v/ping; {wait.format('pong')}; echo seen")
    await bench.begin_planned(one)
    await bench.begin_planned(other)

    assert (await bench.finish(other)).output == "seen\n"
    assert (await bench.finish(one)).status.code == 0


async def test_access_point_is_made_with_its_owner_and_is_all_that_the_task_sees(
    bench: Bench, directory: Path
) -> None:
    (directory / "other").touch()
    root = EfsRoot(uid=1234, gid=5678, mode=0o751)
    script = "stat -c '%u %g %a' /v; touch /v/mine; ls /v /v/.."
    task = plan(bench, directory, script, path="/web/data", root=root)

    first, *listed = (await run(bench, task)).splitlines()

    assert first == "1234 5678 751"
    assert "mine" in listed
    assert "other" not in listed
    assert (directory / "web/data/mine").exists()


async def test_missing_root_directory_is_told_as_on_fargate(bench: Bench, directory: Path) -> None:
    task = plan(bench, directory, "true", path="/gone")
    with pytest.raises(ResourceInitializationError) as error:
        await bench.prepare(task)
    await bench.release(task)
    assert error.value.detail == (
        "failed to invoke EFS utils commands to set up EFS volumes: stderr: mount.nfs4: mounting "
        f"{FS}:/gone failed, reason given by server: No such file or directory : unsuccessful EFS "
        "utils command execution; code: 32"
    )


async def test_link_at_the_root_directory_leads_nowhere(bench: Bench, directory: Path) -> None:
    (directory / "etc").symlink_to("/etc")
    task = plan(bench, directory, "true", path="/etc")
    with pytest.raises(ResourceInitializationError, match="Not a directory"):
        await bench.prepare(task)
    await bench.release(task)


async def test_sweep_unmounts_what_a_killed_agent_left_and_touches_no_file(
    bench: Bench, directory: Path
) -> None:
    (directory / "file").touch()
    task, kept = plan(bench, directory, "true"), plan(bench, directory, "true")
    driver = bench.volumes[VolumeKind.EFS]
    assert isinstance(driver, EfsVolumes)
    for one in (task, kept):
        await driver.ensure(one, one.volumes[0])
        await driver.ensure(one, one.volumes[0])  # once, whoever asks again

    assert await driver.sweep({kept.id}) == [f"{task.id}/v"]

    assert list(task.volumes[0].source.iterdir()) == []
    assert (kept.volumes[0].source / "file").exists()
    await driver.release(kept, kept.volumes[0])
    assert (directory / "file").exists()


async def test_server_that_takes_no_connection_is_told(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    task = plan(bench, None, "true", server="127.0.0.1", port=port)
    driver = EfsVolumes(bench.directory / "tasks", _resolve, lambda _, *kind: socket.socket(*kind))
    with pytest.raises(ResourceInitializationError) as error:
        await driver.ensure(task, task.volumes[0])
    await driver.release(task, task.volumes[0])
    assert "mount.nfs4: Connection refused for 127.0.0.1:/ :" in error.value.detail


@pytest.mark.skipif(
    "nfs4" in Path("/proc/filesystems").read_text(), reason="this kernel has an NFS client"
)
async def test_kernel_without_an_nfs_client_is_told(bench: Bench) -> None:
    driver = EfsVolumes(bench.directory / "tasks", _resolve, lambda _, *kind: socket.socket(*kind))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        task = plan(bench, None, "true", server="127.0.0.1", port=port)
        with pytest.raises(ResourceInitializationError, match="kernel .* has no NFS client"):
            await driver.ensure(task, task.volumes[0])
    await driver.release(task, task.volumes[0])


async def test_server_without_a_name_is_told(bench: Bench) -> None:
    task = plan(bench, None, "true", server="nas.example")
    driver = EfsVolumes(bench.directory / "tasks", _resolve, lambda _, *kind: socket.socket(*kind))
    with pytest.raises(ResourceInitializationError, match='Failed to resolve "nas.example"'):
        await driver.ensure(task, task.volumes[0])
    await driver.release(task, task.volumes[0])


async def _resolve(task: TaskPlan, host: str) -> list[str]:
    raise OSError(f"lookup {host}: no such host")
