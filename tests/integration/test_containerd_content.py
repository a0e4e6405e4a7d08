"""The content store, snapshots, images and leases of a real containerd."""

import asyncio
import hashlib
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.content import CHUNK_BYTES
from fargate_agent.containerd.errors import (
    AlreadyExistsError,
    ContainerdError,
    FailedPreconditionError,
    NotFoundError,
    UnavailableError,
)
from fargate_agent.containerd.images import ImageRecord
from fargate_agent.containerd.snapshots import SnapshotKind
from fargate_agent.containerd.types import Descriptor
from tests.fixtures.busybox import LAYER_TYPE, SNAPSHOTTER, import_busybox
from tests.fixtures.containerd import PrivateContainerd

pytestmark = pytest.mark.root


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
async def leased(containerd: Containerd) -> Containerd:
    await containerd.leases.ensure("test", {})
    return containerd.with_lease("test")


@pytest.fixture
def blob() -> bytes:
    return os.urandom(3 * CHUNK_BYTES + 17)


async def test_a_written_blob_is_read_back(leased: Containerd, blob: bytes) -> None:
    digest = await leased.content.write_blob("ref", blob, {"team": "web"})

    info = await leased.content.info(digest)
    assert (info.digest, info.size, info.labels["team"]) == (digest_of(blob), len(blob), "web")
    assert await leased.content.read(digest, max_bytes=len(blob)) == blob


async def test_a_write_goes_on_where_it_broke_off(leased: Containerd, blob: bytes) -> None:
    half = CHUNK_BYTES + 5
    async with leased.content.open_writer("ref", digest_of(blob), len(blob)) as writer:
        await writer.write(blob[:half])

    async with leased.content.open_writer("ref", digest_of(blob), len(blob)) as writer:
        resumed_at = writer.offset
        await writer.write(blob[resumed_at:])
        await writer.commit({})

    assert resumed_at == half
    assert await leased.content.read(digest_of(blob), max_bytes=len(blob)) == blob


async def test_an_aborted_write_begins_anew(leased: Containerd, blob: bytes) -> None:
    async with leased.content.open_writer("ref", digest_of(blob), len(blob)) as writer:
        await writer.write(blob[:100])

    await leased.content.abort("ref")
    await leased.content.abort("ref")

    async with leased.content.open_writer("ref", digest_of(blob), len(blob)) as writer:
        assert writer.offset == 0


@pytest.mark.parametrize("attempt", range(10))
async def test_opening_a_writer_of_a_blob_that_is_there_says_so(
    leased: Containerd, blob: bytes, attempt: int
) -> None:
    await leased.content.write_blob("ref", blob, {})

    with pytest.raises(AlreadyExistsError):
        async with leased.content.open_writer(f"ref-{attempt}", digest_of(blob), len(blob)):
            pytest.fail("a writer was opened")


async def test_writing_a_blob_that_is_there_adds_the_labels(
    leased: Containerd, blob: bytes
) -> None:
    await leased.content.write_blob("ref", blob, {"one": "1"})

    digest = await leased.content.write_blob("ref", blob, {"two": "2"})

    labels = (await leased.content.info(digest)).labels
    assert (labels["one"], labels["two"]) == ("1", "2")


async def test_content_of_another_digest_is_refused(leased: Containerd, blob: bytes) -> None:
    wrong = digest_of(b"something else")

    async with leased.content.open_writer("ref", wrong, len(blob)) as writer:
        await writer.write(blob)
        with pytest.raises(FailedPreconditionError, match="unexpected commit digest"):
            await writer.commit({})

    with pytest.raises(NotFoundError):
        await leased.content.info(wrong)


async def test_content_of_another_size_is_refused(leased: Containerd, blob: bytes) -> None:
    async with leased.content.open_writer("ref", digest_of(blob), len(blob) + 1) as writer:
        await writer.write(blob)
        with pytest.raises(FailedPreconditionError, match="failed size validation"):
            await writer.commit({})


async def test_a_second_writer_of_a_ref_is_refused(leased: Containerd, blob: bytes) -> None:
    async with leased.content.open_writer("ref", digest_of(blob), len(blob)):
        with pytest.raises(UnavailableError, match="locked"):
            async with leased.content.open_writer("ref", digest_of(blob), len(blob)):
                pytest.fail("a second writer was opened")


async def test_a_blob_that_is_too_large_is_not_read(leased: Containerd, blob: bytes) -> None:
    digest = await leased.content.write_blob("ref", blob, {})

    with pytest.raises(ContainerdError, match="larger than 100 bytes"):
        await leased.content.read(digest, max_bytes=100)


async def test_labels_are_set_and_removed_one_by_one(leased: Containerd) -> None:
    digest = await leased.content.write_blob("ref", b"blob", {"kept": "1", "gone": "2"})

    await leased.content.set_labels(digest, {"gone": "", "a.b/c.d": "3"})

    labels = (await leased.content.info(digest)).labels
    assert {key: labels.get(key) for key in ("kept", "gone", "a.b/c.d")} == {
        "kept": "1",
        "gone": None,
        "a.b/c.d": "3",
    }


