import os
from pathlib import Path

import pytest

from fargate_agent.trees import remove_tree


def fill(directory: Path) -> None:
    (directory / "a/b").mkdir(parents=True)
    (directory / "a/b/file").write_text("x")
    (directory / "a/link").symlink_to("/")
    os.mkfifo(directory / "pipe")


def test_tree_is_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    fill(tmp_path / "tree")

    remove_tree(tmp_path / "tree")

    assert list(tmp_path.iterdir()) == []


def test_tree_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove_tree(tmp_path / "tree")
    remove_tree(tmp_path / "no" / "tree")


def test_link_is_not_followed(tmp_path: Path) -> None:
    fill(tmp_path / "kept")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")

    remove_tree(tmp_path / "tree")
    with pytest.raises(OSError, match=str(tmp_path / "link|link")):
        remove_tree(tmp_path / "link")

    assert (tmp_path / "kept/a/b/file").exists()


def test_tree_deeper_than_a_path_can_say_is_removed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    where = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("directory", dir_fd=where)
        deeper = os.open("directory", os.O_RDONLY, dir_fd=where)
        os.close(where)
        where = deeper
    os.close(os.open("file", os.O_CREAT, dir_fd=where))
    os.close(where)

    remove_tree(tmp_path / "tree")

    assert not (tmp_path / "tree").exists()


def test_what_can_not_be_removed_is_named_by_its_whole_path() -> None:
    """A directory of the kernel's, in which nothing can be made or removed."""
    with pytest.raises(OSError, match="/proc/self/ns/"):
        remove_tree(Path("/proc/self/ns"))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = count_descriptors()
    fill(tmp_path / "tree")

    remove_tree(tmp_path / "tree")

    assert count_descriptors() == before


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
