"""Directories of the machine as volumes: what leads there, and what doesn't."""

import os
import re
import stat
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import HostPaths, TaskPlan, plan_task
from fargate_agent.plan.host_paths import ALWAYS_GUARDED
from fargate_agent.volumes.host import HostVolumes
from fargate_agent.volumes.mounts import list_mounts
from fargate_agent.wire.volume_kinds import VolumeKind
from tests.fixtures.runtime import Bench
from tests.messages import container_json, site, task_message

pytestmark = pytest.mark.root


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """The directory that the operator allows."""
    path = tmp_path / "srv" / "code"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def driver(code: Path) -> HostVolumes:
    return HostVolumes(HostPaths(allowed=(code,), guarded=ALWAYS_GUARDED))


def plan(tmp_path: Path, path: Path | str) -> TaskPlan:
    message = task_message(
        container_json(), volumes=[{"name": "v", "host": {"sourcePath": str(path)}}]
    )
    task = plan_task(message, site(tmp_path))
    task.directory.mkdir(parents=True, exist_ok=True)
    return task


async def bind(driver: HostVolumes, task: TaskPlan) -> Path:
    (volume,) = task.volumes
    await driver.ensure(task, volume)
    return volume.source


async def refusal(driver: HostVolumes, task: TaskPlan) -> str:
    (volume,) = task.volumes
    with pytest.raises(ResourceInitializationError) as error:
        await driver.ensure(task, volume)
    await driver.release(task, volume)
    assert list_mounts(task.directory) == []
    return error.value.reason


async def test_container_shares_a_directory_of_the_machine(bench: Bench, code: Path) -> None:
    paths = HostPaths(allowed=(code,))
    bench.volumes = {**bench.volumes, VolumeKind.HOST: HostVolumes(paths)}
    (code / "main").write_text("hot\n")
    volumes = [{"name": "v", "host": {"sourcePath": str(code)}}]

    finished = await bench.run(
        "cat /app/main; echo new >/app/made; ls /seen; echo >/seen/x",
        {"volumes": volumes},
        mountPoints=[
            {"sourceVolume": "v", "containerPath": "/app"},
            {"sourceVolume": "v", "containerPath": "/seen", "readOnly": True},
        ],
    )

    assert finished.output.startswith("hot\nmade\nmain\n")
    assert "Read-only file system" in finished.output
    assert (code / "made").read_text() == "new\n"
    assert list_mounts(bench.directory / "tasks") == []


async def test_ensure_and_release_may_be_repeated_and_nothing_of_the_machine_goes(
    driver: HostVolumes, code: Path, tmp_path: Path
) -> None:
    task = plan(tmp_path, code)
    (volume,) = task.volumes
    await driver.release(task, volume)
    (code / "kept").touch()
    for _ in range(2):
        await driver.ensure(task, volume)

    assert (volume.source / "kept").exists()
    assert len(list_mounts(task.directory)) == 1

    for _ in range(2):
        await driver.release(task, volume)
    assert list_mounts(task.directory) == []
    assert not volume.source.exists()
    assert (code / "kept").exists()


async def test_what_is_mounted_below_is_there_and_stays(
    driver: HostVolumes, code: Path, tmp_path: Path
) -> None:
    (code / "disk").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", code / "disk"], check=True)
    try:
        subprocess.run(["mount", "--make-shared", code / "disk"], check=True)
        (code / "disk" / "file").touch()
        task = plan(tmp_path, code)

        source = await bind(driver, task)

        assert (source / "disk" / "file").exists()
        await driver.release(task, task.volumes[0])
        assert (code / "disk" / "file").exists()
    finally:
        subprocess.run(["umount", code / "disk"], check=True)


async def test_directory_that_is_not_there_is_made(
    driver: HostVolumes, code: Path, tmp_path: Path
) -> None:
    task = plan(tmp_path, code / "a" / "b")

    await bind(driver, task)

    assert [stat.S_IMODE((code / name).stat().st_mode) for name in ("a", "a/b")] == [0o755, 0o755]
    await driver.release(task, task.volumes[0])


async def test_file_and_socket_are_bound_as_such(
    driver: HostVolumes, code: Path, tmp_path: Path
) -> None:
    (code / "file").write_text("text")
    task = plan(tmp_path, code / "file")

    assert (await bind(driver, task)).read_text() == "text"

    await driver.ensure(task, task.volumes[0])
    assert len(list_mounts(task.directory)) == 1
    await driver.release(task, task.volumes[0])
    assert not task.volumes[0].source.exists()


async def test_link_that_stays_inside_is_followed(
    driver: HostVolumes, code: Path, tmp_path: Path
) -> None:
    (code / "v2").mkdir()
    (code / "v2" / "here").touch()
    (code / "current").symlink_to("v2")
    task = plan(tmp_path, code / "current")

    assert (await bind(driver, task) / "here").exists()

    await driver.release(task, task.volumes[0])


@pytest.mark.parametrize(
    ("make", "path", "reason"),
    [
        pytest.param(
            lambda code: (code / "out").symlink_to("/etc"),
            "out",
            "leads out of .*code by a symbolic link",
            id="absolute link",
        ),
        pytest.param(
            lambda code: (code / "out").symlink_to("../.."),
            "out/code",
            "leads out of .*code by a symbolic link",
            id="link upwards",
        ),
        pytest.param(
            lambda code: (code / "out").symlink_to("nothing"),
            "out",
            "a symbolic link leads to nothing",
            id="dangling link",
        ),
        pytest.param(
            lambda code: (code / "out").write_text(""), "out/below", "Not a directory", id="file"
        ),
        pytest.param(
            lambda code: os.mknod(code / "out", 0o600 | stat.S_IFCHR, os.makedev(1, 3)),
            "out",
            "is a device",
            id="device",
        ),
        pytest.param(
            lambda code: None,
            "../other",
            "other is not below a path of the agent's setting host_volume_paths",
            id="elsewhere",
        ),
    ],
)
async def test_path_that_leads_elsewhere_is_refused(
    driver: HostVolumes,
    code: Path,
    tmp_path: Path,
    make: Callable[[Path], object],
    path: str,
    reason: str,
) -> None:
    make(code)
    task = plan(tmp_path, os.path.normpath(code / path))

    text = await refusal(driver, task)

    assert "unable to mount the volume 'v': " in text
    assert re.search(reason, text), text


async def test_link_of_a_directory_that_is_allowed_leads_to_nothing_that_is_guarded(
    tmp_path: Path, code: Path
) -> None:
    guarded = tmp_path / "state"
    guarded.mkdir()
    (code / "link").symlink_to("../../state")
    driver = HostVolumes(HostPaths(allowed=(tmp_path,), guarded=(guarded,)))

    text = await refusal(driver, plan(tmp_path, code / "link"))

    assert f"{guarded} holds a part of the system or of the agent" in text


async def test_settings_that_changed_leave_a_task_its_volume(
    driver: HostVolumes, code: Path, tmp_path: Path
) -> None:
    task = plan(tmp_path, code)
    await bind(driver, task)

    await HostVolumes(HostPaths()).ensure(task, task.volumes[0])

    await driver.release(task, replace(task.volumes[0]))


async def test_path_that_an_operator_s_link_stands_for_is_allowed(
    code: Path, tmp_path: Path
) -> None:
    (tmp_path / "alias").symlink_to(code)
    (code / "sub").mkdir()
    driver = HostVolumes(HostPaths(allowed=(tmp_path / "alias",)))
    task = plan(tmp_path, tmp_path / "alias" / "sub")

    assert (await bind(driver, task)).is_dir()

    await driver.release(task, task.volumes[0])
