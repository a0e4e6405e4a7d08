"""Hostile and broken archives."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from fargate_agent.image.archive.layout import read_images
from fargate_agent.image.archive.packing import unpack
from fargate_agent.image.archive.tar import ImageArchiveError, open_archive
from fargate_agent.image.manifest import MAX_DEPTH
from tests.fixtures.images import (
    OCI,
    BuiltImage,
    build_image,
    build_index,
    digest_of,
    make_layer,
    write_layout,
)

NAME = "test.example/web:1"


def read(file: Path, name: str | None = None, **limits: Any) -> list[str]:
    with open_archive(file, **limits) as archive:
        return [name for image in read_images(archive, name) for name in image.names]


def write(directory: Path, data: bytes) -> Path:
    file = directory / "image.tar"
    file.write_bytes(data)
    return file


def tar_of(*entries: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for entry in entries:
            tar.addfile(entry, io.BytesIO(b"x" * entry.size))
    return packed.getvalue()


def docker_archive(**changes: Any) -> dict[str, bytes]:
    layer = make_layer({"a": b"b"})
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest_of(layer)]}}
    ).encode()
    entry = {"Config": "c.json", "RepoTags": [NAME], "Layers": ["l/layer.tar"], **changes}
    return {
        "manifest.json": json.dumps([entry]).encode(),
        "c.json": config,
        "l/layer.tar": layer,
    }


def test_layout_names_its_images(tmp_path: Path) -> None:
    other = "test.example/other:2"
    file = write_layout(
        tmp_path / "a.tar", {NAME: build_image(), other: build_index([build_image()])}
    )

    assert read(file) == [NAME, other]


def test_docker_archive_names_its_images(tmp_path: Path) -> None:
    assert read(write(tmp_path, make_layer(docker_archive()))) == [NAME]


def pack_xz_in_parts(data: bytes) -> bytes:
    """Two streams with zeros between and behind them, as xz(1) takes them."""
    middle = len(data) // 2
    first, second = (lzma.compress(part, preset=0) for part in (data[:middle], data[middle:]))
    return first + bytes(8) + second + bytes(4)


def pack_zstd_in_parts(data: bytes) -> bytes:
    """A frame to be skipped, as pzstd writes it, and two of data."""
    middle = len(data) // 2
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
    parts = zstandard.compress(data[:middle]) + skipped + zstandard.compress(data[middle:])
    return skipped + parts + skipped


@pytest.mark.parametrize(
    "pack",
    [
        pytest.param(gzip.compress, id="gzip"),
        pytest.param(bz2.compress, id="bzip2"),
        pytest.param(lambda data: lzma.compress(data, preset=0), id="xz"),
        pytest.param(zstandard.compress, id="zstd"),
        pytest.param(pack_xz_in_parts, id="xz-in-parts"),
        pytest.param(pack_zstd_in_parts, id="zstd-in-parts"),
    ],
)
def test_compressed_archive_is_read_and_leaves_no_file(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    file = write_layout(tmp_path / "a.tar", {NAME: build_image()})
    file.write_bytes(pack(file.read_bytes()))

    assert read(file) == [NAME]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("packing", ["gzip", "bzip2", "xz", "zstd"])
def test_a_file_that_can_not_be_read_is_not_called_damaged(packing: str) -> None:
    class Unreadable(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        list(unpack(Unreadable(), packing))


def test_layer_may_be_a_link_to_another_one(tmp_path: Path) -> None:
    files = docker_archive(Layers=["second/layer.tar"])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("second/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../l/layer.tar"
        tar.addfile(link)

    assert read(write(tmp_path, packed.getvalue())) == [NAME]


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo("index.json")
    entry.type, entry.linkname = kind, target
    return entry


def header(name: str, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"", "this is an empty file, not an archive of images: it has", id="empty"),
        pytest.param(b"hello" * 1000, "this is a file of an unknown format, not", id="no-tar"),
        pytest.param(b"hi\n", "this is a file of an unknown format, not", id="short"),
        pytest.param(b"PK\x03\x04" * 200, "this is a zip file, not an archive of", id="zip"),
        pytest.param(b"\x04\x22\x4d\x18" * 200, "a file packed by lz4, not", id="lz4"),
        pytest.param(b'{"schemaVersion": 2}', "this is a JSON document, not", id="json"),
        pytest.param(tar_of(header("a", 5000))[:2000], "not a whole tar file", id="cut"),
        pytest.param(gzip.compress(b"x" * 9999)[:-9], "not a whole gzip file", id="cut-gzip"),
        pytest.param(bz2.compress(b"x" * 9999)[:-9], "not a whole bzip2 file", id="cut-bzip2"),
        pytest.param(lzma.compress(b"x" * 9999)[:-9], "not a whole xz file", id="cut-xz"),
        pytest.param(
            zstandard.compress(tar_of(header("a", 5000)))[:-9], "not a whole zstd", id="cut-zstd"
        ),
        pytest.param(b"\x1f\x8bnot gzip", "not a whole gzip file", id="damaged-gzip"),
        pytest.param(b"BZhnot bzip2", "not a whole bzip2 file", id="damaged-bzip2"),
        pytest.param(b"\xfd7zXZ\0not xz", "not a whole xz file", id="damaged-xz"),
        pytest.param(b"\x28\xb5\x2f\xfdnot zstd", "not a whole zstd file", id="damaged-zstd"),
        pytest.param(
            lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}]),
            "not a whole xz file",
            id="xz-that-fills-the-memory",
        ),
        pytest.param(tar_of(header("../a")), r"'\.\./a' leads out", id="traversal"),
        pytest.param(tar_of(header("a/../../b")), "leads out of the archive", id="dots-within"),
        pytest.param(tar_of(link("/etc/passwd")), "'/etc/passwd' leads out", id="absolute-link"),
        pytest.param(tar_of(link("../x")), "leads out of the archive", id="link-out"),
        pytest.param(
            tar_of(link("index.json", tarfile.LNKTYPE)), "has no file 'index.json'", id="link-loop"
        ),
        pytest.param(tar_of(header("a")), "neither an index.json nor", id="no-image"),
        pytest.param(make_layer({"index.json": b"{}"}), "archive has no images", id="no-images"),
        pytest.param(make_layer({"index.json": b"["}), "index.json is not JSON", id="no-json"),
        pytest.param(make_layer({"manifest.json": b"[1]"}), "is not a list of images", id="list"),
        pytest.param(
            make_layer({"index.json": b" " * (4 << 20) + b" "}),
            "is larger than",
            id="huge",
        ),
        pytest.param(
            make_layer(docker_archive(RepoTags=None)),
            "image c.json: the archive gives it no full name: choose one with --name NAME",
            id="no-name",
        ),
        pytest.param(
            make_layer(docker_archive(RepoTags=["A B"])),
            "image A B: its name 'A B' is wrong: invalid reference",
            id="bad-name",
        ),
        pytest.param(
            make_layer(docker_archive(Layers=["gone.tar"])), "no file 'gone.tar'", id="no-layer"
        ),
        pytest.param(
            make_layer(docker_archive(Layers=["../../etc/passwd"])), "leads out", id="layer-out"
        ),
        pytest.param(
            make_layer(docker_archive(Layers=[])), "does not name the 0 layers", id="other-layers"
        ),
    ],
)
def test_archive_that_is_wrong_says_what(tmp_path: Path, data: bytes, text: str) -> None:
    with pytest.raises(ImageArchiveError, match=text):
        read(write(tmp_path, data))


def test_what_an_archive_calls_its_files_is_one_line_of_an_error(tmp_path: Path) -> None:
    """Such a name could have the terminal do something, or not be text that can be sent."""
    file = write(tmp_path, tar_of(header("../\x1b[31m\udc80\n" + "x" * 9000)))

    with pytest.raises(ImageArchiveError, match=r"^'\.\./ \[31m x") as error:
        read(file)

    assert str(error.value).isprintable()
    assert len(str(error.value)) == 8000


def test_layout_without_a_blob_says_which(tmp_path: Path) -> None:
    image = build_image()
    lost = image.layers[0].replace(":", "/")
    file = write_layout(tmp_path / "a.tar", {NAME: image})
    kept = {}
    with tarfile.open(file) as tar:
        for entry in tar:
            stream = tar.extractfile(entry)
            if lost not in entry.name and stream is not None:
                kept[entry.name] = stream.read()
    file.write_bytes(make_layer(kept))

    with pytest.raises(ImageArchiveError, match=f"no file 'blobs/{lost}'"):
        read(file)


def test_layout_with_a_changed_manifest_is_refused(tmp_path: Path) -> None:
    image = build_image()
    path = f"blobs/{image.digest.replace(':', '/')}"
    file = write_layout(tmp_path / "a.tar", {NAME: image}, {path: b"{}"})

    with pytest.raises(ImageArchiveError, match="another digest than its name says"):
        read(file)


def write_index(file: Path, image: BuiltImage, *annotations: dict[str, str]) -> Path:
    """Write a layout whose image is listed once for each of the annotations."""
    entries = [{**image.descriptor, "annotations": one} for one in annotations]
    index = json.dumps({"mediaType": OCI["index"], "manifests": entries}).encode()
    return write_layout(file, {NAME: image}, {"index.json": index})


TAG_ALONE = {"org.opencontainers.image.ref.name": "latest"}


@pytest.mark.parametrize("annotation", [{}, TAG_ALONE], ids=["nothing", "tag"])
def test_layout_without_a_full_name_needs_one(tmp_path: Path, annotation: dict[str, str]) -> None:
    image = build_image()
    file = write_index(tmp_path / "a.tar", image, annotation)

    with pytest.raises(
        ImageArchiveError, match=f"^image {image.digest}: the archive gives it no full name"
    ):
        read(file)
    assert read(file, NAME) == [NAME]


def test_docker_archive_without_a_name_needs_one(tmp_path: Path) -> None:
    assert read(write(tmp_path, make_layer(docker_archive(RepoTags=[]))), NAME) == [NAME]


def test_a_name_that_is_given_is_taken_whatever_the_archive_says(tmp_path: Path) -> None:
    file = write_layout(tmp_path / "a.tar", {NAME: build_image()})

    assert read(file, "other:2") == ["docker.io/library/other:2"]


def test_a_name_that_is_given_must_be_one(tmp_path: Path) -> None:
    file = write_layout(tmp_path / "a.tar", {NAME: build_image()})

    with pytest.raises(ImageArchiveError, match="its name 'A B' is wrong: invalid reference"):
        read(file, "A B")


def test_a_name_is_not_given_to_one_of_several(tmp_path: Path) -> None:
    other = "test.example/other:2"
    file = write_layout(tmp_path / "a.tar", {NAME: build_image(), other: build_image()})

    with pytest.raises(ImageArchiveError, match=f"this one has 2: {NAME}, {other}$"):
        read(file, "test.example/named:1")


def test_an_image_with_several_entries_is_one_with_several_names(tmp_path: Path) -> None:
    names = [{"io.containerd.image.name": f"test.example/{n}:1"} for n in "aba"]
    file = write_index(tmp_path / "a.tar", build_image(), *names)

    assert read(file) == ["test.example/a:1", "test.example/b:1"]
    assert read(file, NAME) == [NAME]


def test_all_that_is_wrong_with_each_image_is_said_at_once(tmp_path: Path) -> None:
    first = build_image(run={"User": ["a"], "Entrypoint": "sh"})
    second = build_image(config={"os": None, "rootfs": {"type": "x"}})
    good = build_image()
    entries = [
        first.descriptor,
        {**second.descriptor, "annotations": {"io.containerd.image.name": NAME}},
        {**good.descriptor, "annotations": {"io.containerd.image.name": "test.example/good:1"}},
    ]
    file = write_layout(
        tmp_path / "a.tar",
        {"a:1": first, "b:1": second, "c:1": good},
        {"index.json": json.dumps({"manifests": entries}).encode()},
    )

    with pytest.raises(ImageArchiveError) as error:
        read(file)

    assert str(error.value) == (
        f"image {first.digest}: the archive gives it no full name: choose one with --name NAME, "
        "image config: config: 'User' is not text, "
        "image config: config: 'Entrypoint' is not a list; "
        f"image {NAME}: image config: 'os' is missing, image config: 'rootfs.type' is not "
        "'layers'"
    )


def test_what_builders_attest_of_an_image_is_left_out(tmp_path: Path) -> None:
    """As `docker buildx build --output type=oci` writes it, provenance included."""
    image = build_image()
    attestation = build_image(platform={"os": "unknown", "architecture": "unknown"})
    intoto = json.loads(attestation.document)
    intoto["layers"][0]["mediaType"] = "application/vnd.in-toto+json"
    attestation = replace(attestation, document=json.dumps(intoto).encode())
    index = build_index([image, attestation])

    with open_archive(write_layout(tmp_path / "a.tar", {NAME: index})) as archive:
        (read_image,) = read_images(archive)

    digests = {blob.digest for blob in read_image.content.blobs}
    assert digests == {index.digest, image.digest, *image.blobs}


def test_what_is_listed_but_no_image_is_refused(tmp_path: Path) -> None:
    image = build_image()
    entry = {**image.descriptor, "mediaType": "application/vnd.oci.empty.v1+json"}
    index = json.dumps({"manifests": [entry]}).encode()
    file = write_layout(tmp_path / "a.tar", {NAME: image}, {"index.json": index})

    with pytest.raises(ImageArchiveError, match="empty.v1.json' is no image manifest"):
        read(file)


def test_layout_of_many_nested_indexes_is_refused(tmp_path: Path) -> None:
    index = build_image()
    for _ in range(MAX_DEPTH):
        index = build_index([index])

    with pytest.raises(ImageArchiveError, match=f"{NAME}: its indexes are nested deeper than 4"):
        read(write_layout(tmp_path / "a.tar", {NAME: index}))


def test_archive_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, gzip.compress(bytes(3 << 20)))

    with pytest.raises(ImageArchiveError, match="unpacks to more than 1048576 bytes"):
        read(file, max_bytes=1 << 20)
    assert list(tmp_path.iterdir()) == [file]


def test_manifest_of_another_size_than_is_said_is_refused(tmp_path: Path) -> None:
    image = build_image()
    entry = {**image.descriptor, "size": 1, "annotations": {"io.containerd.image.name": NAME}}
    index = json.dumps({"manifests": [entry]}).encode()
    file = write_layout(tmp_path / "a.tar", {NAME: image}, {"index.json": index})

    with pytest.raises(ImageArchiveError, match=f"{image.digest} has not the size that is said"):
        read(file)


def test_archive_of_too_many_files_is_refused(tmp_path: Path) -> None:
    data = header("f").tobuf() * ((1 << 14) + 1) + bytes(1024)

    with pytest.raises(ImageArchiveError, match="more than 16384 files"):
        read(write(tmp_path, data))
