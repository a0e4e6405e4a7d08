"""Images without a registry, in a real containerd."""

import asyncio
import gzip
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fargate_agent.image.archive.tar import ImageArchiveError
from fargate_agent.image.store import PullBehavior
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.images import (
    DOCKER,
    BuiltImage,
    build_image,
    build_index,
    make_layer,
    random_layer,
    write_layout,
)
from tests.fixtures.programs import require_program
from tests.fixtures.pulls import Puller
from tests.fixtures.registry import FakeRegistry

pytestmark = pytest.mark.root

NAME = "test.example/team/web:1"


async def copy_by_skopeo(source: str, target: str) -> None:
    require_program("skopeo")
    command = ["skopeo", "copy", "--src-tls-verify=false", "--insecure-policy", source, target]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    assert await process.wait() == 0


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
@pytest.mark.parametrize("compressed", [False, True], ids=["tar", "tar-gz"])
async def test_archive_that_skopeo_made_is_loaded_and_unpacked_on_first_use(
    puller: Puller, fake_registry: FakeRegistry, tmp_path: Path, kind: str, compressed: bool
) -> None:
    layers = [random_layer(), make_layer({"etc/a": b"hello"})]
    image = build_image(layers, types=DOCKER, run={"Cmd": ["a"]})
    source = fake_registry.add("web", "1", image)
    file = tmp_path / "image.tar"
    await copy_by_skopeo(f"docker://{source}", f"{kind}:{file}:{NAME}")
    if compressed:
        file.write_bytes(gzip.compress(file.read_bytes(), 1))

    names = await puller.admin.load(file)

    assert names == [NAME]
    loaded = await puller.pull(NAME, behavior=PullBehavior.PREFER_CACHED)
    assert loaded.config.command == ("a",)
    assert await puller.read_file(loaded, "etc/a") == b"hello"


async def test_archive_with_several_images_is_loaded_whole(puller: Puller, tmp_path: Path) -> None:
    names = {NAME: build_image(), "test.example/two:2": build_index([build_image()])}

    loaded = await puller.admin.load(write_layout(tmp_path / "a.tar", names))

    assert loaded == list(names)
    assert [image.name for image in await puller.admin.list()] == sorted(names)


async def test_archive_with_a_changed_layer_is_refused_and_leaves_nothing(
    puller: Puller, tmp_path: Path
) -> None:
    image = build_image()
    layer = image.layers[0]
    changed = {f"blobs/{layer.replace(':', '/')}": bytes(len(image.blobs[layer]))}
    file = write_layout(tmp_path / "a.tar", {NAME: image}, changed)

    with pytest.raises(ImageArchiveError, match=f"has not the digest {layer}"):
        await puller.admin.load(file)

    assert await puller.admin.list() == []
    assert await puller.containerd.content.list() == ()
    assert await puller.containerd.leases.list() == ()


async def test_list_says_the_size_of_all_that_is_here(puller: Puller, tmp_path: Path) -> None:
    image = build_image([random_layer(10_000)])
    index = build_index([image, build_image(platform={"os": "linux", "architecture": "arm64"})])
    here = BuiltImage(media_type=index.media_type, document=index.document, children=(image,))
    await puller.admin.load(write_layout(tmp_path / "a.tar", {NAME: here}))

    summary = (await puller.admin.list())[0]

    assert (summary.name, summary.digest) == (NAME, index.digest)
    sizes = [len(blob) for blob in (*image.blobs.values(), image.document, index.document)]
    assert summary.size_bytes == sum(sizes)


async def test_removed_image_is_gone_with_its_content(puller: Puller, tmp_path: Path) -> None:
    await puller.admin.load(write_layout(tmp_path / "a.tar", {NAME: build_image()}))

    assert await puller.admin.remove(NAME)

    assert await puller.containerd.content.list() == ()
    assert not await puller.admin.remove(NAME)


def blocks_bytes(directory: Path) -> int:
    """What a directory takes on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


async def test_prune_keeps_what_is_in_use_however_it_is_written(
    puller: Puller, tmp_path: Path
) -> None:
    names = ["docker.io/library/used:latest", "test.example/a:1", "test.example/b:1"]
    images = {name: build_image() for name in names}
    await puller.admin.load(write_layout(tmp_path / "a.tar", images))
    puller.users = {"used": [await puller.task()], "Not A Name": [await puller.task()]}

    unused = await puller.admin.prune(dry_run=True)
    assert len(await puller.admin.list()) == 3
    pruned = await puller.admin.prune()

    assert pruned == unused
    assert pruned.names == tuple(names[1:])
    assert [image.name for image in await puller.admin.list()] == names[:1]


async def test_prune_says_what_comes_back_and_the_disk_has_it(
    puller: Puller, fake_registry: FakeRegistry, private_containerd: PrivateContainerd
) -> None:
    """A layer that another image needs stays, and doesn't count."""
    shared, own = random_layer(600_000), random_layer(3_000_000)
    kept = fake_registry.add("kept", "1", build_image([shared]))
    gone = fake_registry.add("gone", "2", build_image([shared, own]))
    task = await puller.task()
    for name in (kept, gone):
        await puller.pull(name, task)
    await puller.end(task)
    puller.users = {kept: [task]}
    (unused,) = (image for image in await puller.admin.list() if image.name == gone)
    root = private_containerd.directory / "root"
    before_bytes = blocks_bytes(root)

    pruned = await puller.admin.prune()

    assert pruned.names == (gone,)
    assert 6_000_000 < pruned.freed_bytes < 6_100_000
    freed_bytes = before_bytes - blocks_bytes(root)
    assert abs(freed_bytes - pruned.freed_bytes) < 100_000
    assert (unused.size_bytes, unused.unpacked_bytes) > (3_600_000, 3_600_000)


async def test_list_says_who_uses_an_image_and_when_it_was_used(
    puller: Puller, fake_registry: FakeRegistry, tmp_path: Path
) -> None:
    name = fake_registry.add("web", "1", build_image([random_layer(10_000)]))
    task = await puller.task()
    before = datetime.now(UTC) - timedelta(seconds=1)
    await puller.pull(name, task)
    await puller.admin.load(write_layout(tmp_path / "a.tar", {NAME: build_image()}))
    puller.users = {name: [task], name.removesuffix(":1"): []}

    pulled, loaded = await puller.admin.list()

    assert (pulled.name, pulled.users, pulled.is_loaded) == (name, (task,), False)
    assert before < pulled.used_at <= datetime.now(UTC)
    assert pulled.unpacked_bytes > 10_000
    assert (loaded.users, loaded.is_loaded, loaded.unpacked_bytes) == ((), True, 0)
