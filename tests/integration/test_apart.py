"""Tests of the machine see what is theirs, and nothing of what else runs here."""

import shutil
import socket
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fargate_agent.runtime.cgroup import read_cgroups
from tests.fixtures.machine import find_groups_of_planes, observe_machine, shims, wait_for

pytestmark = pytest.mark.root

DEADLINE_S = 20


def test_nothing_that_is_sent_leaves_the_machine() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(OSError, match="unreachable"),
    ):
        sock.connect(("198.51.100.1", 9))


def test_mounts_reach_nobody_else() -> None:
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]

    assert [fields[6] for fields in mounts if fields[4] == "/"] == ["-"]  # no `shared:`
    assert [fields[4] for fields in mounts].count("/run/netns") >= 1


def test_interfaces_of_sysfs_are_those_of_the_network() -> None:
    links = [path.name for path in Path("/sys/class/net").iterdir() if path.is_symlink()]

    assert sorted(links) == sorted(name for _, name in socket.if_nameindex())


@pytest.mark.parametrize(
    ("prefix", "is_ours"), [([], True), (["unshare", "--mount"], False)], ids=["ours", "another's"]
)
def test_shim_is_seen_if_it_is_ours(tmp_path: Path, prefix: list[str], is_ours: bool) -> None:
    program = tmp_path / "containerd-shim-test"
    shutil.copy("/bin/sleep", program)

    with subprocess.Popen([*prefix, program, "60"]) as process:
        try:
            arguments = Path(f"/proc/{process.pid}/cmdline")
            wait_for(lambda: arguments.read_text().startswith(str(program)), "it", DEADLINE_S)
            assert (process.pid in shims()) == is_ours
            assert any(str(program) in line for line in observe_machine()) == is_ours
        finally:
            process.kill()


@pytest.fixture
def groups() -> Iterator[list[Path]]:
    """Groups of two tasks, as an agent leaves them when it is killed."""
    tree = read_cgroups().trees[0]
    (tree / "ecs").mkdir(exist_ok=True)
    made = [tree / "ecs" / uuid.uuid4().hex for _ in range(2)]
    for group in made:
        group.mkdir()
    yield made
    for group in made:
        group.rmdir()


def test_control_group_is_seen_if_our_control_plane_knows_its_task(
    tmp_path: Path, groups: list[Path]
) -> None:
    ours, _ = groups
    (tmp_path / "plane").mkdir()
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        database.execute("CREATE TABLE tasks (id TEXT)")
        database.execute("INSERT INTO tasks VALUES (?)", [ours.name])
        database.commit()
    assert find_groups_of_planes(tmp_path) == set()

    (tmp_path / "other.db").rename(tmp_path / "plane/state.db")

    assert find_groups_of_planes(tmp_path) == {f"cgroup {ours}"}
    ours.rmdir()
    assert find_groups_of_planes(tmp_path) == set()
    ours.mkdir()
