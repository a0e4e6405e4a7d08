"""Builds the images: a Debian base, and one layer more for each. `python -m tests.images.build`.

An image is kept below `~/.cache`, named after the hash of all that goes into it. The host's apt
configuration says where packages come from.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.images.layers import Layer, pack_tree
from tests.images.recipes import RECIPES, Recipe
from tests.vm.image import find_mirror, run_on_host

SUITE: Final = "bookworm"
CACHE: Final = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fargate-agent-images"
)
_HERE: Final = Path(__file__).parent
_EXCLUDED: Final = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")

_RUN: Final = """\
set -eu
root=$1
mount -t overlay -o "lowerdir=$2,upperdir=$3,workdir=$4" overlay "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
mount --bind /etc/hosts "$root/etc/hosts"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
apt_get() { chroot "$root" apt-get -q -o Acquire::Check-Valid-Until=false "$@"; }
apt_get update
if [ -n "$6" ]; then printf %s "$6" | chroot "$root" sh -eu; fi
apt_get install -y --no-install-recommends $5
printf %s "$7" | chroot "$root" sh -eu
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/log/*.log
"""
"""In a mount namespace of its own: root, layer below, upper, work, packages, before, after."""


@dataclass(frozen=True, slots=True)
class _Base:
    tree: Path
    layer: Layer


def archive_of(recipe: Recipe) -> Path:
    """Where the image of a recipe is, once it has been built."""
    return CACHE / f"{recipe.name}-{_hash_inputs(recipe)}.tar"


def ensure_images(recipes: Mapping[str, Recipe]) -> None:
    """Build the images that aren't there."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [one for one in recipes.values() if not archive_of(one).exists()]
        if not missing:
            return
        base = _ensure_base()
        for recipe in missing:
            began = time.monotonic()
            for old in CACHE.glob(f"{recipe.name}-*.tar"):
                old.unlink()
            with _scratch() as scratch:
                _build(recipe, base, scratch)
            size_mib = archive_of(recipe).stat().st_size >> 20
            took_s = time.monotonic() - began
            sys.stderr.write(f"{recipe.name}: {size_mib} MiB, built in {took_s:.0f} s\n")


def _hash_inputs(recipe: Recipe) -> str:
    inputs = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode())
    for name in ("build.py", "layers.py"):
        inputs.update((_HERE / name).read_bytes())
    return inputs.hexdigest()[:12]


@contextmanager
def _scratch() -> Iterator[Path]:
    """A directory in the cache; those of builds that were killed are removed first."""
    for killed in CACHE.glob(".build-*"):
        run_on_host("rm", "-rf", "--one-file-system", str(killed))
    scratch = Path(tempfile.mkdtemp(prefix=".build-", dir=CACHE))
    try:
        yield scratch
    finally:
        run_on_host("rm", "-rf", "--one-file-system", str(scratch))


def _ensure_base() -> _Base:
    directory = CACHE / f"base-{SUITE}"
    if not directory.is_dir():
        with _scratch() as scratch:
            made = scratch / "base"
            made.mkdir()
            run_on_host(
                "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
                "--include=ca-certificates,curl,tini",
                '--aptopt=Acquire::Check-Valid-Until "false"',
                *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
                SUITE, str(made / "tree"), find_mirror(),
            )  # fmt: skip
            for name, text in {
                "etc/resolv.conf": "",
                "etc/hosts": "127.0.0.1 localhost\n",
                "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
            }.items():
                (made / "tree" / name).write_text(text)
            (made / "tree/usr/sbin/policy-rc.d").chmod(0o755)
            layer = pack_tree(made / "tree", made / "layer.tar.gz")
            (made / "layer.json").write_text(json.dumps([layer.digest, layer.diff_id]))
            made.rename(directory)
    digest, diff_id = json.loads((directory / "layer.json").read_text())
    return _Base(directory / "tree", Layer(directory / "layer.tar.gz", digest, diff_id))


def _build(recipe: Recipe, base: _Base, scratch: Path) -> None:
    for name in ("root", "upper", "work", "files"):
        (scratch / name).mkdir()
    run_on_host(
        "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _RUN, "sh",
        str(scratch / "root"), str(base.tree), str(scratch / "upper"), str(scratch / "work"),
        " ".join(recipe.packages), recipe.before, recipe.setup,
    )  # fmt: skip
    for name, text in recipe.files.items():
        file = scratch / "files" / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755 if text.startswith("#!") else 0o644)
    layers = [
        base.layer,
        pack_tree(scratch / "upper", scratch / "upper.tar.gz"),
        pack_tree(scratch / "files", scratch / "files.tar.gz"),
    ]
    _write_archive(recipe, layers, scratch)


def _write_archive(recipe: Recipe, layers: list[Layer], scratch: Path) -> None:
    """Write an OCI image layout as one tar file."""
    configuration = _write_blob(
        scratch,
        "application/vnd.oci.image.config.v1+json",
        {
            "os": "linux",
            "architecture": "amd64",
            "config": recipe.config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        },
    )
    manifest = _write_blob(
        scratch,
        "application/vnd.oci.image.manifest.v1+json",
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": configuration,
            "layers": [layer.descriptor for layer in layers],
        },
    )
    index = {
        "schemaVersion": 2,
        "manifests": [{**manifest, "annotations": {"io.containerd.image.name": recipe.image}}],
    }
    (scratch / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (scratch / "index.json").write_text(json.dumps(index))
    blobs = {str(one["digest"]): scratch / _hex(one["digest"]) for one in (configuration, manifest)}
    blobs.update({layer.digest: layer.file for layer in layers})
    with tarfile.open(scratch / "image.tar", "w") as tar:
        for name in ("oci-layout", "index.json"):
            tar.add(scratch / name, arcname=name)
        for digest, file in blobs.items():
            tar.add(file, arcname=f"blobs/sha256/{_hex(digest)}")
    shutil.move(scratch / "image.tar", archive_of(recipe))


def _write_blob(directory: Path, media_type: str, document: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(document).encode()
    name = hashlib.sha256(data).hexdigest()
    (directory / name).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(data)}


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


if __name__ == "__main__":
    ensure_images(RECIPES)
