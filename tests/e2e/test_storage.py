"""A task has the storage that it asks for, and no more: neighbours and the agent go on."""

import asyncio
from pathlib import Path
from typing import Final

import pytest

from tests.fixtures.stack import DEADLINE_S, Stack, tool
from tests.fixtures.storage import find_loop_devices_below
from tests.fixtures.tmds import fetch

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(180)]

NO_SPACE: Final = "No space left on device"
FILL: Final = """\
exec 2>&1
df -m / | tail -n 1; df -m /data | tail -n 1
printf 'root::0:0::/:/bin/sh\\nu::1000:1000::/:/bin/sh\\n' >/etc/passwd
mkdir /suid; cat /bin/sh >/suid/su; chmod 4755 /suid/su
su u -c '/suid/su root -c "id -u"'
head -c 67108864 /dev/zero >/real; sync
fallocate -l 30G /big && echo big is there
rm -f /big; head -c 67108864 /dev/zero >/data/real; sync
fallocate -l 30G /data/big && echo big is there
dd if=/dev/zero bs=65536 count=16 >>/etc/hosts || echo hosts: failed
dd if=/dev/zero bs=65536 count=16 of=/more || echo root: failed
echo id ${ECS_CONTAINER_METADATA_URI_V4##*/}
echo full; sleep 1000
"""
"""What `fallocate` takes of a volume it doesn't take of the disk; `real` it does."""
NEIGHBOUR: Final = """\
n=0
while true; do n=$((n+1)); head -c 1048576 /dev/zero >/data/file && echo wrote $n; sleep 0.2; done
"""
DATA: Final = [{"sourceVolume": "data", "containerPath": "/data"}]


@pytest.mark.usefixtures("registry")
async def test_a_task_that_fills_its_storage_harms_nobody_else(stack: Stack) -> None:
    neighbour = stack.run(tool("main", NEIGHBOUR, mountPoints=DATA), volumes=[{"name": "data"}])
    full = stack.run(
        tool("main", FILL, mountPoints=DATA),
        volumes=[{"name": "data"}],
        ephemeralStorage={"sizeInGiB": 21},
    )
    lines = await stack.wait_for_log(full, "main: full")
    sizes = [int(line.split()[2]) for line in lines[:2]]
    assert sizes[0] == sizes[1], "the root and the volume are one"
    assert 0.97 * 21 * 1024 < sizes[0] <= 21 * 1024
    assert lines[2] == "main: 0", lines
    assert "main: big is there" not in lines
    assert sum(NO_SPACE in line for line in lines) == 4, lines
    assert {"main: hosts: failed", "main: root: failed"} <= set(lines)

    task_id = full.rpartition("/")[2]
    metadata_id = next(line.split()[2] for line in lines if line.startswith("main: id "))
    netns = stack.root / "netns" / f"fargate-{task_id}"
    use = (await fetch(netns, f"/v4/{metadata_id}/task")).json["EphemeralStorageMetrics"]
    assert use["Reserved"] == 21 * 1024
    assert use["Utilized"] > 0.97 * 21 * 1024

    count = int((await stack.logs(neighbour))[-1].split()[-1])
    await stack.wait_for_log(neighbour, f"main: wrote {count + 2}")
    assert not [line for line in await stack.logs(neighbour) if NO_SPACE in line]

    image = stack.root / "agent" / "tasks" / task_id / "storage.img"
    assert image.stat().st_blocks * 512 > 100 << 20
    stack.stop(full)
    await stack.wait_for(full, "STOPPED")
    assert stack.leftovers(full) == []
    await wait_until_gone(image.parent)
    assert stack.describe(neighbour)["lastStatus"] == "RUNNING"


async def wait_until_gone(directory: Path) -> None:
    """Return when no loop device has a file of a task."""
    async with asyncio.timeout(DEADLINE_S):
        while find_loop_devices_below(directory):
            await asyncio.sleep(0.05)
