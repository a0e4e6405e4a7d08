"""Two who make a directory of EFS at the same time, and one who is killed meanwhile."""

import itertools
import multiprocessing
import os
import queue
import signal
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from fargate_agent.plan import EfsPlan, EfsRoot
from fargate_agent.volumes import efs, efs_roots, scratch
from fargate_agent.volumes.efs_roots import open_root
from fargate_agent.volumes.mounts import unmount
from fargate_agent.volumes.unfinished import UNFINISHED_MODE

pytestmark = pytest.mark.root

DEADLINE_S: Final = 20
ROOT: Final = EfsRoot(uid=1234, gid=5678, mode=0o750)
OTHER: Final = EfsRoot(uid=8765, gid=4321, mode=0o707)
STEPS: Final = ("open", "mkdir", "fstat", "fchown", "fchmod", "rename", "rmdir")
"""System calls before which a maker can be stopped."""
OPENING: Final = 2
"""Steps until the top is open: the beginning, and that."""
MOST_STEPS: Final = 6
"""Of which one maker needs no more from then on."""


class Maker:
    """A thread that opens a directory, and makes each step only when it is told to."""

    def __init__(self, work: Callable[[], int]) -> None:
        self._work = work
        self._steps: queue.Queue[str] = queue.Queue()
        self._may_go = threading.Semaphore(0)
        self.found: tuple[os.stat_result, int] | None = None
        """How the directory was when it was given out, and a descriptor of it."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.next = self._steps.get(timeout=DEADLINE_S)

    def stop_before(self, step: str) -> None:
        """Wait until the step may be made, if this is the maker's thread."""
        if threading.current_thread() is self._thread:
            self._steps.put(step)
            self._may_go.acquire()

    def go(self) -> None:
        """Make the next step, if there is one."""
        if self.next != "end":
            self._may_go.release()
            self.next = self._steps.get(timeout=DEADLINE_S)

    def finish(self) -> tuple[os.stat_result, int]:
        while self.next != "end":
            self.go()
        assert self.found is not None
        return self.found

    def _run(self) -> None:
        self._steps.put("begin")
        self._may_go.acquire()
        directory = self._work()
        self.found = (_real["fstat"](directory), directory)
        self._steps.put("end")


_real: Final[dict[str, Callable[..., Any]]] = {name: getattr(os, name) for name in STEPS}


class Stopping:
    """The module `os`, whose calls wait until their maker may go on."""

    def __init__(self, makers: Sequence[Maker]) -> None:
        self._makers = makers

    def __getattr__(self, name: str) -> Any:
        if name not in STEPS:
            return getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            for maker in self._makers:
                maker.stop_before(name)
            return _real[name](*arguments, **named)

        return call


def owner_and_mode(found: os.stat_result) -> EfsRoot:
    return EfsRoot(uid=found.st_uid, gid=found.st_gid, mode=stat.S_IMODE(found.st_mode))


def make_two(
    monkeypatch: pytest.MonkeyPatch, top: Path, roots: Sequence[EfsRoot]
) -> tuple[Maker, Maker]:
    makers: list[Maker] = []
    monkeypatch.setattr(efs_roots, "os", Stopping(makers))
    makers += [Maker(lambda root=root: open_root(top, "/a", root)) for root in roots]  # type: ignore[misc]
    return makers[0], makers[1]


def test_directory_that_a_task_has_is_not_replaced_by_who_did_not_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, early = make_two(monkeypatch, tmp_path, [ROOT, ROOT])
    for _ in range(OPENING + 1):
        late.go()
    assert late.next == "mkdir"
    _, directory = early.finish()
    late.finish()

    os.mkdir("entry", dir_fd=directory)
    assert (tmp_path / "a" / "entry").is_dir()
    for maker in (late, early):
        os.close(maker.finish()[1])


