"""Looking into a root file system without being led out of it."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fargate_agent.containerd.types import Mount
from fargate_agent.errors import CannotCreateContainerError
from fargate_agent.image.manifest import MAX_LAYERS
from fargate_agent.runtime.known_users import KnownUsers
from fargate_agent.runtime.rootfs import MAX_FILE_BYTES, read_files

pytestmark = pytest.mark.root


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    (tmp_path / "layer" / "etc").mkdir(parents=True)
    return tmp_path / "layer"


def overlay(tmp_path: Path, *layers: Path) -> list[Mount]:
    options = (
        "index=off",
        f"workdir={tmp_path}/work",
        f"upperdir={tmp_path}/upper",
        f"lowerdir={':'.join(map(str, layers))}",
    )
    return [Mount(type="overlay", source="overlay", options=options)]


async def test_files_of_the_layers_are_read_the_upper_one_first(
    tmp_path: Path, layer: Path
) -> None:
    upper = tmp_path / "second"
    (upper / "etc").mkdir(parents=True)
    (layer / "etc" / "passwd").write_text("below")
    (layer / "etc" / "group").write_text("group")
    (upper / "etc" / "passwd").write_text("above")
    mountpoint = tmp_path / "mountpoint"
    mountpoint.mkdir()

    files = await read_files(
        overlay(tmp_path, upper, layer), mountpoint, ("/etc/passwd", "/etc/group")
    )

    assert files == {"/etc/passwd": "above", "/etc/group": "group"}
    assert list(mountpoint.iterdir()) == []
    assert str(mountpoint) not in Path("/proc/self/mountinfo").read_text()


async def test_links_lead_no_further_than_the_root(tmp_path: Path, layer: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    (layer / "etc" / "passwd").symlink_to(secret)
    (layer / "etc" / "group").symlink_to("../../../../../real")
    (layer / "real").write_text("of the image")

    files = await read_files(overlay(tmp_path, layer), tmp_path, ("/etc/passwd", "/etc/group"))

    assert files == {"/etc/passwd": "", "/etc/group": "of the image"}


async def test_a_file_that_the_image_lacks_is_empty(tmp_path: Path, layer: Path) -> None:
    (layer / "etc" / "group").symlink_to("nosuch")

    files = await read_files(overlay(tmp_path, layer), tmp_path, ("/etc/group", "/etc/x/y", "/z"))

    assert files == {"/etc/group": "", "/etc/x/y": "", "/z": ""}


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    ("make", "text"),
    [
        pytest.param(os.mkfifo, "is a named pipe, not a regular file", id="pipe"),
        pytest.param(Path.mkdir, "is a directory, not a regular file", id="directory"),
        pytest.param(
            lambda path: os.mknod(path, 0o600 | stat.S_IFSOCK),
            "is a socket, not a regular file",
            id="socket",
        ),
        pytest.param(
            lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5)),
            "is a character device, not a regular file",
            id="zero",
        ),
        pytest.param(
            lambda path: os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(7, 0)),
            "is a block device, not a regular file",
            id="disk",
        ),
        pytest.param(
            lambda path: path.symlink_to("passwd"), "is a link that leads back to itself", id="loop"
        ),
        pytest.param(
            lambda path: path.symlink_to("../proc/kmsg"),
            "is a link to /proc/kmsg, which is not part of the image",
            id="proc",
        ),
        pytest.param(
            lambda path: path.symlink_to("/dev/pts/ptmx"),
            "is a link to /dev/pts/ptmx, which is not part of the image",
            id="dev",
        ),
        pytest.param(
            lambda path: path.write_bytes(bytes(MAX_FILE_BYTES + 1)),
            "has 1048577 bytes; the limit is 1048576",
            id="huge",
        ),
    ],
)
async def test_what_is_no_small_regular_file_is_refused(
    tmp_path: Path, layer: Path, make: Callable[[Path], object], text: str, layers: int
) -> None:
    make(layer / "etc" / "passwd")
    (tmp_path / "above").mkdir()
    mounts = overlay(tmp_path, *[tmp_path / "above", layer][-layers:])

    with pytest.raises(CannotCreateContainerError, match=f"/etc/passwd of the image {text}"):
        await read_files(mounts, tmp_path, ("/etc/passwd",))


async def test_as_many_layers_as_an_image_may_have_are_read_from_a_deep_directory(
    tmp_path: Path,
) -> None:
    deep = tmp_path.joinpath(*["deep" * 50] * 10)
    layers = [deep / str(number) / "fs" for number in range(MAX_LAYERS)]
    for number, layer in enumerate(layers):
        (layer / "etc").mkdir(parents=True)
        (layer / "etc" / str(number)).write_text(f"layer {number}")
    (layers[-1] / "etc" / "passwd").write_text("the lowest")

    files = await read_files(
        overlay(tmp_path, *layers), tmp_path, ("/etc/passwd", f"/etc/{MAX_LAYERS - 1}")
    )

    assert files == {"/etc/passwd": "the lowest", f"/etc/{MAX_LAYERS - 1}": "layer 126"}
    assert Path.cwd().exists()


async def test_a_snapshot_without_overlay_is_read_too(tmp_path: Path, layer: Path) -> None:
    (layer / "etc" / "passwd").write_text("plain")
    bind = [Mount(type="bind", source=str(layer), options=("rbind", "rw"))]

    assert await read_files(bind, tmp_path, ("/etc/passwd",)) == {"/etc/passwd": "plain"}


async def test_the_agent_keeps_its_own_root(tmp_path: Path, layer: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text().count("\n")

    await read_files(overlay(tmp_path, layer), tmp_path, ("/etc/passwd",))

    assert Path.cwd().exists()
    assert Path("/proc/self/mountinfo").read_text().count("\n") == before


@pytest.mark.parametrize("missing", ["passwd", "group"])
async def test_users_are_remembered_only_if_both_files_were_there(
    tmp_path: Path, layer: Path, missing: str
) -> None:
    users = KnownUsers()
    looks: list[str] = []

    async def look() -> tuple[Mount, ...]:
        looks.append("look")
        return tuple(overlay(tmp_path, layer))

    for name in {"passwd", "group"} - {missing}:
        (layer / "etc" / name).write_text("x")
    before = await users.read("sha256:a", look, tmp_path)
    (layer / "etc" / missing).write_text("y")
    after = [await users.read("sha256:a", look, tmp_path) for _ in range(2)]

    assert getattr(before, missing) == ""
    assert [getattr(one, missing) for one in after] == ["y", "y"]
    assert len(looks) == 2
