"""A definition with a volume of EFS, on a machine without AWS: from the API to the files."""

import pytest

from tests.fixtures.registry import FakeRegistry
from tests.fixtures.stack import Stack, tool

pytestmark = [pytest.mark.e2e, pytest.mark.root]

FS = "fs-0123456789abcdef0"
POINT = "fsap-0123456789abcdef0"
VOLUME = {
    "name": "shared",
    "efsVolumeConfiguration": {
        "fileSystemId": FS,
        "transitEncryption": "ENABLED",
        "authorizationConfig": {"accessPointId": POINT, "iam": "ENABLED"},
    },
}
MOUNT = [{"sourceVolume": "shared", "containerPath": "/shared"}]


async def test_next_task_finds_the_files_of_the_one_before(
    stack: Stack, registry: FakeRegistry
) -> None:
    write = tool("main", "echo kept >/shared/file", mountPoints=MOUNT)
    first = stack.run(write, volumes=[VOLUME])
    await stack.wait_for(first, "STOPPED")
    assert stack.leftovers(first) == []

    read = tool("main", "cat /shared/file", mountPoints=MOUNT)
    second = stack.run(read, volumes=[VOLUME])
    await stack.wait_for(second, "STOPPED")

    assert await stack.logs(second) == ["main: kept"]
    assert stack.leftovers(second) == []
    kept = stack.root / "agent/efs" / FS / POINT / "file"
    assert kept.read_text() == "kept\n"
