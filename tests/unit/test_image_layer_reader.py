"""The reader of layers: what it makes of streams, whole, packed and spoilt."""

import gzip
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from fargate_agent.containerd.types import Mount
from fargate_agent.image.layers import stream as streams
from fargate_agent.image.layers import tree
from fargate_agent.image.layers.headers import KNOWN_TYPES, UnknownError, read_entry
from fargate_agent.image.layers.stream import OPENERS, NoSpaceError, TarStream
from fargate_agent.image.staging import _mark, find_compression, find_directory
from tests.fixtures.images import DOCKER, OCI, digest_of
from tests.fixtures.layers import Tar, make_odd_layers, spoil

FUZZ_ROUNDS = int(os.environ.get("FUZZ_ROUNDS", "5000"))


def pieces_of(data: bytes, size: int = 700) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def read_names(data: bytes, size: int = 700) -> tuple[list[bytes], str]:
    stream = TarStream(pieces_of(data, size), lambda _: None)
    names = []
    while (entry := read_entry(stream)) is not None:
        assert entry.kind in KNOWN_TYPES
        assert 0 <= entry.mode <= 0o7777
        assert 0 <= entry.mtime_ns < 1 << 63
        assert 0 <= entry.atime_ns < 1 << 63
        assert b"\0" not in entry.name + entry.link
        names.append(entry.name)
        stream.skip(entry.size_bytes)
        stream.skip(-entry.size_bytes % 512)
    return names, stream.finish()


def inflate(packed: bytes, compression: str = "gzip") -> bytes:
    with tempfile.TemporaryFile() as file:
        file.write(packed)
        file.seek(0)
        return b"".join(OPENERS[compression](file.fileno()))


@pytest.mark.parametrize("size", [1, 511, 512, 513, 1 << 20])
def test_entries_and_digest_are_the_same_however_the_layer_is_cut(size: int) -> None:
    layer = Tar().add("a", data=b"1" * 1000).add("é" * 200).dir("d").end(b"trailing")

    assert read_names(layer, size) == ([b"a", ("é" * 200).encode(), b"d/"], digest_of(layer))


def test_spoilt_layers_are_refused_and_nothing_else_happens() -> None:
    random = Random(1)
    layers = [odd.layer for odd in make_odd_layers().values() if len(odd.layer) < 100_000]
    refused = 0
    for _ in range(FUZZ_ROUNDS):
        try:
            read_names(spoil(random.choice(layers), random), 1 << 16)
        except UnknownError:
            refused += 1

    assert FUZZ_ROUNDS // 10 < refused < FUZZ_ROUNDS


def test_gzip_of_several_members_is_one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "READ_BYTES", 1)
    parts = [b"a" * 5000, b"", os.urandom(3000)]

    assert inflate(b"".join(map(gzip.compress, parts))) == b"".join(parts)


def test_piece_of_what_was_packed_very_well_is_bounded() -> None:
    packed = gzip.compress(bytes(50 << 20), 9)
    with tempfile.TemporaryFile() as file:
        file.write(packed)
        file.seek(0)
        sizes = [len(piece) for piece in OPENERS["gzip"](file.fileno())]

    assert sum(sizes) == 50 << 20
    assert max(sizes) <= streams.PIECE_BYTES


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param(lambda packed: packed[:-1], id="cut"),
        pytest.param(lambda packed: packed[:-8] + b"1234" + packed[-4:], id="checksum"),
        pytest.param(lambda packed: packed + b"garbage", id="garbage"),
        pytest.param(lambda packed: b"x" + packed, id="no gzip"),
    ],
)
def test_gzip_that_is_not_whole_is_refused(spoilt: object) -> None:
    assert callable(spoilt)
    with pytest.raises(UnknownError):
        inflate(spoilt(gzip.compress(os.urandom(5000))))


def test_library_that_is_missing_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)

    assert inflate(gzip.compress(b"1" * 5000)) == b"1" * 5000


def test_disk_with_hardly_any_room_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, available = 1 << 30, 1 << 15
    room = os.statvfs_result((4096, 4096, blocks, blocks, available, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: room)
    space = tree.Space()

    space.note(tree.SPACE_CHECK_BYTES - 1)
    with pytest.raises(NoSpaceError):
        space.note(1)


def test_memory_for_directories_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_DIRECTORY_BYTES", 5000)
    made = tree.Tree(is_lowest=True)
    for number in range(10):
        made._remember(b"/%d" % number)

    with pytest.raises(UnknownError, match="^more directories than fit into memory$"):
        made._remember(b"/" + b"d" * 4000)


def test_directory_that_leads_out_of_the_layer_is_not_marked(tmp_path: Path) -> None:
    (tmp_path / "fs").mkdir()
    (tmp_path / "out").mkdir()

    with pytest.raises(OSError, match="leads out of the layer"):
        _mark(tmp_path / "fs", ["/../out"])
    (tmp_path / "fs" / "link").symlink_to("../out")
    with pytest.raises(OSError, match="Too many levels|Not a directory"):
        _mark(tmp_path / "fs", ["/link"])
    assert os.listxattr(tmp_path / "out") == []


def test_directory_of_a_snapshot_is_found_only_where_there_is_one() -> None:
    bind = Mount(type="bind", source="/s/1/fs", options=("rw", "rbind"))
    options = ("index=off", "workdir=/s/2/work", "upperdir=/s/2/fs", "lowerdir=/s/1/fs")
    overlay = Mount(type="overlay", source="overlay", options=options)
    view = Mount(type="overlay", source="overlay", options=("lowerdir=/s/2/fs:/s/1/fs",))

    assert find_directory([bind]) == Path("/s/1/fs")
    assert find_directory([overlay]) == Path("/s/2/fs")
    assert find_directory([view]) is find_directory([]) is find_directory([bind, bind]) is None


@pytest.mark.parametrize("types", [OCI, DOCKER])
@pytest.mark.parametrize("packing", ["gzip", "zstd", "plain"])
def test_compression_is_that_of_the_media_type(types: dict[str, str], packing: str) -> None:
    assert find_compression(types[packing]) == packing
