"""A layer as it comes: decompressed, hashed, and taken piece by piece."""

from __future__ import annotations

import hashlib
import os

from fargate_agent.image.layers.headers import BLOCK_BYTES, UnknownError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    class Member(Protocol):
        """One member of gzip on its way, as in `zlib`."""

        eof: bool
        unconsumed_tail: bytes
        unused_data: bytes

        def decompress(self, data: bytes, max_length: int, /) -> bytes:
            """Return some of what `data`, and what came before, is decompressed."""
            ...


READ_BYTES = 1 << 18
PIECE_BYTES = 1 << 20
"""The longest piece that is in memory, decompressed."""

MAX_WINDOW_BYTES = 1 << 27
"""The memory that Zstandard may ask for, as for archives of images."""

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WBITS = 31


class NoSpaceError(Exception):
    """The disk is full, or nearly."""


def _open_plain(descriptor: int) -> Iterator[bytes]:
    return iter(lambda: os.read(descriptor, READ_BYTES), b"")


def _open_gzip(descriptor: int) -> Iterator[bytes]:
    """There may be several members, one behind the other."""
    library: Any
    try:
        from isal import isal_zlib as library  # twice as fast
    except ImportError:  # a machine without the wheel
        import zlib as library

    def read() -> Iterator[bytes]:
        data = b""
        while data := data or os.read(descriptor, READ_BYTES):
            if len(data) == 1:
                data += os.read(descriptor, READ_BYTES)
            if data[:2] != _GZIP_MAGIC:
                raise UnknownError("something that isn't gzip")
            member = library.decompressobj(_GZIP_WBITS)
            try:
                yield from _read_member(descriptor, member, data)
            except library.error as error:
                raise UnknownError(f"a layer that can't be decompressed: {error}") from error
            data = member.unused_data

    return read()


def _read_member(descriptor: int, member: Member, data: bytes) -> Iterator[bytes]:
    while True:
        piece = member.decompress(data, PIECE_BYTES)
        if piece:
            yield piece
        if member.eof:
            return
        data = member.unconsumed_tail
        if not data and len(piece) < PIECE_BYTES:
            data = os.read(descriptor, READ_BYTES)
            if not data:
                raise UnknownError("a layer that breaks off")


def _open_zstd(descriptor: int) -> Iterator[bytes]:
    import zstandard  # 15 ms; most layers aren't packed by it

    packed = open(descriptor, "rb", buffering=0, closefd=False)  # noqa: SIM115 - as long as it is
    unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    reader = unpacker.stream_reader(packed, READ_BYTES, read_across_frames=True)

    def read() -> Iterator[bytes]:
        try:
            while piece := reader.read(PIECE_BYTES):
                yield piece
        except zstandard.ZstdError as error:
            raise UnknownError(f"a layer that can't be decompressed: {error}") from error

    return read()


OPENERS: dict[str, Callable[[int], Iterator[bytes]]] = {
    "gzip": _open_gzip,
    "zstd": _open_zstd,
    "plain": _open_plain,
}
"""By the name of the compression: what gives the pieces of a layer, decompressed.

It imports what it needs when it is called, before the process is confined."""


class TarStream:
    """The decompressed layer, read once from beginning to end."""

    def __init__(self, pieces: Iterator[bytes], note: Callable[[int], None]) -> None:
        """`note` hears how long each piece is."""
        self._pieces = pieces
        self._note = note
        self._hash = hashlib.sha256()
        self._piece = memoryview(b"")
        self._at = 0

    def take_block(self) -> bytes | None:
        """Return the next 512 bytes; None where the stream ends.

        Raises:
            UnknownError: it ends within them.
        """
        end = self._at + BLOCK_BYTES
        if end <= len(self._piece):
            block = bytes(self._piece[self._at : end])
            self._at = end
            return block
        if self._at == len(self._piece) and not self._advance():
            return None
        return self.take(BLOCK_BYTES)

    def take(self, size_bytes: int) -> bytes:
        """Return the next bytes, few enough for memory.

        Raises:
            UnknownError: the stream ends before.
        """
        return b"".join(self._views(size_bytes))

    def skip(self, size_bytes: int) -> None:
        """Leave out the next bytes.

        Raises:
            UnknownError: the stream ends before.
        """
        for _ in self._views(size_bytes):
            pass

    def copy(self, size_bytes: int, descriptor: int) -> None:
        """Write the next bytes to a file.

        Raises:
            UnknownError: the stream ends before.
            OSError: they can't be written.
        """
        for view in self._views(size_bytes):
            rest = view
            while rest:
                rest = rest[os.write(descriptor, rest) :]

    def finish(self) -> str:
        """Read to the end; return the digest of all, which is the diff ID of the layer."""
        while self._advance():
            pass
        return f"sha256:{self._hash.hexdigest()}"

    def _views(self, size_bytes: int) -> Iterator[memoryview]:
        while size_bytes:
            if self._at == len(self._piece) and not self._advance():
                raise UnknownError("an archive that breaks off")
            view = self._piece[self._at : self._at + size_bytes]
            self._at += len(view)
            size_bytes -= len(view)
            yield view

    def _advance(self) -> bool:
        """Go on to the next piece; return whether there is one."""
        piece = next(self._pieces, b"")
        self._piece, self._at = memoryview(piece), 0
        self._hash.update(piece)
        self._note(len(piece))
        return bool(piece)
