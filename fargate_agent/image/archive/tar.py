"""Archives of images: an OCI image layout, or what `docker save` writes, as one tar file.

Nothing is ever unpacked to the file system: members are found by their offset and read from there.
An archive is not trusted: digests are verified, and whatever points outside of it is refused.
Source: OCI image specification, image-layout.md; Docker image specification v1.2, "Combined Image
JSON + Filesystem Changeset Format".
"""

import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from fargate_agent.image.archive.packing import (
    MAGIC_BYTES,
    NotWholeError,
    find_packing,
    name_file,
    unpack,
)
from fargate_agent.image.document import MAX_DOCUMENT_BYTES, tidy

MAX_ARCHIVE_BYTES: Final = 64 << 30
"""Largest archive when it isn't compressed; the largest public images have a third of it."""

MAX_MEMBERS: Final = 1 << 14
"""An image of 500 layers has 1,500 members at most, and an archive holds a few images."""

MAX_HEADER_BYTES: Final = 64 << 10
"""Longest headers of one file; PAX headers hold little more than a name.

tarfile makes up to 20 times as much of them while it reads them.
"""

MAX_HEADERS_BYTES: Final = 32 << 20
"""Longest headers of all files: 2 KiB for each. The names in them stay in memory."""

MAX_DOCUMENTS_BYTES: Final = 64 << 20
"""Largest manifests, indexes and configurations together, which stay in memory.

Those of an image for one platform have some tens of KiB.
"""

MAX_ERROR_CHARS: Final = 8000
"""As many as name a few dozens of faults, since all that is wrong is told at once."""

COPY_BYTES: Final = 1 << 20
MAX_LINKS: Final = 8


