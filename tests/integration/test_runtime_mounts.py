"""Where volumes, tmpfs and shared memory are mounted, seen from inside."""

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root

VOLUMES = {"volumes": [{"name": "v"}, {"name": "w"}]}


def point(path: str, volume: str = "v", **more: Any) -> dict[str, Any]:
    return {"sourceVolume": volume, "containerPath": path, **more}


async def test_shared_memory_has_the_size_that_the_definition_says(bench: Bench) -> None:
    finished = await bench.run(
        "busybox df -k /dev/shm | busybox tail -1; dd if=/dev/zero of=/dev/shm/x bs=1M count=9",
        linuxParameters={"sharedMemorySize": 8},
    )

    assert finished.output.split()[1] == "8192"
    assert "No space left on device" in finished.output


async def test_tmpfs_is_writable_by_its_owner_in_a_read_only_root_and_holds_its_size(
    bench: Bench,
) -> None:
    tmpfs = {"containerPath": "/cache/", "size": 2, "mountOptions": ["uid=1000", "mode=700"]}
    finished = await bench.run(
        "echo mine >/cache/file && cat /cache/file; echo >/file;"
        " dd if=/dev/zero of=/cache/x bs=1M count=3; busybox stat -c %s /cache/x",
        user="web",
        readonlyRootFilesystem=True,
        linuxParameters={"tmpfs": [tmpfs]},
    )

    assert finished.output.startswith("mine\n")
    assert "can't create /file: Read-only file system" in finished.output
    assert "No space left on device" in finished.output
    assert int(finished.output.split()[-1]) < 2 << 20


async def test_mount_below_another_one_is_seen_whatever_the_order(bench: Bench) -> None:
    finished = await bench.run(
        "echo v >/data/file; echo w >/data/sub/file; cat /data/file /data/sub/file;"
        " busybox grep -c ' /data' /proc/self/mountinfo; busybox grep /data/t /proc/self/mounts",
        VOLUMES,
        mountPoints=[point("/data/sub", "w"), point("/data")],
        linuxParameters={"tmpfs": [{"containerPath": "/data/t", "size": 1}]},
    )

    assert finished.output.startswith("v\nw\n3\ntmpfs /data/t tmpfs rw,nosuid,nodev,noexec")


async def test_link_at_the_mount_point_leads_to_nothing_of_the_host(
    bench: Bench, tmp_path: Path
) -> None:
    host = tmp_path / "host"
    host.mkdir()

    def fill(upper: Path, _: int) -> None:
        (upper / "data").symlink_to(host)
        (upper / "up").symlink_to("../../../../../../../../srv")

    await bench.stack(1, fill)
    finished = await bench.run(
        "touch /data/file /up/file2; ls /data /srv",
        VOLUMES,
        mountPoints=[point("/data"), point("/up", "w")],
    )

    assert finished.output == "/data:\nfile\n\n/srv:\nfile2\n"
    assert list(host.iterdir()) == []
    assert not Path("/srv/file2").exists()


async def test_volume_at_a_file_of_the_image_is_refused_by_name(bench: Bench) -> None:
    task = bench.plan({"mountPoints": [point("/etc/passwd")]}, **VOLUMES)
    await bench.prepare(task)

    with pytest.raises(Exception, match="/etc/passwd.*not a directory") as error:
        await bench.create(task)

    assert str(bench.directory) not in str(error.value)


async def test_device_on_a_volume_is_of_no_use(bench: Bench) -> None:
    finished = await bench.run(
        "busybox mknod /data/null c 1 3; echo >/data/null; busybox grep ' /data ' /proc/mounts",
        VOLUMES,
        mountPoints=[point("/data")],
    )

    assert "can't create /data/null: Permission denied" in finished.output
    assert "nodev" in finished.output.rpartition(" /data ")[2]


async def test_mounts_that_are_taken_over_are_as_read_only_as_the_definition_says(
    bench: Bench,
) -> None:
    script = ["sh", "-c", "exec 2>&1; echo x >/a/file; echo x >/b/file; ls /a /b"]
    first = {"name": "first", "mountPoints": [point("/a"), point("/b", "w", readOnly=True)]}
    second = {
        "name": "second",
        "command": script,
        "volumesFrom": [{"sourceContainer": "first"}],
        "dependsOn": [],
    }
    task = bench.plan(first, second, **VOLUMES)
    await bench.prepare(task)
    container = task.containers[1]

    await bench.runtime.start(task, await bench.create(task, container))
    await bench.runtime.wait(container)

    output = bench.output_file(container).read_text()
    assert output.startswith("sh: can't create /b/file: Read-only file system\n/a:\nfile\n")
