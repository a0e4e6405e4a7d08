"""Compresses the files that a log has left behind, while the log goes on.

The comment in a compressed file names the inode of the one that it replaces, and when that was
written last: so a reader that still has that one open knows what comes next.

Source: RFC 1952.
"""

import posix
import zlib
from _thread import allocate_lock, start_new_thread

COMPRESSED = ".gz"
PART = ".part"
"""What a file is called besides while it is written."""
READ_BYTES = 64 * 1024
FASTEST = 1
"""The container waits for this if it fills files faster: level 6 takes three times as long, for
files that are a fifth smaller."""
RAW = -15
HEADER = b"\x1f\x8b\x08\x10\0\0\0\0\0\xff%d.%d\0"


class Compressor:
    """Compresses one file after the other, in a thread of its own."""

    def __init__(self) -> None:
        self._busy = allocate_lock()

    def begin(self, path: str) -> None:
        """Replace a file with `<path>.gz`; it may not be moved until `wait` has returned."""
        self._busy.acquire()
        start_new_thread(self._run, (path,))

    def wait(self, timeout_s: float = -1) -> bool:
        """Return when nothing is being compressed, or False if that took too long."""
        if not self._busy.acquire(timeout=timeout_s):
            return False
        self._busy.release()
        return True

    def _run(self, path: str) -> None:
        part = path + COMPRESSED + PART
        try:
            compress(path, part)
            posix.rename(part, path + COMPRESSED)
            posix.unlink(path)
        except OSError:
            remove(part)  # the disk may be full; the file stays as it is, and is read as it is
        finally:
            self._busy.release()


def compress(path: str, to: str) -> None:
    """Write a compressed copy of a file.

    Raises:
        OSError: it can't be read, or the copy not be written.
    """
    modes = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC
    source = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    target = posix.open(to, modes, 0o640)
    try:
        packer = zlib.compressobj(FASTEST, zlib.DEFLATED, RAW)
        origin = posix.fstat(source)
        _write(target, HEADER % (origin.st_ino, origin.st_mtime_ns))
        checksum, size = 0, 0
        while data := posix.read(source, READ_BYTES):
            checksum, size = zlib.crc32(data, checksum), size + len(data)
            _write(target, packer.compress(data))
        end = checksum.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")
        _write(target, packer.flush() + end)
    finally:
        posix.close(source)
        posix.close(target)


def remove(path: str) -> None:
    """Remove a file if it is there."""
    try:
        posix.unlink(path)
    except OSError:
        return


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[posix.write(fd, data) :]
