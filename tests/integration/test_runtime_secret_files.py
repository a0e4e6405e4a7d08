"""Secrets and texts as files under real runC: what is seen inside, and what is left of them."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.errors import CannotCreateContainerError, ResourceInitializationError
from fargate_agent.plan import FilePlan, TaskPlan
from fargate_agent.runtime import secret_files
from fargate_agent.runtime.runc import RuncRuntime
from fargate_agent.runtime.secret_files import DIRECTORY, SIZE_MIB, remove_tmpfs
from fargate_agent.sweeping import sweep
from fargate_agent.volumes.bounded import IMAGE
from tests.fakes import fake_drivers
from tests.fixtures.machine import mountpoints
from tests.fixtures.runtime import Bench, Finished, make_runtime
from tests.fixtures.storage import make_storage
from tests.messages import site

pytestmark = pytest.mark.root

SECRET = "hush-7431"
DB = FilePlan(destination="/run/secrets/db", reference="/prod/db")
TEXT = FilePlan(destination="/run/secrets/app.conf", text="a = 1\nb = ü\n")


def plan(bench: Bench, script: str, *files: FilePlan, **changes: Any) -> TaskPlan:
    """Plan a task of one container with these files."""
    task = bench.plan({"command": ["sh", "-c", f"exec 2>&1; {script}"], **changes})
    contents = {one.destination: SECRET.encode() for one in files if one.reference is not None}
    (container,) = task.containers
    return replace(task, containers=(replace(container, files=files, file_contents=contents),))


async def run(bench: Bench, script: str, *files: FilePlan, **changes: Any) -> Finished:
    return await bench.finish(await bench.begin_planned(plan(bench, script, *files, **changes)))


def tmpfs_of(task: TaskPlan) -> Path:
    return task.directory / DIRECTORY


@pytest.fixture
async def successor(bench: Bench) -> AsyncIterator[RuncRuntime]:
    """The runtime of an agent that starts later."""
    async with Containerd(bench.containerd.address, bench.containerd.namespace) as containerd:
        yield make_runtime(containerd, [])


@pytest.mark.parametrize("readonly", [False, True])
async def test_container_reads_its_files_and_nobody_else_reads_a_secret(
    bench: Bench, readonly: bool
) -> None:
    script = (
        "cd /run/secrets; cat db; echo; cat app.conf; stat -c '%a %u %g %n' db app.conf;"
        " ls; id -u; env"
    )

    finished = await run(
        bench, script, DB, TEXT, user="web", readonlyRootFilesystem=readonly, cpu=64
    )

    output, _, environment = finished.output.partition("\n1000\n")
    assert output.splitlines() == [
        SECRET,
        "a = 1",
        "b = ü",
        "400 1000 1001 db",
        "444 0 0 app.conf",
        "app.conf",
        "db",
    ]
    assert SECRET not in environment


async def test_another_user_of_the_container_reads_texts_alone(bench: Bench) -> None:
    script = "su web -c 'cat /run/secrets/db; cat /run/secrets/app.conf'"

    finished = await run(bench, script, DB, TEXT)

    assert SECRET not in finished.output
    assert "Permission denied" in finished.output
    assert "a = 1\n" in finished.output


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param("echo x >$f", id="write"),
        pytest.param("rm -f $f", id="remove"),
        pytest.param("chmod 777 $f", id="chmod"),
        pytest.param("mv $f /tmp/x", id="move"),
        pytest.param("sh -c 'mount -o remount,rw $0' $f", id="remount"),
        pytest.param("$f", id="run"),
    ],
)
async def test_nothing_in_the_container_changes_a_file(bench: Bench, attempt: str) -> None:
    script = f"f=/run/secrets/db; mkdir -p /tmp; {attempt} && echo done; cat $f"

    finished = await run(bench, script, DB)

    assert "done" not in finished.output
    assert finished.output.endswith(SECRET)


async def test_mount_has_every_flag_that_it_should(bench: Bench) -> None:
    finished = await run(bench, "grep /run/secrets /proc/self/mountinfo; mount", DB)

    mine = next(line for line in finished.output.splitlines() if " /run/secrets/db " in line)
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mine.split(" ")[5].split(","))
    assert mine.split(" - ")[1].split()[0] == "tmpfs"
    assert f"size={SIZE_MIB << 10}k" in mine


async def test_file_lies_in_a_tmpfs_and_beside_what_the_image_has(bench: Bench) -> None:
    files = (
        FilePlan(destination="/tmp/in/a", text="first"),
        FilePlan(destination="/etc/group", text="mine:x:7:\n"),
        FilePlan(destination="/new/deep/er/b", text="second"),
    )
    script = "cat /tmp/in/a /etc/group /new/deep/er/b; stat -c '%a %u %n' /new /new/deep; ls /etc"

    finished = await run(
        bench,
        script,
        *files,
        linuxParameters={"tmpfs": [{"containerPath": "/tmp/in", "size": 1}]},
    )

    assert finished.output.startswith("firstmine:x:7:\nsecond755 0 /new\n755 0 /new/deep\n")
    assert "passwd" in finished.output


async def test_path_that_is_a_directory_of_the_image_is_named(bench: Bench) -> None:
    task = plan(bench, "true", FilePlan(destination="/etc", text="x"))
    await bench.prepare(task)

    with pytest.raises(CannotCreateContainerError, match="/etc"):
        await bench.create(task)


async def test_root_alone_gets_to_them_on_the_host_and_nothing_is_on_the_disk(
    bench: Bench,
) -> None:
    task = await bench.begin_planned(plan(bench, "sleep 60", DB, stopTimeout=0))
    tmpfs = tmpfs_of(task)

    assert os.path.ismount(tmpfs)
    assert (tmpfs.stat().st_mode & 0o777, tmpfs.stat().st_uid) == (0o700, 0)
    below = {entry.name for entry in tmpfs.iterdir()}
    await bench.runtime.stop(task.containers[0])
    await bench.release(task)

    assert below == {"web"}
    assert await bench.traces(task) == []
    assert not any(str(task.directory) in point for point in mountpoints())


async def test_value_is_in_no_record_of_containerd_and_no_file_of_the_bench(bench: Bench) -> None:
    task = await bench.begin_planned(plan(bench, "sleep 60", DB, stopTimeout=0))
    (container,) = task.containers

    record = await bench.containerd.containers.get(container.id)
    written = [
        path
        for path in task.directory.rglob("*")
        if path.is_file() and not path.is_relative_to(tmpfs_of(task)) and path.name != IMAGE
    ]

    assert written
    assert SECRET.encode() not in record.spec
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


async def test_restarted_container_still_has_them(bench: Bench) -> None:
    task = await bench.begin_planned(plan(bench, "cat /run/secrets/db; echo", DB))
    (container,) = task.containers
    await bench.runtime.wait(container)
    bare = replace(container, file_contents={})

    await bench.runtime.restart(task, bare, bench.log_uri(container))
    await bench.runtime.start(task, bare)
    finished = await bench.finish(task)

    assert finished.output == f"{SECRET}\n" * 2


async def test_next_agent_leaves_the_files_of_a_task_that_runs(
    bench: Bench, successor: RuncRuntime
) -> None:
    script = "trap 'cat /run/secrets/db; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
    task = await bench.begin_planned(plan(bench, script, DB))
    await bench.wait_for_output(task, "ready")
    (container,) = task.containers
    inode = (tmpfs_of(task) / "web" / "0").stat().st_ino

    await successor.prepare(replace(task, containers=(replace(container, file_contents={}),)))
    await sweep(replace(fake_drivers().all, runtime=successor), site(bench.directory), {task.id})

    assert (tmpfs_of(task) / "web" / "0").stat().st_ino == inode
    await successor.stop(container)
    assert bench.output_file(container).read_text() == f"ready\n{SECRET}"


@pytest.mark.parametrize("got_to", ["prepare", "create", "start"])
async def test_sweep_takes_back_what_an_agent_left_that_was_killed(
    bench: Bench, successor: RuncRuntime, got_to: str
) -> None:
    task = plan(bench, "sleep 60", DB, stopTimeout=0)
    await bench.prepare(task)
    if got_to != "prepare":
        container = await bench.create(task)
        if got_to == "start":
            await bench.runtime.start(task, container)

    drivers = replace(fake_drivers().all, runtime=successor, storage=make_storage(bench.directory))
    await sweep(drivers, site(bench.directory), set())

    assert await bench.traces(task) == []
    assert not any(str(task.directory) in point for point in mountpoints())


async def test_next_agent_makes_the_container_of_which_the_files_are_there(
    bench: Bench, successor: RuncRuntime
) -> None:
    task = plan(bench, "cat /run/secrets/db", DB)
    (container,) = task.containers
    await bench.prepare(task)
    directory = tmpfs_of(task) / container.name
    directory.mkdir()
    (directory / "0").write_text("old, half")
    (directory / ".0.abc").write_text("a draft that was cut off")

    await successor.prepare(task)
    await successor.create(task, container, bench.image(), bench.log_uri(container))
    await successor.start(task, container)

    assert (await bench.finish(task)).output == SECRET


async def test_what_is_lost_with_a_reboot_is_released_all_the_same(bench: Bench) -> None:
    task = plan(bench, "true", DB)
    await bench.prepare(task)
    remove_tmpfs(task.directory)

    with pytest.raises(CannotCreateContainerError, match="tmpfs for them is not mounted"):
        await bench.create(task)
    await bench.runtime.stop(task.containers[0])
    await bench.release(task)

    assert await bench.traces(task) == []


async def test_tmpfs_that_another_program_keeps_holds_nothing_any_more(bench: Bench) -> None:
    task = await bench.begin_planned(plan(bench, "sleep 60", DB, stopTimeout=0))
    keeper = await asyncio.create_subprocess_exec("sleep", "60", cwd=tmpfs_of(task))
    kept = Path(f"/proc/{keeper.pid}/cwd")
    assert (kept / "web" / "0").read_text() == SECRET
    try:
        await bench.runtime.stop(task.containers[0])
        await bench.release(task)

        assert os.listdir(kept) == []  # noqa: PTH208 - the link leads nowhere that has a name
    finally:
        keeper.kill()
        await keeper.wait()


async def test_task_without_files_has_no_tmpfs(bench: Bench) -> None:
    task = await bench.begin("true")
    tmpfs = tmpfs_of(task)

    assert not tmpfs.exists()
    await bench.finish(task)


async def test_task_is_refused_where_no_tmpfs_can_be_mounted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses: a size that is none."""
    task = plan(bench, "true", DB)
    monkeypatch.setattr(secret_files, "SIZE_MIB", "none")

    with pytest.raises(ResourceInitializationError) as refused:
        await bench.prepare(task)

    assert refused.value.detail == (
        "unable to mount a tmpfs for the files that labels of a container ask for: Invalid argument"
    )


async def test_kernel_that_can_keep_pages_from_swap_does(bench: Bench) -> None:
    task = plan(bench, "true", DB)
    await bench.prepare(task)
    line = next(
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if f" {tmpfs_of(task)} " in line
    )
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])

    assert ("noswap" in line) is ((major, minor) >= (6, 4))
