"""Volumes of a task that aren't scratch space, from RunTask to what is left of them."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.volumes.mounts import list_mounts
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.images import build_image, busybox_files, make_layer
from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import REGISTRY, Stack, make_stack, tool
from tests.fixtures.storage import find_loop_devices_below

pytestmark = [pytest.mark.e2e, pytest.mark.root]

ROLE = "arn:aws:iam::000000000000:role/ecsInfrastructureRole"
MOUNT: dict[str, Any] = {"mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}]}
FILL = (
    "echo kept >/data/file; stat -c 'root %u %a' /data; df -k /data | tail -n 1;"
    "fallocate -l 3000000000 /data/big 2>&1; echo full $?; sleep 1000"
)


def show_volume(task: dict[str, Any]) -> tuple[str, dict[str, str]]:
    volume = task["attachments"][1]
    assert volume["type"] == "AmazonElasticBlockStorage"
    return volume["status"], {one["name"]: one["value"] for one in volume["details"]}


async def test_ebs_volume_has_its_size_and_goes_or_stays_as_the_request_says(
    stack: Stack, registry: FakeRegistry
) -> None:
    def begin(**ebs: Any) -> str:
        volume = {"name": "data", "managedEBSVolume": {"roleArn": ROLE, "sizeInGiB": 2, **ebs}}
        return stack.run(
            tool("app", FILL, **MOUNT),
            volumes=[{"name": "data", "configuredAtLaunch": True}],
            launch={"volumeConfigurations": [volume]},
        )

    gone = begin()
    kept = begin(filesystemType="ext4", terminationPolicy={"deleteOnTermination": False})
    lines = [await stack.wait_for_log(arn, "full 1") for arn in (gone, kept)]
    running = [show_volume(await stack.wait_for(arn, "RUNNING")) for arn in (gone, kept)]
    kinds = {one.filesystem for one in list_mounts(stack.root / "agent" / "tasks")}

    for arn in (gone, kept):
        stack.stop(arn)
    stopped = [show_volume(await stack.wait_for(arn, "STOPPED")) for arn in (gone, kept)]

    for written in lines:
        (about,) = [line for line in written if line.endswith("/data")]
        assert 1.8 * (1 << 20) < int(about.split()[2]) <= 2 << 20
        assert any("No space left on device" in line for line in written)
        assert "app: root 0 755" in written
    assert {"xfs", "ext4"} <= kinds
    assert [status for status, _ in running] == ["ATTACHED"] * 2
    assert [status for status, _ in stopped] == ["DELETED", "DETACHED"]
    volume_id = stopped[1][1]["volumeId"]
    assert [path.name for path in (stack.root / "agent" / "ebs").iterdir()] == [f"{volume_id}.img"]
    assert [stack.leftovers(arn) for arn in (gone, kept)] == [[], []]
    for arn in (gone, kept):
        directory = stack.root / "agent" / "tasks" / arn.rpartition("/")[2]
        assert find_loop_devices_below(directory) == []


async def test_named_volume_comes_back_for_the_next_task_and_is_shared_meanwhile(
    tmp_path: Path,
    private_containerd: PrivateContainerd,
    outside: tuple[Path, str],
    registry: FakeRegistry,
) -> None:
    relaxed = 'relaxed_clusters = ["default"]\n'
    async with make_stack(tmp_path, private_containerd, outside, plane_toml=relaxed) as stack:

        def begin(script: str) -> str:
            docker = {"scope": "shared", "autoprovision": True, "driver": "local"}
            return stack.run(
                tool("app", script, **MOUNT),
                requiresCompatibilities=["EC2"],
                volumes=[{"name": "data", "dockerVolumeConfiguration": docker}],
            )

        writer = begin("echo first >/data/file; until [ -e /data/seen ]; do sleep 0.1; done")
        reader = begin(
            "until [ -s /data/file ]; do sleep 0.1; done; cat /data/file; touch /data/seen"
        )
        for arn in (writer, reader):
            await stack.wait_for(arn, "STOPPED")
        later = begin("cat /data/file; ls /data")
        await stack.wait_for(later, "STOPPED")

        assert await stack.logs(reader) == ["app: first"]
        assert await stack.logs(later) == ["app: first", "app: file", "app: seen"]
        assert [stack.leftovers(arn) for arn in (writer, reader, later)] == [[], [], []]


def build_database() -> Any:
    """Build an image that keeps data of its user at a VOLUME, as databases do."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, kind, mode in (
            ("data", tarfile.DIRTYPE, 0o700),
            ("data/seed", tarfile.REGTYPE, 0o600),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.gid = kind, mode, 999, 998
            tar.addfile(entry, io.BytesIO())
    names = ("sh", "sleep", "cat", "stat", "ls", "touch")
    busybox = busybox_files()["bin/busybox"]
    return build_image(
        [make_layer({f"bin/{name}": busybox for name in names}), packed.getvalue()],
        run={"Env": ["PATH=/bin"], "User": "999:998", "Volumes": {"/data": {}}},
    )


async def test_image_finds_its_data_in_a_volume_and_without_one(
    stack: Stack, registry: FakeRegistry
) -> None:
    registry.add("database", "1", build_database())
    database = {
        "image": f"{REGISTRY}/database:1",
        "readonlyRootFilesystem": True,
        "essential": False,
    }
    look = "stat -c '%a %u:%g' /data /data/seed; touch /data/mine && ls /data"
    done = [{"containerName": name, "condition": "SUCCESS"} for name in ("mounted", "bare")]
    heir = {"volumesFrom": [{"sourceContainer": "bare"}], "dependsOn": done}
    arn = stack.run(
        tool("mounted", look, **database, **MOUNT),
        tool("bare", look, **database),
        tool("heir", "echo /data/*", **heir),
        volumes=[{"name": "data"}],
    )
    await stack.wait_for(arn, "STOPPED")

    lines = await stack.logs(arn)
    for name in ("mounted", "bare"):
        own = [line.removeprefix(f"{name}: ") for line in lines if line.startswith(f"{name}: ")]
        assert own == ["700 999:998", "600 999:998", "mine", "seed"]
    assert "heir: /data/mine /data/seed" in lines
    assert stack.leftovers(arn) == []
