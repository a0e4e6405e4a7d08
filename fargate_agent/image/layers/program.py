"""Unpack one layer; run as a program by `image.extraction`.

    program DIRECTORY COMPRESSION (lowest | upper)

The layer comes by standard input. When it is unpacked, the exit code is 0 and standard output has
the diff ID, then each opaque directory, each of these with a NUL behind it. Else standard output
says why not, and what is in the directory is worth nothing.
"""

from __future__ import annotations

import errno
import os
import sys

from fargate_agent.image.layers.confine import confine
from fargate_agent.image.layers.headers import UnknownError, read_entry
from fargate_agent.image.layers.stream import OPENERS, NoSpaceError, TarStream
from fargate_agent.image.layers.tree import Space, Tree

EXIT_UNKNOWN = 3
"""containerd has to unpack the layer: this program can't, or it is broken."""

EXIT_NO_SPACE = 4
"""It doesn't fit on the disk."""

_INPUT, _OUTPUT = 0, 1
_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))


def main() -> int:
    """Do what the arguments say; return the exit code."""
    directory, compression, place = sys.argv[1:4]
    try:
        pieces = OPENERS[compression](_INPUT)
        confine(directory)
        said = unpack(TarStream(pieces, Space().note), is_lowest=place == "lowest")
    except NoSpaceError:
        return EXIT_NO_SPACE
    except OSError as error:
        if error.errno in _NO_SPACE:
            return EXIT_NO_SPACE
        return _refuse(os.strerror(error.errno or 0))
    except (UnknownError, MemoryError, ValueError) as error:
        return _refuse(str(error) or type(error).__name__)
    rest = memoryview(said)
    while rest:
        rest = rest[os.write(_OUTPUT, rest) :]
    return 0


def unpack(stream: TarStream, *, is_lowest: bool) -> bytes:
    """Make the files of a layer below `/`; return what the program says.

    Raises:
        UnknownError, OSError, NoSpaceError: it can't be done.
    """
    tree = Tree(is_lowest=is_lowest)
    while (entry := read_entry(stream)) is not None:
        tree.add(entry, stream)
    tree.finish()
    return b"".join(part + b"\0" for part in (stream.finish().encode(), *tree.opaque))


def _refuse(reason: str) -> int:
    os.write(_OUTPUT, reason.encode(errors="replace")[:200])
    return EXIT_UNKNOWN
