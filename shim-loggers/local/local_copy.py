"""A file with one JSON object a line, as Docker's json-file driver writes it, and its rotation.

Source: moby, daemon/logger/jsonfilelog.
"""

import posix
import time
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from local.compressor import Compressor
    from reading.lines import Lines

COMPRESSED = ".gz"
RECORD = b'{"log":"'
SPECIAL = bytes([ord("\\"), ord('"'), *range(ord("\n")), *range(ord("\n") + 1, ord(" "))])
"""What JSON wants escaped, but for the newline. The backslash goes first: the others add some."""


def render_end(stream: str, time_ns: int, attributes: bytes = b"") -> bytes:
    """What follows the text in a record; the time is RFC 3339 in UTC.

    `attributes` are members of the record, each with a comma behind it.
    """
    seconds, nanoseconds = divmod(time_ns, 10**9)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    told = (stream.encode(), attributes, moment.encode(), nanoseconds)
    return b'","stream":"%b",%b"time":"%b.%09dZ"}\n' % told


def render_records(lines: "Lines", attributes: bytes = b"") -> bytes:
    """Make one record of each line. One that goes on in the next record has no newline."""
    end = render_end(lines.stream, lines.time_ns, attributes)
    text = escape(lines.text).replace(b"\n", b"\\n" + end + RECORD)
    return b"".join((RECORD, text, b"" if lines.goes_on else b"\\n", end))


def escape(text: bytes) -> bytes:
    """Escape text for JSON, newlines excepted. What isn't UTF-8 becomes U+FFFD."""
    text = make_valid(text)
    for byte in SPECIAL:
        if byte in text:  # at the speed of memory, which a search for all of them at once is not
            escaped = b"\\%c" % byte if byte in b'\\"' else b"\\u%04x" % byte
            text = text.replace(bytes([byte]), escaped)
    return text


def make_valid(text: bytes) -> bytes:
    """Return UTF-8: what isn't becomes U+FFFD."""
    if text.isascii():  # which takes a tenth of the time
        return text
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode(errors="replace").encode()
    return text


class LocalCopy:
    """The file, and its predecessors `<path>.1`, `<path>.2` and so on: the higher, the older."""

    def __init__(
        self,
        path: str,
        max_bytes: int,
        max_files: int,
        *,
        attributes: bytes = b"",
        compressor: "Compressor | None" = None,
    ) -> None:
        self._lock = allocate_lock()
        self._attributes = attributes
        self._file = LogFile(path, max_bytes, max_files, compressor)

    def write(self, lines: "Lines") -> None:
        """Write lines, or count them as lost."""
        records = render_records(lines, self._attributes)
        with self._lock:
            self._file.write(records)

    def note(self, text: str) -> None:
        """Write what the logger has to say for itself."""
        from reading.lines import Lines  # 0.1 ms of each start

        self.write(Lines("stderr", time.time_ns(), text.encode(errors="replace")))

    def close(self) -> None:
        """Report what was lost last."""
        with self._lock:
            self._file.write(b"")


class LogFile:
    """The files, as bytes.

    Their directory is opened once: a logger that becomes another user may not pass those that lead
    to it.
    """

    def __init__(
        self, path: str, max_bytes: int, max_files: int, compressor: "Compressor | None" = None
    ) -> None:
        self.path = path
        self.directory = -1
        self.max_bytes = max_bytes
        self.max_files = max_files
        self.compressor = compressor
        self.lost = 0
        self.fault = ""
        self.fd = -1
        self.open()

    def open(self) -> None:
        """Open the file, and make the directories that lead to it."""
        if self.directory < 0 or not posix.fstat(self.directory).st_nlink:  # it was removed
            self.open_directory()
        name = self.path.rpartition("/")[2]
        flags = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
        self.fd = posix.open(name, flags, 0o640, dir_fd=self.directory)
        self.size = posix.fstat(self.fd).st_size

    def open_directory(self) -> None:
        """Open the directory, and make it if it isn't there."""
        path = self.path.rpartition("/")[0]
        make_directory(path)
        opened = posix.open(path or "/", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        if self.directory >= 0:
            posix.close(self.directory)
        self.directory = opened

    def write(self, records: bytes) -> None:
        """Write records. Those that the disk doesn't take are counted, and reported when it does.

        Waiting for space instead would stop the container. Without records, it only reports.
        """
        if self.lost and not self.append(self.render_loss()):
            self.lost = 0
        self.lost += records.count(b"\n") if self.lost else self.append(records)

    def render_loss(self) -> bytes:
        """The record that stands for those that are missing."""
        from reading.lines import Lines

        text = f"json-file: {self.lost} lines lost: {self.fault}"
        return render_records(Lines("stderr", time.time_ns(), text.encode()))

    def append(self, records: bytes) -> int:
        """Write records, and return how many could not be written."""
        while records:
            try:
                records = self.append_some(records)
            except OSError as error:
                self.fault = error.strerror or "unknown"
                break
        return records.count(b"\n")

    def append_some(self, records: bytes) -> bytes:
        """Write the records that fit into the file, or rotate; return the remaining ones."""
        if self.fd < 0:
            self.open()
        end = len(records)
        if 0 < self.max_bytes < self.size + end:
            end = records.rfind(b"\n", 0, max(self.max_bytes - self.size, 0)) + 1
            if not end and self.size:
                self.rotate()
                return records
            end = end or records.index(b"\n") + 1
        written = posix.write(self.fd, records[:end])
        if written < end:
            written = records.rfind(b"\n", 0, written) + 1
            posix.ftruncate(self.fd, self.size + written)
            if not written:
                raise OSError(28, "No space left on device")
        self.size += written
        return records[written:]

    def rotate(self) -> None:
        """Give every file the next number, drop the oldest, and begin a new one.

        One that may not rename its file, since it runs as another user, begins it anew.
        """
        if self.compressor is not None:
            self.compressor.wait()
        try:
            for number in range(self.max_files - 1, 0, -1):
                self.move(number)
            if self.max_files == 1:
                posix.unlink(self.path.rpartition("/")[2], dir_fd=self.directory)
        except PermissionError:
            posix.ftruncate(self.fd, 0)
            self.size = 0
            return
        posix.close(self.fd)
        self.fd = -1
        if self.compressor is not None:
            self.compressor.begin(f"{self.path}.1")
        self.open()

    def move(self, number: int) -> None:
        """Give this number to the file that is one newer, be it compressed or not."""
        name, directory = self.path.rpartition("/")[2], self.directory
        older = f"{name}.{number}"
        newer = f"{name}.{number - 1}" if number > 1 else name
        for end, other in (("", COMPRESSED), (COMPRESSED, "")):
            if exists(newer + end, directory):
                if exists(older + other, directory):
                    posix.unlink(older + other, dir_fd=directory)
                posix.rename(newer + end, older + end, src_dir_fd=directory, dst_dir_fd=directory)


def exists(name: str, directory: int) -> bool:
    """Whether there is such a file in an open directory."""
    try:
        posix.stat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def make_directory(path: str) -> None:
    """Make a directory, and those that lead to it."""
    try:
        posix.mkdir(path or "/", 0o750)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_directory(path.rpartition("/")[0])
        make_directory(path)
