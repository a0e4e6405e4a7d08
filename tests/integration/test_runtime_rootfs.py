"""Looking into a root file system without being led out of it."""

import os
from pathlib import Path

import pytest

from fargate_agent.containerd.types import Mount
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


async def test_what_is_no_file_is_empty(tmp_path: Path, layer: Path) -> None:
    os.mkfifo(layer / "etc" / "passwd")
    (layer / "etc" / "group").mkdir()

    files = await read_files(
        overlay(tmp_path, layer), tmp_path, ("/etc/passwd", "/etc/group", "/nosuch")
    )

    assert files == {"/etc/passwd": "", "/etc/group": "", "/nosuch": ""}


async def test_a_huge_file_is_cut(tmp_path: Path, layer: Path) -> None:
    (layer / "etc" / "passwd").write_bytes(b"x" * (MAX_FILE_BYTES + 1))

    files = await read_files(overlay(tmp_path, layer), tmp_path, ("/etc/passwd",))

    assert len(files["/etc/passwd"]) == MAX_FILE_BYTES


async def test_a_snapshot_without_overlay_is_read_too(tmp_path: Path, layer: Path) -> None:
    (layer / "etc" / "passwd").write_text("plain")
    bind = [Mount(type="bind", source=str(layer), options=("rbind", "rw"))]

    assert await read_files(bind, tmp_path, ("/etc/passwd",)) == {"/etc/passwd": "plain"}


async def test_the_agent_keeps_its_own_root(tmp_path: Path, layer: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text().count("\n")

    await read_files(overlay(tmp_path, layer), tmp_path, ("/etc/passwd",))

    assert Path.cwd().exists()
    assert Path("/proc/self/mountinfo").read_text().count("\n") == before
