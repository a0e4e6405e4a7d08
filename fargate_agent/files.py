"""Small files that are replaced as a whole: whoever reads one finds the old or the new, never half.

All functions block.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def replace_file(
    path: Path,
    text: str | bytes,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    durable: bool = True,
) -> None:
    """Have a file with this text, whether there was one or not; its directory must be there.

    Args:
        path: where it is to be.
        text: all of it; strings are written as UTF-8.
        mode: its permissions.
        owner: ids of user and group; -1 leaves one as it is.
        durable: whether it survives a power cut when this returns. That takes two fsyncs.

    Raises:
        OSError: it couldn't be written; what was there stays.
    """
    with draft_file(path, text, mode=mode, owner=owner, durable=durable):
        pass


@contextmanager
def draft_file(
    path: Path,
    text: str | bytes,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    durable: bool = True,
) -> Iterator[Path]:
    """Write a file beside `path` and give its path; it takes the place if the body doesn't raise.

    Arguments and errors are those of `replace_file`.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
            if owner is not None:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            file.flush()
            if durable:
                os.fsync(descriptor)
        yield draft
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def sync(path: Path) -> None:
    """Return when what a file holds, or what names a directory has, survives a power cut.

    Raises:
        FileNotFoundError: it isn't there.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find_obstacle(directory: Path) -> Path | None:
    """Return what keeps a directory from being there or made there: something else in its way."""
    for path in (directory, *directory.parents):
        with suppress(OSError):
            if path.is_dir():
                return None
            if path.exists() or path.is_symlink():
                return path
    return None
