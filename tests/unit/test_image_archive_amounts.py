"""Archives that would take more memory, or time, than an agent has to spare."""

import gzip
import json
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.image.archive import layout
from fargate_agent.image.archive.tar import Archive, ImageArchiveError, Member
from tests.fixtures.images import build_image, build_index, make_layer, write_layout
from tests.unit.test_image_archive import NAME, docker_archive, header, read, write


def record(key: str, value: str = "") -> bytes:
    """A PAX record, whose first number is its own length."""
    rest = f" {key}={value}\n"
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return f"{length}{rest}".encode()


def special(kind: bytes, data: bytes) -> bytes:
    """A header for the next header, or for all of them."""
    entry = header("special", len(data))
    entry.type = kind
    return entry.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def old_sparse(more_blocks: int) -> bytes:
    """The header of a sparse file, whose map goes on in blocks of 21 pieces each."""
    entry = header("sparse")
    entry.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    block[482] = more_blocks > 0
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    map_ = b"".join(b"%011o\0%011o\0" % (n << 20, 1 << 20) for n in range(1, 22))
    ends = [b"\1"] * (more_blocks - 1) + [b"\0"] * (more_blocks > 0)
    return bytes(block) + b"".join(map_ + end + bytes(7) for end in ends)


FILE = header("a").tobuf()
UNKNOWN = special(b"Z", b"")
SPARSE_1_0 = special(
    tarfile.XHDTYPE, record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")
)


def global_records(first: int, count: int) -> bytes:
    return special(tarfile.XGLTYPE, b"".join(record(f"{first + n:x}") for n in range(count)))


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Fail if the body takes more of the memory at once than an agent has to spare."""
    tracemalloc.start()
    try:
        yield
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 160 << 20


@pytest.mark.parametrize(
    ("make", "text"),
    [
        pytest.param(lambda: special(tarfile.XHDTYPE, bytes(2 << 20)), "too large", id="pax"),
        pytest.param(lambda: old_sparse(150_000), "too large", id="sparse-chain"),
        pytest.param(
            lambda: (
                SPARSE_1_0 + header("s", 32 << 20).tobuf() + b"8000000\n" + b"777\n" * (8 << 20)
            ),
            "a header in the archive is too large",
            id="sparse-map",
        ),
        pytest.param(
            lambda: b"".join(global_records(n * 5000, 5000) + FILE for n in range(60)),
            "has neither an index",
            id="global-records",
        ),
        pytest.param(
            lambda: global_records(0, 5000) + FILE * 2000,
            "has neither an index",
            id="global-records-of-each-file",
        ),
        pytest.param(
            lambda: (special(tarfile.XHDTYPE, record("comment", "x" * 60_000)) + FILE) * 600,
            "more than 33554432 bytes of headers",
            id="all-headers",
        ),
        pytest.param(
            lambda: special(tarfile.XHDTYPE, record("a")) * 2000 + FILE, "too large", id="pax-chain"
        ),
        pytest.param(
            lambda: special(tarfile.GNUTYPE_LONGNAME, b"") * 2000 + FILE,
            "a header in the archive is too large",
            id="name-chain",
        ),
        pytest.param(lambda: FILE + old_sparse(3)[:-1536], "not a whole tar", id="cut-sparse"),
        pytest.param(
            lambda: special(tarfile.XHDTYPE, record("size", "9" * 30)) + UNKNOWN + FILE,
            "not a whole tar file",
            id="size-that-can-not-be",
        ),
        pytest.param(
            lambda: (
                special(tarfile.XHDTYPE, record("size", "-5")) + header("index.json").tobuf() + FILE
            ),
            "not a whole tar file",
            id="size-below-0",
        ),
    ],
)
def test_headers_that_are_hostile_are_refused_in_little_memory(
    tmp_path: Path, make: Callable[[], bytes], text: str
) -> None:
    file = write(tmp_path, make())

    with bounded_memory(), pytest.raises(ImageArchiveError, match=text):
        read(file)


def test_manifests_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    """Each of them is small enough, and made larger by spaces."""
    image = build_image()
    manifests = [
        replace(image, document=json.dumps(fields).encode().ljust(4 << 20))
        for fields in (
            {**json.loads(image.document), "annotations": {"n": str(n)}} for n in range(60)
        )
    ]
    file = write_layout(tmp_path / "a.tar", {NAME: build_index(manifests)})

    with bounded_memory(), pytest.raises(ImageArchiveError, match="than 67108864 bytes together"):
        read(file)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        pytest.param(
            lambda: {"index.json": b'{"manifests": [%s]}' % b",".join([b"{}"] * 1_390_000)},
            "index.json: 'manifests' has 1390000 members",
            id="index",
        ),
        pytest.param(
            lambda: {"manifest.json": b"[%s]" % b",".join([b"{}"] * 1_390_000)},
            "more than 1024 images and names",
            id="docker",
        ),
        pytest.param(
            lambda: docker_archive(RepoTags=[f"a:{n}" for n in range(1025)]),
            "'RepoTags' has 1025 members",
            id="names",
        ),
    ],
)
def test_lists_that_would_fill_the_memory_are_refused(
    tmp_path: Path, files: Callable[[], dict[str, bytes]], text: str
) -> None:
    file = write(tmp_path, make_layer(files()))

    with bounded_memory(), pytest.raises(ImageArchiveError, match=text):
        read(file)


def test_archive_of_too_many_names_is_refused(tmp_path: Path) -> None:
    """Each name becomes a record, and containerd lists all records in one message."""
    files = docker_archive()
    (entry,) = json.loads(files["manifest.json"])
    entries = [{**entry, "RepoTags": [f"a:{n}{m}" for m in range(500)]} for n in range(3)]
    file = write(tmp_path, make_layer({**files, "manifest.json": json.dumps(entries).encode()}))

    with pytest.raises(ImageArchiveError, match="more than 1024 images and names"):
        read(file)


def test_packed_layer_that_many_images_have_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = docker_archive()
    (entry,) = json.loads(files["manifest.json"])
    entries = [{**entry, "RepoTags": [f"a:{n}"]} for n in range(20)]
    packed = {"l/layer.tar": gzip.compress(files["l/layer.tar"])}
    changed = {**files, **packed, "manifest.json": json.dumps(entries).encode()}
    hashed: list[Member] = []
    hash_ = layout._hash

    def note(archive: Archive, member: Member) -> str:
        hashed.append(member)
        return hash_(archive, member)

    monkeypatch.setattr(layout, "_hash", note)

    assert len(read(write(tmp_path, make_layer(changed)))) == 20
    assert len(hashed) == 1
