"""Files that are compressed, and how they are unpacked: gzip, bzip2, xz and Zstandard."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Final

PIECE_BYTES: Final = 1 << 20

ZSTD_READ_BYTES: Final = 1 << 10
"""Each 4 bytes may become 128 KiB, which are 32 MiB at once. Source: RFC 8878, 3.1.1.2."""

MAX_WINDOW_BYTES: Final = 128 << 20
"""Memory that unpacking may take. `xz -9` needs 65 MiB, `zstd --long` 128 MiB.

Source: xz(1), zstd(1).
"""

MAGIC_BYTES: Final = 8
"""So many first bytes of a file tell its format."""

Unpack = Callable[[BinaryIO], Iterator[bytes]]


class NotWholeError(Exception):
    """A compressed file is cut off or damaged; the text names the format."""


def find_packing(start: bytes) -> str | None:
    """Name the format of a file by its first bytes; None if it isn't compressed."""
    for magic, name in _MAGICS.items():
        if start.startswith(magic):
            return name
    return None


def name_file(start: bytes) -> str:
    """Say what a file is that isn't an archive of images, by its first bytes."""
    if not start:
        return "an empty file"
    found = (name for magic, name in _OTHERS.items() if start.startswith(magic))
    return next(found, "a file of an unknown format")


def unpack(packed: BinaryIO, packing: str) -> Iterator[bytes]:
    """Yield what a compressed file holds, in pieces.

    Raises:
        NotWholeError: it is cut off or damaged, or needs too much memory.
        OSError: it can't be read.
    """
    packed.seek(0)
    try:
        yield from _UNPACKERS[packing](packed)
    except (EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise NotWholeError(packing) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise NotWholeError(packing) from error  # this is how gzip and bz2 say it


def _unpack_gzip(packed: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=packed) as unpacked:
        while piece := unpacked.read(PIECE_BYTES):
            yield piece


def _unpack_bzip2(packed: BinaryIO) -> Iterator[bytes]:
    with bz2.BZ2File(packed) as unpacked:
        while piece := unpacked.read(PIECE_BYTES):
            yield piece


def _unpack_xz(packed: BinaryIO) -> Iterator[bytes]:
    """Unpack streams with zeros between them. `LZMAFile` knows no limit of memory."""
    data = packed.read(PIECE_BYTES)
    while data:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_WINDOW_BYTES)
        while not stream.eof:
            if stream.needs_input and not data:
                data = packed.read(PIECE_BYTES)
                if not data:
                    raise EOFError
            yield stream.decompress(data, PIECE_BYTES)
            data = b""
        data = stream.unused_data.lstrip(b"\0")
        while not data and (more := packed.read(PIECE_BYTES)):
            data = more.lstrip(b"\0")


def _unpack_zstd(packed: BinaryIO) -> Iterator[bytes]:
    """Unpack frames. `stream_reader` doesn't tell a file that is cut off from a whole one."""
    import zstandard  # 5 MB that an agent does without until then

    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    data = packed.read(ZSTD_READ_BYTES)
    try:
        while data:
            frame = decompressor.decompressobj()
            yield frame.decompress(data)
            while not frame.eof:
                data = packed.read(ZSTD_READ_BYTES)
                if not data:
                    raise EOFError
                yield frame.decompress(data)
            data = frame.unused_data or packed.read(ZSTD_READ_BYTES)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


_MAGICS: Final[Mapping[bytes, str]] = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    **{bytes([number, 0x2A, 0x4D, 0x18]): "zstd" for number in range(0x50, 0x60)},
}
"""Source: RFC 1952; bzip2 manual; xz file format, 2.1.1.1; RFC 8878, 3.1.1 and 3.1.2."""

_OTHERS: Final[Mapping[bytes, str]] = {
    b"PK\x03\x04": "a zip file",
    b"PK\x05\x06": "an empty zip file",
    b"7z\xbc\xaf\x27\x1c": "a 7z file",
    b"Rar!\x1a\x07": "a RAR file",
    b"\x04\x22\x4d\x18": "a file packed by lz4",
    b"LZIP": "a file packed by lzip",
    b"\x7fELF": "a program",
    b"QFI\xfb": "a disk image (qcow2)",
    b"hsqs": "a squashfs image",
    b"{": "a JSON document",
    b"<": "an HTML or XML document",
}
"""Source: file(1), its magic database."""

_UNPACKERS: Final[Mapping[str, Unpack]] = {
    "gzip": _unpack_gzip,
    "bzip2": _unpack_bzip2,
    "xz": _unpack_xz,
    "zstd": _unpack_zstd,
}