async def test_a_deleted_blob_is_gone_and_may_be_deleted_again(leased: Containerd) -> None:
    digest = await leased.content.write_blob("ref", b"blob", {})

    await leased.content.delete(digest)
    await leased.content.delete(digest)

    assert digest not in {info.digest for info in await leased.content.list()}


async def test_what_a_lease_kept_goes_with_it(containerd: Containerd) -> None:
    await containerd.leases.ensure("kept", {"why": "test"})
    await containerd.leases.ensure("kept", {"why": "again"})
    leased = containerd.with_lease("kept")
    await leased.content.write_blob("ref", b"blob", {})
    await leased.snapshots(SNAPSHOTTER).prepare("key", "", {})
    (lease,) = await containerd.leases.list()

    await containerd.leases.delete("kept")
    await containerd.leases.delete("kept")

    assert (lease.id, lease.labels["why"]) == ("kept", "test")
    assert lease.created_at is not None
    assert datetime.now(UTC) - lease.created_at < timedelta(minutes=1)
    assert await containerd.content.list() == ()
    assert await containerd.snapshots(SNAPSHOTTER).list() == ()


async def test_a_snapshot_is_prepared_committed_and_removed(leased: Containerd) -> None:
    snapshots = leased.snapshots(SNAPSHOTTER)
    base_mounts = await snapshots.prepare("base-key", "", {})
    await snapshots.commit("base", "base-key", {"layer": "1"})
    mounts = await snapshots.prepare("top", "base", {})

    base, top = await snapshots.stat("base"), await snapshots.stat("top")
    assert (base.kind, base.labels["layer"]) == (SnapshotKind.COMMITTED, "1")
    assert (top.kind, top.parent) == (SnapshotKind.ACTIVE, "base")
    assert [mount.type for mount in (*base_mounts, *mounts)] == ["bind", "overlay"]
    assert await snapshots.mounts("top") == mounts
    assert {info.key for info in await snapshots.list()} == {"base", "top"}
    with pytest.raises(AlreadyExistsError):
        await snapshots.prepare("top", "base", {})
    with pytest.raises(FailedPreconditionError):
        await snapshots.remove("base")
    await snapshots.remove("top")
    await snapshots.remove("top")
    await snapshots.remove("base")
    assert not await snapshots.exists("base")


async def test_an_image_keeps_its_content_without_a_lease(containerd: Containerd) -> None:
    image = await import_busybox(containerd)
    await containerd.leases.ensure("collect", {})

    await containerd.leases.delete("collect")

    record = await containerd.images.get(image.name)
    assert record.target == image.manifest
    assert record.created_at is not None
    assert len(await containerd.content.list()) == 3
    assert await containerd.snapshots(SNAPSHOTTER).exists(image.chain_id)


async def test_content_and_snapshots_go_with_their_image(containerd: Containerd) -> None:
    image = await import_busybox(containerd)

    await containerd.images.delete(image.name)
    await containerd.images.delete(image.name)

    with pytest.raises(NotFoundError):
        await containerd.images.get(image.name)
    assert await containerd.content.list() == ()
    assert await containerd.snapshots(SNAPSHOTTER).list() == ()


async def test_an_image_record_is_changed_when_it_is_there(leased: Containerd) -> None:
    names = ("example.test/a:1", "example.test/b:1")
    first = Descriptor(media_type=LAYER_TYPE, digest=digest_of(b"1"), size=1)
    second = Descriptor(media_type=LAYER_TYPE, digest=digest_of(b"2"), size=2)
    for name in names:
        await leased.images.ensure(ImageRecord(name=name, target=first, labels={"old": "1"}))

    await leased.images.ensure(ImageRecord(name=names[0], target=second, labels={"new": "2"}))

    records = {record.name: record for record in await leased.images.list()}
    assert (records[names[0]].target, records[names[0]].labels) == (second, {"new": "2"})
    assert (records[names[1]].target, records[names[1]].labels) == (first, {"old": "1"})
    assert [i.name for i in await leased.images.list([f"name=={names[1]}"])] == [names[1]]


async def test_a_layer_that_is_none_is_not_unpacked(leased: Containerd) -> None:
    digest = await leased.content.write_blob("ref", b"no tar archive", {})
    mounts = await leased.snapshots(SNAPSHOTTER).prepare("key", "", {})

    with pytest.raises(ContainerdError, match=f"unpack layer {digest}"):
        await leased.diff.apply(Descriptor(media_type=LAYER_TYPE, digest=digest, size=14), mounts)


async def test_a_full_disk_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path / "root")]
    await asyncio.to_thread(subprocess.run, mount, check=True)
    daemon = PrivateContainerd(tmp_path)
    try:
        await asyncio.to_thread(daemon.start)
        async with Containerd(daemon.socket, "test") as client:
            await client.ensure_namespace()

            with pytest.raises(ContainerdError, match="no space left on device"):
                await client.content.write_blob("ref", os.urandom(16 << 20), {})
    finally:
        await asyncio.to_thread(daemon.remove)
