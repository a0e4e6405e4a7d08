"""Writes what a container prints to a file, one JSON object a line, and rotates the file.

    json-file --log-path FILE [--max-size 10m] [--max-file 2] [--container-id ID] …

containerd's shim starts it, once per container: fd 3 is the container's stdout, fd 4 its stderr. 0,
1 and 2 are /dev/null, and the environment is empty. `json-file` has checked the flags and told the
shim, by fd 5, that the container may start. The shim keeps the pipes open until the container is
deleted; then they end, SIGTERM follows at once and SIGKILL 12 s later. So SIGTERM only says that
the end is near: what the pipes hold is still read.

A record that doesn't end in a newline goes on in the next record of the same stream.

Only modules that every interpreter has loaded, or that are a few kB: each container pays for them.

Source: containerd, pkg/process/io_util.go and runtime/v2/logging; moby, daemon/logger/jsonfilelog.
"""

import _signal  # type: ignore[import-not-found]  # `signal` loads enum: 5 ms of each start
import posix
import select
import sys
import time

STREAMS = {3: "stdout", 4: "stderr"}
READ_BYTES = 32 * 1024
MAX_LINE_BYTES = 16 * 1024
"""A longer line becomes several records. Source: moby, daemon/logger/copier.go."""
QUIET_MS = 2000
"""After one pipe has ended, the other is given up when nothing comes for so long: a container with
a terminal has a stderr that never ends."""
END_S = 6
"""From SIGTERM to the end, whatever happens: half of what the shim grants."""
FLAGS = ("--log-path", "--max-size", "--max-file", "--container-id", "--container-name")
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}

RECORD = b'{"log":"'
SPECIAL = bytes([ord("\\"), ord('"'), *range(ord("\n")), *range(ord("\n") + 1, ord(" "))])
"""What JSON wants escaped, but for the newline. The backslash goes first: the others add some."""
ORDINARY = bytes(set(range(256)) - set(SPECIAL))


def parse_flags(arguments: list[str]) -> dict[str, str]:
    """Read `--flag value` and `--flag=value` in any order; an empty value counts as none."""
    flags = {}
    rest = arguments[::-1]
    while rest:
        name, equals, value = rest.pop().partition("=")
        if name and name not in FLAGS:
            raise ValueError("unknown flag " + name)
        if name and not equals and rest:
            value = rest.pop()
        if value:
            flags[name] = value
    return flags


def parse_size(text: str) -> int:
    """Read a number of bytes with a decimal unit, e.g. `10m`."""
    text = text.strip().lower().removesuffix("b")
    unit = text[-1:] if text[-1:] in UNITS else ""
    return int(float(text.removesuffix(unit)) * UNITS[unit])


def render_end(stream: str) -> bytes:
    """What follows the text in a record of now; the time is RFC 3339 in UTC."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return b'","stream":"%b","time":"%b.%09dZ"}\n' % (stream.encode(), moment.encode(), nanoseconds)


def render_records(text: bytes, end: bytes) -> bytes:
    """Make one record of each line; the last one may lack its newline."""
    records = RECORD + escape(text).replace(b"\n", b"\\n" + end + RECORD)
    return records.removesuffix(RECORD) if text.endswith(b"\n") else records + end


def render_fault(text: str) -> bytes:
    """Make a record of what went wrong in this program."""
    return render_records(b"json-file: %b\n" % text.encode(), render_end("stderr"))


def escape(text: bytes) -> bytes:
    """Escape text for JSON, newlines excepted. What isn't UTF-8 becomes U+FFFD."""
    try:
        text.decode()
    except UnicodeDecodeError:
        text = text.decode(errors="replace").encode()
    found = text.translate(None, ORDINARY)
    for byte in SPECIAL if found else ():
        if byte in found:
            escaped = b"\\%c" % byte if byte in b'\\"' else b"\\u%04x" % byte
            text = text.replace(bytes([byte]), escaped)
    return text


def cut(line: bytes) -> tuple[list[bytes], bytes]:
    """Take pieces off a line until it isn't too long; between characters where it is UTF-8."""
    pieces = []
    while len(line) > MAX_LINE_BYTES:
        end = MAX_LINE_BYTES
        while end > MAX_LINE_BYTES - 4 and line[end] & 0xC0 == 0x80:
            end -= 1
        pieces.append(line[:end])
        line = line[end:]
    return pieces, line


