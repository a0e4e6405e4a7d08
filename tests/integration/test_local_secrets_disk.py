"""Values that are kept on a machine without AWS, on a disk that is full."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fargate_agent.secrets.local_store import LocalSecrets, LocalSecretsError

pytestmark = pytest.mark.root


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 KiB."""
    mountpoint = tmp_path / "disk"
    mountpoint.mkdir()
    what = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mountpoint)]
    subprocess.run(what, check=True, timeout=30)
    yield mountpoint
    subprocess.run(["umount", str(mountpoint)], check=True, timeout=30)


def test_full_disk_leaves_the_old_values_and_no_draft(disk: Path) -> None:
    store = LocalSecrets(disk)
    store.put("a", "old")
    before = {path.name: path.read_bytes() for path in disk.iterdir()}

    with pytest.raises(LocalSecretsError, match="No space left on device"):
        store.put("a", secrets.token_hex(30_000))

    assert {path.name: path.read_bytes() for path in disk.iterdir()} == before
    assert store.read()["a"].value == "old"
    assert store.put("b", "fits") is False


def test_first_value_on_a_full_disk_leaves_nothing_that_stands_in_the_way(disk: Path) -> None:
    filler, store = disk / "filler", LocalSecrets(disk)
    filler.write_bytes(os.urandom(64 * 1024))

    with pytest.raises(LocalSecretsError, match="No space left on device"):
        store.put("a", "1")

    assert list(disk.iterdir()) == [filler]
    filler.unlink()
    store.put("a", "1")
    assert store.read()["a"].value == "1"
