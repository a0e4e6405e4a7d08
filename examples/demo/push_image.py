"""Build a small image from Debian's static busybox and push it to a registry, without a builder.

Usage: push_image.py HOST:PORT NAME:TAG

The image has three layers: a root file system, a web page, and some megabytes that only make the
pull long enough to be watched.
"""

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
PAGE = b"<h1>Hello from a Fargate task on your own machine</h1>\n"
BALLAST_BYTES = 24 * 1024 * 1024
TIMEOUT_S = 60
KIND = "application/vnd.oci.image"


def main() -> None:
    """Push the image."""
    registry, reference = sys.argv[1:]
    repository, _, tag = reference.partition(":")
    base = f"http://{registry}/v2/{repository}"
    layers = [root_layer(), file_layer("www/index.html", PAGE), file_layer("ballast", ballast())]
    config = render_config(layers)
    packed = [gzip.compress(layer, 1, mtime=0) for layer in layers]
    for blob in (*packed, config):
        push_blob(base, blob)
    manifest = render_manifest(config, packed)
    send("PUT", f"{base}/manifests/{tag}", manifest, f"{KIND}.manifest.v1+json")
    sys.stdout.write(f"pushed {registry}/{reference}\n")


def render_config(layers: list[bytes]) -> bytes:
    """Return the configuration of an image of these layers, as they are before compression."""
    return json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        }
    ).encode()


def render_manifest(config: bytes, packed: list[bytes]) -> bytes:
    """Return the manifest of an image of these compressed layers."""
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{KIND}.manifest.v1+json",
            "config": descriptor(f"{KIND}.config.v1+json", config),
            "layers": [descriptor(f"{KIND}.layer.v1.tar+gzip", layer) for layer in packed],
        }
    ).encode()


def root_layer() -> bytes:
    """Return a tar with busybox, a link for each of its applets, and the files sh expects."""
    applets = subprocess.run(
        [BUSYBOX, "--list"], check=True, capture_output=True, text=True, timeout=TIMEOUT_S
    ).stdout.split()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for directory in ("bin", "etc", "tmp", "www"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(entry)
        add_file(tar, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
        add_file(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n", 0o644)
        add_file(tar, "etc/group", b"root:x:0:\n", 0o644)
        for applet in applets:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            if applet != "busybox":
                tar.addfile(entry)
    return content.getvalue()


def file_layer(name: str, data: bytes) -> bytes:
    """Return a tar with one file."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        add_file(tar, name, data, 0o644)
    return content.getvalue()


def ballast() -> bytes:
    """Return bytes that don't compress, the same each time."""
    seed, blocks = b"ballast", []
    for _ in range(BALLAST_BYTES // 64):
        seed = hashlib.sha512(seed).digest()
        blocks.append(seed)
    return b"".join(blocks)


def add_file(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    """Add one regular file."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def digest(data: bytes) -> str:
    """Return the digest of a blob."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(media_type: str, data: bytes) -> dict[str, object]:
    """Return the OCI descriptor of a blob."""
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


def push_blob(base: str, blob: bytes) -> None:
    """Upload one blob: ask for a place, put it there."""
    place = send("POST", f"{base}/blobs/uploads/", b"", "application/octet-stream")
    joint = "&" if "?" in place else "?"
    send("PUT", f"{place}{joint}digest={digest(blob)}", blob, "application/octet-stream")


def send(method: str, url: str, body: bytes, media_type: str) -> str:
    """Send one request and return where the answer points."""
    request = urllib.request.Request(  # noqa: S310 - only http URLs are built here
        url, data=body, method=method, headers={"Content-Type": media_type}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
        return str(answer.headers.get("Location", ""))


if __name__ == "__main__":
    main()
