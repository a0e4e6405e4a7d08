import os
from pathlib import Path

import pytest

from fargate_agent.files import draft_file, replace_file, sync


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that is there already, and that others can read."""
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("durable", [True, False])
def test_file_is_replaced_by_one_for_its_owner_alone(file: Path, durable: bool) -> None:
    with file.open() as reader:
        replace_file(file, "new: ü", durable=durable)

        assert reader.read() == "old"
    assert file.read_bytes() == "new: ü".encode()
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_file_that_is_not_there_is_made(tmp_path: Path) -> None:
    replace_file(tmp_path / "new", b"\x00bytes")

    assert (tmp_path / "new").read_bytes() == b"\x00bytes"


def test_mode_and_owner_are_as_asked_for(file: Path) -> None:
    replace_file(file, "new", mode=0o640, owner=(-1, os.getegid()))

    assert file.stat().st_mode & 0o777 == 0o640
    assert (file.stat().st_uid, file.stat().st_gid) == (os.geteuid(), os.getegid())


def test_draft_that_is_refused_leaves_everything_as_it_was(file: Path) -> None:
    with pytest.raises(ValueError, match="refused: new"):
        draft_and_refuse(file, "new")

    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]


def draft_and_refuse(file: Path, text: str) -> None:
    with draft_file(file, text) as draft:
        raise ValueError(f"refused: {draft.read_text()}")


def test_symbolic_link_is_replaced_and_what_it_names_is_left(tmp_path: Path, file: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)

    replace_file(link, "new")

    assert (link.is_symlink(), link.read_text(), file.read_text()) == (False, "new", "old")


def test_file_in_no_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "none" / "file", "new")


def test_what_is_not_there_can_not_be_synced(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "none")
