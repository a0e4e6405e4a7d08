"""What lies on another mount is never removed."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fargate_agent.local.logs import prune_logs
from fargate_agent.trees import remove_tree

pytestmark = pytest.mark.root


@contextmanager
def mounted(*arguments: object, at: Path) -> Iterator[None]:
    at.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *map(str, arguments), str(at)], check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True, timeout=30)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A directory of the same file system, with something in it."""
    (tmp_path / "kept/directory").mkdir(parents=True)
    (tmp_path / "kept/directory/file").touch()
    return tmp_path / "kept"


@pytest.mark.parametrize("where", ["", "mount", "a/b/mount"])
def test_mount_of_the_same_file_system_is_not_entered(
    tmp_path: Path, kept: Path, where: str
) -> None:
    tree = tmp_path / "tree"
    with mounted("--bind", kept, at=tree / where):
        with pytest.raises(OSError, match=f"a mount point is not removed: '{tree / where}'"):
            remove_tree(tree)

        assert (kept / "directory/file").exists()
    remove_tree(tree)
    assert not tree.exists()


def test_file_system_of_its_own_is_not_entered(tmp_path: Path) -> None:
    with mounted("-t", "tmpfs", "none", at=tmp_path / "tree/disk"):
        (tmp_path / "tree/disk/file").touch()

        with pytest.raises(OSError, match="a mount point is not removed"):
            remove_tree(tmp_path / "tree")

        assert (tmp_path / "tree/disk/file").exists()


def test_file_that_is_a_mount_point_stays_and_is_named(tmp_path: Path, kept: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").touch()
    subprocess.run(["mount", "--bind", kept / "directory/file", tree / "file"], check=True)
    try:
        with pytest.raises(OSError, match=f"busy: '{tree}/file'"):
            remove_tree(tree)
    finally:
        subprocess.run(["umount", tree / "file"], check=True)

    assert (kept / "directory/file").exists()


async def test_logs_that_can_not_be_removed_keep_nobody_from_the_others(
    tmp_path: Path, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logs = tmp_path / "logs"
    (logs / "old").mkdir(parents=True)
    with mounted("--bind", kept, at=logs / "mounted"):
        removed = await prune_logs(logs, 0, set())

        assert (kept / "directory/file").exists()
    assert removed == ["old"]
    assert "could not remove the old logs of task mounted: [Errno 16]" in caplog.text