def test_two_makers_have_one_directory_in_whatever_order_they_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None waits for the other, as if each had stood still for long."""
    monkeypatch.setattr(efs_roots, "MAKER_TIMEOUT_S", 0)
    steps = 2 * MOST_STEPS
    for number, firsts in enumerate(itertools.combinations(range(steps), MOST_STEPS)):
        top = tmp_path / str(number)
        top.mkdir()
        makers = make_two(monkeypatch, top, [ROOT, ROOT])
        for maker in makers * OPENING:
            maker.go()
        for step in range(steps):
            makers[step not in firsts].go()
        for maker in makers:
            given_out, directory = maker.finish()
            assert owner_and_mode(given_out) == ROOT, firsts
            assert os.path.samestat(given_out, (top / "a").stat()), firsts
            os.mkdir("entry", dir_fd=directory)
            os.rmdir("entry", dir_fd=directory)
            os.close(directory)
        assert [path.name for path in top.iterdir()] == ["a"]


@pytest.mark.parametrize("step", ["open", "fchown", "fchmod"])
def test_who_finds_a_directory_waits_until_its_maker_has_finished_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It isn't made half as the one says and half as the other."""
    maker, finder = make_two(monkeypatch, tmp_path, [ROOT, OTHER])
    for _ in range(OPENING + 1):  # there is nothing yet
        maker.go()
    assert maker.next == "mkdir"
    maker.go()
    while maker.next != step:
        maker.go()
    for _ in range(8):
        finder.go()
    assert finder.next == "fstat"
    maker.finish()

    assert owner_and_mode(finder.finish()[0]) == ROOT
    for one in (maker, finder):
        os.close(one.finish()[1])


def test_directory_that_a_killed_maker_left_is_not_there_for_who_may_not_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efs_roots, "MAKER_TIMEOUT_S", 0)
    (tmp_path / "a").mkdir(UNFINISHED_MODE)
    with pytest.raises(FileNotFoundError):
        open_root(tmp_path, "/a", None)


def plan(directory: Path) -> EfsPlan:
    return EfsPlan(
        file_system_id="fs-01234567",
        path="/a/b",
        directory=directory / "efs" / "fs",
        is_made=True,
        root=ROOT,
    )


def make_and_die(work: Callable[..., object], count: int, *arguments: object) -> None:
    """Do some work, and die by SIGKILL after so many steps that change something."""
    os.umask(0o077)
    left = itertools.count(count - 1, -1)

    def die_after(name: str) -> None:
        real = getattr(os, name)

        def step(*arguments: Any, **named: Any) -> None:
            real(*arguments, **named)
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, name, step)

    for name in ("mkdir", "fchown", "fchmod", "chmod"):
        die_after(name)
    work(*arguments)


def kill_after(count: int, work: Callable[..., object], *arguments: object) -> bool:
    """Whether there were so many steps."""
    process = multiprocessing.get_context("forkserver").Process(
        target=make_and_die, args=(work, count, *arguments)
    )
    process.start()
    process.join(DEADLINE_S)
    code = process.exitcode
    process.close()
    assert code in {0, -signal.SIGKILL}
    return code != 0


def test_file_system_and_access_point_are_as_they_should_be_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efs_roots, "MAKER_TIMEOUT_S", 0)
    for count in itertools.count(1):
        state = tmp_path / str(count)
        mountpoint = state / "mounted"
        mountpoint.mkdir(parents=True)
        asked = plan(state)
        assert asked.directory is not None
        was_killed = kill_after(count, efs._bind, asked, asked.directory, mountpoint)
        unmount(mountpoint)
        efs._bind(asked, asked.directory, mountpoint)

        assert owner_and_mode(mountpoint.stat()) == ROOT
        for path in (asked.directory, asked.directory / "a"):
            assert owner_and_mode(path.stat()) == efs_roots.PARENT
        unmount(mountpoint)
        if not was_killed:
            assert count == 11  # one directory alone, and three with their owners and modes
            return


def test_scratch_volume_has_its_mode_after_a_kill(tmp_path: Path) -> None:
    for count, steps in ((1, 1), (2, 2), (3, 3)):
        path = tmp_path / str(count) / "v"
        assert kill_after(steps, scratch._make_directory, path)
        scratch._make_directory(path)
        assert stat.S_IMODE(path.stat().st_mode) == scratch.VOLUME_MODE
        path.chmod(0o700)
        scratch._make_directory(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
