"""Images for the benchmarks, made here."""

import gzip
import importlib.util
import io
import json
import sysconfig
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from types import ModuleType

IMAGE_BYTES = 300_000_000
MATERIAL_BYTES = 100_000_000


def _load_demo() -> ModuleType:
    path = Path(__file__).parent.parent / "examples" / "demo" / "push_image.py"
    spec = importlib.util.spec_from_file_location("push_image", path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


demo = _load_demo()


def write_archive(path: Path, name: str) -> None:
    """Write a `docker save` archive of busybox, which ctr, podman and the agent load."""
    layer = demo.root_layer()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [demo.digest(layer)]},
        }
    ).encode()
    manifest = json.dumps(
        [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    ).encode()
    with tarfile.open(path, "w") as tar:
        for file, data in (
            ("config.json", config),
            ("layer.tar", layer),
            ("manifest.json", manifest),
        ):
            entry = tarfile.TarInfo(file)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def push_layers(registry: str, repository: str, layers: int, files: int) -> None:
    """Push an image of so many layers, with so many files in all and 300 MB unpacked.

    The content is that of this machine's programs and Python files, so that it compresses as images
    do; each layer has it changed, so that none is like another.
    """
    base = f"http://{registry}/v2/{repository}"
    tars = [_layer(index, files // layers, IMAGE_BYTES // layers) for index in range(layers)]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [demo.digest(tar) for tar in tars]},
        }
    ).encode()
    packed = [gzip.compress(tar, 6, mtime=0) for tar in tars]
    for blob in (*packed, config):
        demo.push_blob(base, blob)
    kind = "application/vnd.oci.image"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": demo.descriptor(f"{kind}.config.v1+json", config),
            "layers": [demo.descriptor(f"{kind}.layer.v1.tar+gzip", layer) for layer in packed],
        }
    ).encode()
    demo.send("PUT", f"{base}/manifests/1", manifest, f"{kind}.manifest.v1+json")
    total, plain = sum(map(len, packed)), sum(map(len, tars))
    print(
        f"image {repository}: {layers} layers, {files} files, {plain / 1e6:.0f} MB, "
        f"{total / 1e6:.0f} MB compressed"
    )


def _layer(index: int, files: int, size_bytes: int) -> bytes:
    """Return a layer of files of many sizes, ten to a directory."""
    material, packed = _material(), io.BytesIO()
    random = Random(index)
    shares = [random.expovariate(1) for _ in range(files)]
    at = random.randrange(len(material))
    table = bytes(byte ^ (index + 1) for byte in range(256))
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for number, share in enumerate(shares):
            length = int(share / sum(shares) * size_bytes)
            data = b"".join(_pieces(material, at, length)).translate(table)
            at = (at + length) % len(material)
            if number % 10 == 0:
                entry = tarfile.TarInfo(f"d{index}-{number // 10}")
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            entry = tarfile.TarInfo(f"d{index}-{number // 10}/{number}")
            entry.size, entry.mode, entry.mtime = length, 0o644, 1_600_000_000
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def _pieces(material: bytes, at: int, length: int) -> Iterator[bytes]:
    while length:
        piece = material[at : at + length]
        length -= len(piece)
        at = 0
        yield piece


@cache
def _material() -> bytes:
    """Return what programs are made of: machine code, and Python's source and byte code."""
    library = Path(sysconfig.get_path("stdlib"))
    files = sorted(
        [*library.rglob("*.so"), *library.rglob("*.py*"), *Path("/usr/bin").glob("[a-m]*")]
    )
    return b"".join(file.read_bytes() for file in files if file.is_file())[:MATERIAL_BYTES]


if __name__ == "__main__":  # run inside the registry's network namespace
    import sys

    push_layers(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
