"""Images for the benchmarks, made here."""

import gzip
import importlib.util
import io
import json
import tarfile
from pathlib import Path
from types import ModuleType


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


def push_layers(registry: str, repository: str, layers: int, layer_bytes: int) -> None:
    """Push an image of layers that compress to about four fifths, as programs do."""
    base = f"http://{registry}/v2/{repository}"
    tars = [demo.root_layer()] + [
        demo.file_layer(f"data/{index}", _data(index, layer_bytes)) for index in range(layers)
    ]
    tars = tars[1:]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [demo.digest(tar) for tar in tars]},
        }
    ).encode()
    packed = [gzip.compress(tar, 1, mtime=0) for tar in tars]
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
    total = sum(len(layer) for layer in packed)
    print(f"image: {layers} layers, {total / 1e6:.0f} MB compressed")


def _data(seed: int, size_bytes: int) -> bytes:
    """Return bytes of which a fifth repeats; the same each time."""
    block = demo.ballast()[seed * 4096 :]
    out = io.BytesIO()
    filler = b"\0" * (len(block) // 4)
    while out.tell() < size_bytes:
        out.write(bytes(byte ^ (seed + 1) for byte in block[:4096]))
        out.write(block)
        out.write(filler)
    return out.getvalue()[:size_bytes]


if __name__ == "__main__":  # run inside the registry's network namespace
    import sys

    push_layers(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
