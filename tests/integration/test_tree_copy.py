"""What an image has in a directory, copied as it is."""

import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fargate_agent.containerd.types import Mount
from fargate_agent.runtime.rootfs import look_into
from fargate_agent.runtime.tree_copy import MAX_DEPTH, GivenUpError, copy_tree
from tests.integration.test_units import values

pytestmark = pytest.mark.root

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""cap_net_bind_service=ep. Source: linux/capability.h, `vfs_cap_data`."""
MIB = 1 << 20
PAST_NS = 1_234_567_890_123_456_789


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


def copy(source: Path, tmp_path: Path) -> Path:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    with opened(source) as old, opened(target) as new:
        copy_tree(old, new)
    return target


class opened:  # noqa: N801 - reads as a function
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def describe(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    kind = stat.S_IFMT(found.st_mode)
    content: object = None
    attributes = []
    if kind == stat.S_IFREG:
        content = path.read_bytes()
    elif kind == stat.S_IFLNK:
        content = str(path.readlink())
    if kind in {stat.S_IFREG, stat.S_IFDIR}:
        attributes = [(name, os.getxattr(path, name)) for name in sorted(os.listxattr(path))]
    return (
        oct(found.st_mode),
        found.st_uid,
        found.st_gid,
        found.st_mtime_ns,
        found.st_nlink if kind != stat.S_IFDIR else None,
        content,
        attributes,
    )


def tree(top: Path) -> dict[str, tuple[object, ...]]:
    def walk(directory: Path) -> Iterator[Path]:
        yield directory
        for path in directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                yield from walk(path)
            else:
                yield path

    return {str(path.relative_to(top)): describe(path) for path in walk(top)}


def fill(source: Path) -> None:
    """Make one of everything that an image can have."""
    (source / "file").write_text("text")
    os.chown(source / "file", 1000, 70_000)
    (source / "file").chmod(0o640)
    (source / "suid").write_text("program")
    os.chown(source / "suid", 33, 33)
    (source / "suid").chmod(0o6755)
    (source / "caps").write_text("program")
    os.setxattr(source / "caps", "security.capability", CAPABILITY)
    os.setxattr(source / "caps", "user.note", b"\0binary")
    (source / "secret").write_text("nobody reads this")
    (source / "secret").chmod(0)
    os.link(source / "file", source / "same")
    (source / "dir").mkdir()
    os.link(source / "file", source / "dir" / "same too")
    (source / "dir" / "deep").mkdir()
    (source / "dir" / "deep").chmod(0o1777)
    os.setxattr(source / "dir", "user.note", b"of a directory")
    os.chown(source / "dir", 1000, 1001)
    (source / "dir").chmod(0o2750)
    (source / "link").symlink_to("/etc/shadow")
    os.chown(source / "link", 5, 6, follow_symlinks=False)
    (source / "up").symlink_to("../../../..")
    os.mkfifo(source / "pipe", 0o622)
    (source / os.fsdecode(b"latin-\xe9")).touch()
    (source / ("n" * 255)).touch()
    os.chown(source, 999, 998)
    source.chmod(0o3770)
    for path in [*source.iterdir(), source / "dir" / "deep", source]:
        os.utime(path, ns=(PAST_NS, PAST_NS), follow_symlinks=False)


def test_everything_is_equal(source: Path, tmp_path: Path) -> None:
    fill(source)
    before = tree(source)

    target = copy(source, tmp_path)

    assert tree(target) == before
    assert (target / "same").samefile(target / "dir" / "same too")
    assert stat.S_IMODE((target / "suid").stat().st_mode) == 0o6755
    assert os.getxattr(target / "caps", "security.capability") == CAPABILITY


def test_agent_that_has_what_its_unit_gives_copies_all_of_it(source: Path, tmp_path: Path) -> None:
    fill(source)
    before = tree(source)
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    kept = " ".join(values("fargate-agent.service", "CapabilityBoundingSet")).lower().split()
    bounding = ",".join(["-all", *(f"+{name.removeprefix('cap_')}" for name in kept)])
    script = (
        "import os, sys; from fargate_agent.runtime.tree_copy import copy_tree;"
        "copy_tree(*(os.open(path, os.O_RDONLY) for path in sys.argv[1:]))"
    )

    done = subprocess.run(
        ["setpriv", f"--bounding-set={bounding}", "--inh-caps=-all", "--no-new-privs"]
        + [sys.executable, "-c", script, str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert tree(target) == before
    assert values("fargate-agent.service", "RestrictSUIDSGID") in ([], ["no"])


async def test_layers_are_copied_as_they_are_seen_together(source: Path, tmp_path: Path) -> None:
    fill(source)
    upper, mountpoint, target = tmp_path / "upper", tmp_path / "mountpoint", tmp_path / "target"
    for path in (upper, mountpoint, target):
        path.mkdir()
    (upper / "dir").mkdir()
    (upper / "dir" / "of the upper").touch()
    os.mknod(upper / "file", 0o600 | stat.S_IFCHR, os.makedev(0, 0))  # whiteout
    (upper / "new").mkdir()
    os.setxattr(upper / "new", "trusted.overlay.opaque", b"y")
    os.setxattr(upper / "new", "user.overlay.note", b"kept")
    options = (f"lowerdir={upper}:{source}",)

    with opened(target) as new:

        def look() -> None:
            with opened(Path("/")) as old:
                copy_tree(old, new)

        await look_into(
            [Mount(type="overlay", source="overlay", options=options)], mountpoint, look
        )

    expected = {path.name for path in source.iterdir()} - {"file"} | {"new"}
    assert {path.name for path in target.iterdir()} == expected
    assert {path.name for path in (target / "dir").iterdir()} == {
        "deep",
        "same too",
        "of the upper",
    }
    assert os.listxattr(target / "new") == ["user.overlay.note"]
    assert not any(name.startswith("trusted.") for name in os.listxattr(target))


def test_holes_stay_holes(source: Path, tmp_path: Path) -> None:
    with (source / "sparse").open("wb") as file:
        file.write(b"head")
        file.seek(64 * MIB)
        file.write(b"middle")
        file.truncate(128 * MIB)

    copied = copy(source, tmp_path) / "sparse"

    assert copied.stat().st_size == 128 * MIB
    assert copied.stat().st_blocks * 512 < MIB
    with copied.open("rb") as file:
        assert file.read(5) == b"head\0"
        file.seek(64 * MIB)
        assert file.read(7) == b"middle\0"


def test_devices_and_whiteouts_are_left_out(source: Path, tmp_path: Path) -> None:
    os.mknod(source / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(source / "whiteout", 0o600 | stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(source / "disk", 0o600 | stat.S_IFBLK, os.makedev(7, 0))
    (source / "file").touch()

    assert [path.name for path in copy(source, tmp_path).iterdir()] == ["file"]


def test_copy_that_is_given_up_ends_in_the_middle(source: Path, tmp_path: Path) -> None:
    for name in map(str, range(10)):
        (source / name).touch()
    target = tmp_path / "target"
    target.mkdir()
    asked = 0

    def is_given_up() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    with opened(source) as old, opened(target) as new, pytest.raises(GivenUpError):
        copy_tree(old, new, is_given_up)

    assert len(list(target.iterdir())) == 5


def test_error_names_the_path(source: Path, tmp_path: Path) -> None:
    deep = source
    for _ in range(MAX_DEPTH + 1):
        deep /= "d"
    deep.mkdir(parents=True)

    with pytest.raises(OSError, match=f"more than {MAX_DEPTH} directories") as error:
        copy(source, tmp_path)

    assert error.value.filename == "./" + "/".join(["d"] * (MAX_DEPTH + 1))