class Stream:
    """One of the two pipes, and the line that has begun but not ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rest = b""

    def take(self, data: bytes) -> bytes:
        """Return the records of what is complete with `data`."""
        end = render_end(self.name)
        text, newline, rest = (self.rest + data).rpartition(b"\n")
        lines = text.split(b"\n")
        if max(map(len, lines)) <= MAX_LINE_BYTES:
            records = [render_records(text + newline, end)] if newline else []
        else:
            records = []
            for line in lines:
                pieces, last = cut(line)
                records += [render_records(piece, end) for piece in (*pieces, last + newline)]
        pieces, self.rest = cut(rest)
        return b"".join(records + [render_records(piece, end) for piece in pieces])

    def finish(self) -> bytes:
        """Return the record of a last line without newline."""
        text, self.rest = self.rest, b""
        return render_records(text, render_end(self.name)) if text else b""


class LogFile:
    """The file, and its predecessors `<path>.1`, `<path>.2` and so on: the higher, the older."""

    def __init__(self, path: str, max_bytes: int, max_files: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.max_files = max_files
        self.lost = 0
        self.fault = ""
        self.fd = -1
        self.open()

    def open(self) -> None:
        """Open the file, and make the directories that lead to it."""
        make_directory(self.path.rpartition("/")[0])
        flags = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC
        self.fd = posix.open(self.path, flags, 0o640)
        self.size = posix.fstat(self.fd).st_size

    def write(self, records: bytes) -> None:
        """Write records. Those that the disk doesn't take are counted, and reported when it does.

        Waiting for space instead would stop the container. Without records, it only reports.
        """
        if self.lost and not self.append(self.render_loss()):
            self.lost = 0
        self.lost += records.count(b"\n") if self.lost else self.append(records)

    def render_loss(self) -> bytes:
        """The record that stands for those that are missing."""
        return render_fault(f"{self.lost} lines lost: {self.fault}")

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
        """Give every file the next number, drop the oldest, and begin a new one."""
        names = [self.path] + [f"{self.path}.{n}" for n in range(1, self.max_files)]
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if exists(newer):
                posix.rename(newer, older)
        if self.max_files == 1:
            posix.unlink(self.path)
        posix.close(self.fd)
        self.fd = -1
        self.open()


def exists(path: str) -> bool:
    """Whether there is such a file."""
    try:
        posix.stat(path)
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


def catch_signals() -> int:
    """Return a file descriptor that becomes readable when SIGTERM comes."""
    noticed, notice = posix.pipe()
    posix.set_blocking(notice, False)
    _signal.set_wakeup_fd(notice)
    _signal.signal(_signal.SIGTERM, lambda number, frame: None)
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    return noticed


def pump(log: LogFile, sigterm_fd: int) -> None:
    """Copy both pipes into the log until they end; see `QUIET_MS` and `END_S`."""
    streams = {fd: Stream(name) for fd, name in STREAMS.items()}
    poller = select.poll()
    for fd in (*streams, sigterm_fd):
        poller.register(fd, select.POLLIN)
    timeout, deadline = None, float("inf")
    while streams and time.monotonic() < deadline:
        ready = poller.poll(timeout)
        if not ready:
            break
        for fd, _ in ready:
            if fd == sigterm_fd:
                deadline = time.monotonic() + END_S
            elif data := posix.read(fd, READ_BYTES):
                log.write(streams[fd].take(data))
                continue
            else:
                log.write(streams.pop(fd).finish())
            poller.unregister(fd)
            timeout = QUIET_MS
    for stream in streams.values():
        log.write(stream.finish())


def main() -> None:
    """Log until the container is gone."""
    flags = parse_flags(sys.argv[1:])
    max_files = int(flags.get("--max-file", "1"))
    if "--log-path" not in flags or max_files < 1:
        raise ValueError("--log-path is required, and --max-file is at least 1")
    log = LogFile(flags["--log-path"], parse_size(flags.get("--max-size", "0")), max_files)
    sigterm_fd = catch_signals()
    try:
        pump(log, sigterm_fd)
    except BaseException as error:
        log.write(render_fault(repr(error)))
        raise
    log.write(b"")
