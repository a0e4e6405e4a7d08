"""Layers as `docker build` makes them: what a command changed in the layers below, as one tar."""

import contextlib
import gzip
import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

COMPRESS_LEVEL: Final = 1

_OPAQUE: Final = "trusted.overlay.opaque"
_KEPT_XATTRS: Final = ("security.capability", "user.")


@dataclass(frozen=True, slots=True)
class Layer:
    """A packed layer on disk."""

    file: Path
    digest: str
    """Of the file."""
    diff_id: str
    """Of the tar in it."""

    @property
    def descriptor(self) -> dict[str, Any]:
        return {
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
            "digest": self.digest,
            "size": self.file.stat().st_size,
        }


class _Hashing:
    """Counts what is written in a digest on its way to a file."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self._target.write(data)
        return len(data)

    def flush(self) -> None:
        self._target.flush()

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


def pack_tree(tree: Path, file: Path) -> Layer:
    """Write a directory as a layer; it may be the upper directory of an overlay.

    What an overlay has removed becomes a whiteout of the OCI image specification.
    """
    with file.open("wb") as opened:
        packed = _Hashing(opened)
        with gzip.GzipFile(
            filename="", mode="wb", compresslevel=COMPRESS_LEVEL, fileobj=packed, mtime=0
        ) as zipped:
            plain = _Hashing(zipped)
            target: Any = plain
            with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                for path in _walk(tree):
                    _add(tar, tree, path)
    return Layer(file, packed.digest, plain.digest)


def _walk(directory: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(directory), key=lambda one: one.name):
        path = Path(entry.path)
        yield path
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path)


def _add(tar: tarfile.TarFile, tree: Path, path: Path) -> None:
    name = str(path.relative_to(tree))
    found = path.lstat()
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
        tar.addfile(tarfile.TarInfo(str(Path(name).with_name(f".wh.{path.name}"))))
        return
    if stat.S_ISSOCK(found.st_mode):
        return
    entry = tar.gettarinfo(path, arcname=name)
    entry.uname = entry.gname = ""
    entry.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in _xattrs(path)}
    if entry.isreg():
        with path.open("rb") as data:
            tar.addfile(entry, data)
    else:
        tar.addfile(entry)
    if stat.S_ISDIR(found.st_mode) and _is_opaque(path):
        tar.addfile(tarfile.TarInfo(f"{name}/.wh..wh..opq"))


def _xattrs(path: Path) -> Iterator[tuple[str, str]]:
    for key in os.listxattr(path, follow_symlinks=False):
        if key.startswith(_KEPT_XATTRS):
            value = os.getxattr(path, key, follow_symlinks=False)
            yield key, value.decode("utf-8", "surrogateescape")


def _is_opaque(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.getxattr(path, _OPAQUE) == b"y"
    return False
