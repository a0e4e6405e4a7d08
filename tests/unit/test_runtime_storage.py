"""How large a directory is that somebody works in."""

import os
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.runtime import storage
from fargate_agent.runtime.storage import measure_tree

KIB = 1024


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """100 KiB in files of two directories, and what doesn't count."""
    (tmp_path / "below").mkdir()
    for name, size in (("a", 40), ("b", 8), ("below/c", 52)):
        (tmp_path / name).write_bytes(b"x" * size * KIB)
    (tmp_path / "elsewhere").symlink_to("/usr")
    os.truncate(tmp_path / "b", 1 << 30)  # a hole takes no space
    return tmp_path


def measure(directory: Path) -> int:
    return measure_tree(directory, threading.Event())


def test_all_that_is_on_disk_counts(tree: Path) -> None:
    assert 100 * KIB <= measure(tree) < 200 * KIB
    assert measure(tree / "nowhere") == 0


def test_file_that_goes_meanwhile_hides_no_others(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.scandir

    def look_while_one_goes(path: str) -> Any:
        with look(path) as found:
            entries = sorted(found, key=lambda entry: entry.name != "b")
        (tree / "b").unlink(missing_ok=True)
        return nullcontext(iter(entries))

    monkeypatch.setattr(os, "scandir", look_while_one_goes)

    assert measure(tree) >= 92 * KIB


def test_looking_ends_when_there_are_too_many_or_nobody_waits(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()
    stopped.set()
    assert measure_tree(tree, stopped) == 0

    monkeypatch.setattr(storage, "MAX_FILES", 3)
    with pytest.raises(OSError, match="more than 3 files"):
        measure(tree)
