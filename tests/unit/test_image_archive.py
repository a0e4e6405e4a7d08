"""Hostile and broken archives."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.image.archive import ImageArchiveError, open_archive
from fargate_agent.image.layout import read_images
from tests.fixtures.images import (
    OCI,
    build_image,
    build_index,
    digest_of,
    make_layer,
    write_layout,
)

NAME = "test.example/web:1"


def read(file: Path, **limits: Any) -> list[str]:
    with open_archive(file, **limits) as archive:
        return [name for image in read_images(archive) for name in image.names]


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
    config = json.dumps({"rootfs": {"diff_ids": [digest_of(layer)]}}).encode()
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


def test_compressed_archive_is_read_and_leaves_no_file(tmp_path: Path) -> None:
    file = write_layout(tmp_path / "a.tar", {NAME: build_image()})
    file.write_bytes(gzip.compress(file.read_bytes()))

    assert read(file) == [NAME]
    assert list(tmp_path.iterdir()) == [file]


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
        pytest.param(b"", "not a whole tar file", id="empty"),
        pytest.param(b"hello" * 1000, "not a whole tar file", id="no-tar"),
        pytest.param(tar_of(header("a", 5000))[:2000], "not a whole tar file", id="cut"),
        pytest.param(gzip.compress(b"x" * 9999)[:-9], "not a whole gzip file", id="cut-gzip"),
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
            make_layer(docker_archive(RepoTags=None)), "gives the image no name", id="no-name"
        ),
        pytest.param(
            make_layer(docker_archive(RepoTags=["A B"])), "invalid reference", id="bad-name"
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


@pytest.mark.parametrize("annotation", [{}, {"org.opencontainers.image.ref.name": "latest"}])
def test_layout_without_a_full_name_is_refused(tmp_path: Path, annotation: dict[str, str]) -> None:
    image = build_image()
    entry = {**image.descriptor, "annotations": annotation}
    index = json.dumps({"mediaType": OCI["index"], "manifests": [entry]}).encode()
    file = write_layout(tmp_path / "a.tar", {NAME: image}, {"index.json": index})

    with pytest.raises(ImageArchiveError, match="gives no full name to image sha256"):
        read(file)


def test_archive_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, gzip.compress(bytes(3 << 20)))

    with pytest.raises(ImageArchiveError, match="unpacks to more than 1048576 bytes"):
        read(file, max_bytes=1 << 20)
    assert list(tmp_path.iterdir()) == [file]


def test_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("pax")
    entry.type, entry.size = tarfile.XHDTYPE, 2 << 20
    data = entry.tobuf() + bytes(2 << 20) + bytes(1024)

    with pytest.raises(ImageArchiveError, match="a header in the archive is too large"):
        read(write(tmp_path, data))


def test_archive_of_too_many_files_is_refused(tmp_path: Path) -> None:
    data = b"".join(header(f"f{n}").tobuf() for n in range((1 << 14) + 1)) + bytes(1024)

    with pytest.raises(ImageArchiveError, match="more than 16384 files"):
        read(write(tmp_path, data))
