"""Directories of this machine that stand for buckets of S3."""

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fargate_agent.secrets.env_files import MAX_FILE_BYTES
from fargate_agent.secrets.objects import ObjectReference

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class BucketError(Exception):
    """A file can't be read. The text says why, and shows nothing of it."""


def read_object(buckets: Mapping[str, Path], reference: ObjectReference) -> bytes:
    """Return the content of the file that stands for an object; blocks.

    The key is a path below the directory of its bucket. No symbolic link is followed below that:
    the agent is root, and the directory may be anybody's.

    Raises:
        BucketError: no directory stands for the bucket, or there is no such file below it.
    """
    directory = buckets.get(reference.bucket)
    if directory is None:
        raise BucketError(
            f"nothing stands for the bucket {reference.bucket} on this machine, which does without "
            f"AWS: name its directory in the agent's setting local_buckets, e.g. "
            f'local_buckets = {{ "{reference.bucket}" = "/srv/{reference.bucket}" }}'
        )
    *above, name = reference.key.split("/")
    if not name or any(part in {"", ".", ".."} for part in (*above, name)):
        raise BucketError(f"the key {reference.key} is no path below {directory}")
    try:
        return _read_below(directory, above, name)
    except OSError as error:
        why = error.strerror
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            why = f"{why}; symbolic links are not followed there"
        raise BucketError(f"{directory / reference.key}: {why}") from error


def _read_below(directory: Path, above: list[str], name: str) -> bytes:
    at = os.open(directory, _DIRECTORY)
    try:
        for part in above:
            below = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        file = os.open(name, _FILE, dir_fd=at)
    finally:
        os.close(at)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        content = bytearray()
        while piece := os.read(file, MAX_FILE_BYTES + 1 - len(content)):
            content += piece
    finally:
        os.close(file)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"is larger than {MAX_FILE_BYTES} bytes")
    return bytes(content)
