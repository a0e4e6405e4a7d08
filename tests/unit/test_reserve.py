"""Space that is held back for what has to work on a full disk."""

import errno
from pathlib import Path

import pytest

from fargate_agent.reserve import Reserve

SIZE_BYTES = 64 * 1024


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reserve"


class Disk:
    """Has no space until the reserve is gone."""

    def __init__(self, reserve: Path) -> None:
        self._reserve = reserve

    def write(self) -> str:
        if self._reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return "written"


def test_reserve_takes_space_and_gives_it_up_once(path: Path) -> None:
    reserve = Reserve(path, SIZE_BYTES)
    reserve.keep()
    held = path.stat().st_blocks * 512

    assert held >= SIZE_BYTES
    reserve.give_up()
    reserve.give_up()
    assert not path.exists()


def test_work_is_done_again_too_when_somebody_else_has_freed_the_space(path: Path) -> None:
    reserve = Reserve(path, SIZE_BYTES)
    reserve.keep()
    disk = Disk(path)

    def write() -> str:
        try:
            return disk.write()
        finally:
            path.unlink(missing_ok=True)

    assert reserve.insist(write) == "written"


def test_work_that_finds_the_disk_full_is_done_again_with_the_reserve(path: Path) -> None:
    reserve = Reserve(path, SIZE_BYTES)
    reserve.keep()

    assert reserve.insist(Disk(path).write) == "written"


def test_other_errors_do_not_cost_the_reserve(path: Path) -> None:
    reserve = Reserve(path, SIZE_BYTES)
    reserve.keep()

    def fail() -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with pytest.raises(OSError, match="Read-only"):
        reserve.insist(fail)
    assert path.exists()


def test_disk_with_little_space_is_not_filled_by_the_reserve(tmp_path: Path) -> None:
    path = tmp_path / "reserve"

    Reserve(path, 1 << 50).keep()

    assert not path.exists()


def test_reserve_that_is_too_small_after_a_crash_is_made_whole(path: Path) -> None:
    path.write_bytes(b"x")

    Reserve(path, SIZE_BYTES).keep()

    assert path.stat().st_size == SIZE_BYTES