class ImageArchiveError(Exception):
    """An archive isn't what it should be; the text says what is wrong with it, in one line."""

    def __init__(self, text: str) -> None:
        """`text` may hold names of the archive."""
        super().__init__(tidy(text, MAX_ERROR_CHARS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Where the content of a file of the archive lies."""

    offset: int
    size: int


class Archive:
    """A tar file that has been looked through. All methods block."""

    def __init__(self, file: BinaryIO, members: dict[str, Member], links: dict[str, str]) -> None:
        self._file = file
        self._members = members
        self._links = links
        self._read_bytes = 0

    def __contains__(self, name: str) -> bool:
        return name in self._members or name in self._links

    def member(self, name: str) -> Member:
        """Find a file, also by a link that doesn't leave the archive.

        Raises:
            ImageArchiveError: it isn't there.
        """
        found = _normalise(name)
        for _ in range(MAX_LINKS):
            if found in self._members:
                return self._members[found]
            if found not in self._links:
                break
            found = self._links[found]
        raise ImageArchiveError(f"the archive has no file '{name}'")

    def read(self, name: str) -> bytes:
        """Read a small file.

        Raises:
            ImageArchiveError: it isn't there, or isn't small, or all that were read are not.
        """
        member = self.member(name)
        if member.size > MAX_DOCUMENT_BYTES:
            raise ImageArchiveError(f"'{name}' is larger than {MAX_DOCUMENT_BYTES} bytes")
        self._read_bytes += member.size
        if self._read_bytes > MAX_DOCUMENTS_BYTES:
            raise ImageArchiveError(
                "the manifests, indexes and configurations of the archive are larger than "
                f"{MAX_DOCUMENTS_BYTES} bytes together"
            )
        return self.read_at(member, 0, member.size)

    def read_at(self, member: Member, position: int, size: int) -> bytes:
        """Read a piece of a file; shorter at its end."""
        size = min(size, member.size - position)
        return os.pread(self._file.fileno(), size, member.offset + position)


@contextmanager
def open_archive(file: Path, max_bytes: int = MAX_ARCHIVE_BYTES) -> Iterator[Archive]:
    """Look through an archive, which may be compressed. Blocks.

    Raises:
        ImageArchiveError: it isn't a tar file, or a hostile one.
    """
    with file.open("rb") as packed:
        packing = find_packing(packed.read(MAGIC_BYTES))
        if packing is None:
            yield _scan(packed)
            return
        # Beside the archive: there is room for large things, which /tmp may not have.
        with tempfile.TemporaryFile(dir=file.parent) as plain:
            _unpack(packed, packing, plain, max_bytes)
            yield _scan(plain)


def _unpack(packed: BinaryIO, packing: str, plain: BinaryIO, max_bytes: int) -> None:
    written = 0
    try:
        for piece in unpack(packed, packing):
            written += len(piece)
            if written > max_bytes:
                raise ImageArchiveError(f"the archive unpacks to more than {max_bytes} bytes")
            plain.write(piece)
        plain.flush()
    except NotWholeError as error:
        raise ImageArchiveError(f"the archive is not a whole {packing} file") from error
    except OSError as error:
        raise ImageArchiveError(f"the archive can't be unpacked: {error.strerror}") from error


class _Headers(io.FileIO):
    """A file of which tarfile may read headers, and nothing that would fill the memory."""

    def __init__(self, descriptor: int) -> None:
        """Read an open file from its beginning; the file stays open."""
        super().__init__(descriptor, closefd=False)
        self.seek(0)
        self._read_bytes = 0
        self.begin()

    def begin(self) -> None:
        """Begin with the headers of another file of the archive."""
        self._end_bytes = self._read_bytes + MAX_HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= self._end_bytes - self._read_bytes:
            raise ImageArchiveError("a header in the archive is too large")
        self._read_bytes += size
        if self._read_bytes > MAX_HEADERS_BYTES:
            raise ImageArchiveError(
                f"the archive has more than {MAX_HEADERS_BYTES} bytes of headers"
            )
        return super().read(size) or b""


def _scan(file: BinaryIO) -> Archive:
    members: dict[str, Member] = {}
    links: dict[str, str] = {}
    end = os.fstat(file.fileno()).st_size
    try:
        with _Headers(file.fileno()) as headers, _open_tar(headers) as tar:
            for number, entry in enumerate(iter(tar.next, None)):
                if number >= MAX_MEMBERS:
                    raise ImageArchiveError(f"the archive has more than {MAX_MEMBERS} files")
                _note(entry, end, members, links)
                # tarfile would keep each header, with a copy of the records for all files in each
                tar.members, tar.pax_headers = [], {}  # type: ignore[attr-defined]
                headers.begin()
    # tarfile raises IndexError of a sparse file that is cut off, OverflowError of sizes above 2^63
    except (tarfile.TarError, OSError, ValueError, EOFError, IndexError, OverflowError) as error:
        raise ImageArchiveError("the archive is not a whole tar file") from error
    return Archive(file, members, links)


def _open_tar(headers: _Headers) -> tarfile.TarFile:
    """Read the first header."""
    try:
        return tarfile.open(fileobj=headers, mode="r:")
    except tarfile.TarError as error:
        found = name_file(os.pread(headers.fileno(), MAGIC_BYTES, 0))
        raise ImageArchiveError(
            f"this is {found}, not an archive of images: it has to be a tar file, which may be "
            "packed by gzip, bzip2, xz or zstd"
        ) from error


def _note(
    entry: tarfile.TarInfo, end: int, members: dict[str, Member], links: dict[str, str]
) -> None:
    name = _normalise(entry.name)
    if entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not entry.issparse():
        if entry.size < 0 or entry.offset_data + entry.size > end:
            raise ImageArchiveError("the archive is not a whole tar file")
        members[name] = Member(offset=entry.offset_data, size=entry.size)
    elif entry.issym():
        links[name] = _normalise(str(PurePosixPath(name).parent / entry.linkname))
    elif entry.islnk():
        links[name] = _normalise(entry.linkname)


def _normalise(name: str) -> str:
    """Write a path in one way.

    Raises:
        ImageArchiveError: it leads out of the archive.
    """
    parts: list[str] = []
    for part in PurePosixPath(name).parts:
        if part == "/" or (part == ".." and not parts):
            raise ImageArchiveError(f"'{name}' leads out of the archive")
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
