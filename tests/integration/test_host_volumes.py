"""Directories of the machine as volumes: what leads there, and what doesn't."""

import asyncio
import os
import re
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.plan import HostPaths, TaskPlan, plan_task
from fargate_agent.plan.host_paths import ALWAYS_GUARDED
from fargate_agent.volumes import host
from fargate_agent.volumes.host import HostVolumes
from fargate_agent.volumes.mounts import detach, list_mounts, make_mount
from fargate_agent.wire.volume_kinds import VolumeKind
from tests.fixtures.runtime import Bench
from tests.messages import container_json, site, task_message

pytestmark = pytest.mark.root

DEADLINE_S: Final = 30.0


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


@pytest.mark.parametrize("path", ["state", "state/tasks", "link"])
async def test_directory_that_is_guarded_has_no_other_name(
    tmp_path: Path, code: Path, path: str
) -> None:
    guarded = tmp_path / "state"
    (guarded / "tasks").mkdir(parents=True)
    (code / "state").mkdir()
    (code / "link").symlink_to("state/tasks")
    driver = HostVolumes(HostPaths(allowed=(code,), guarded=(guarded,)))
    subprocess.run(["mount", "--bind", guarded, code / "state"], check=True)
    try:
        text = await refusal(driver, plan(tmp_path, code / path))
        named = HostVolumes(HostPaths(allowed=(code, code / "state"), guarded=(guarded,)))
        task = plan(tmp_path / "named", code / path)
        await bind(named, task)
        await named.release(task, task.volumes[0])
    finally:
        subprocess.run(["umount", code / "state"], check=True)

    assert "holds a part of the system or of the agent" in text


@contextmanager
def silent_file_system(mountpoint: Path) -> Iterator[None]:
    """Mount one whose server never answers; who waits gets an error at the end."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    values = {"fd": str(device), "rootmode": "40000", "user_id": "0", "group_id": "0"}
    try:
        make_mount("fuse", "silent", values=values).place(mountpoint)
        yield
    finally:
        os.close(device)
        detach(mountpoint)


async def test_path_that_does_not_answer_holds_up_nothing_else(
    driver: HostVolumes, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "ANSWER_TIMEOUT_S", 0.1, raising=False)
    (code / "dead").mkdir()
    task = plan(tmp_path, code / "dead/code")
    threads = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(threads)

    with silent_file_system(code / "dead"):
        async with asyncio.timeout(DEADLINE_S):
            text = await refusal(driver, task)
            await asyncio.to_thread(int)

    assert f"'v': {code}/dead/code: its file system doesn't answer" in text


async def test_path_that_answers_after_the_task_was_stopped_leaves_nothing(
    driver: HostVolumes, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = threading.Event(), threading.Event()
    open_now = host._openat2

    def open_later(top: int, inside: Path) -> int:
        asked.set()
        answer.wait(DEADLINE_S)
        return open_now(top, inside)

    monkeypatch.setattr(host, "_openat2", open_later)
    (code / "slow").mkdir()
    task = plan(tmp_path, code / "slow")
    before = set(threading.enumerate())
    start = asyncio.create_task(driver.ensure(task, task.volumes[0]))
    await asyncio.to_thread(asked.wait, DEADLINE_S)

    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await driver.release(task, task.volumes[0])
    task.directory.rmdir()
    answer.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    for thread in set(threading.enumerate()) - before:
        thread.join(DEADLINE_S)

    assert not task.directory.exists()
    assert list_mounts(tmp_path) == []


async def test_each_of_two_volumes_is_released_alone(
    driver: HostVolumes, code: Path, tmp_path: Path
) -> None:
    task = plan(tmp_path, code)
    (first,) = task.volumes
    second = replace(first, source=first.source.with_name("w"))
    for volume in (first, second):
        await driver.ensure(task, volume)

    await driver.release(task, first)
    assert second.source.is_dir()
    await driver.release(task, second)

    assert list(task.directory.iterdir()) == []


async def test_directory_is_made_with_its_mode_whatever_umask_the_agent_has(
    driver: HostVolumes, code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, modes = os.mkdir, []

    def make(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        mkdir(path, mode, dir_fd=dir_fd)
        if dir_fd is not None:
            modes.append(stat.S_IMODE(os.stat(path, dir_fd=dir_fd).st_mode))

    monkeypatch.setattr(os, "mkdir", make)
    task = plan(tmp_path, code / "a" / "b")
    before = os.umask(0o077)
    try:
        await bind(driver, task)
    finally:
        after = os.umask(before)

    assert modes == [0o755, 0o755]
    assert after == 0o077
    await driver.release(task, task.volumes[0])


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
