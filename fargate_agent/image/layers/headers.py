"""The headers of a tar stream, as Go's archive/tar reads them.

Formats: V7, USTAR, PAX and GNU. Not STAR, sparse files, PAX records for all entries, or numbers
below 0.

Source: Go, archive/tar/reader.go, archive/tar/format.go; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

TYPE_CHECKING = False  # without `typing`, which takes 5 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable

    from fargate_agent.image.layers.stream import TarStream

BLOCK_BYTES = 512
MAX_SPECIAL_BYTES = 1 << 20
"""Of PAX records or a long name. Source: Go, archive/tar/format.go, `maxSpecialFileSize`."""

FILE, HARD_LINK, SYMLINK, CHAR, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
KNOWN_TYPES = frozenset((FILE, HARD_LINK, SYMLINK, CHAR, BLOCK, DIRECTORY, FIFO))
"""Type flags of entries that become files."""

XATTR_PREFIX = b"SCHILY.xattr."

_ZEROS = bytes(BLOCK_BYTES)
_PAX, _LONG_NAME, _LONG_LINK = b"x", b"L", b"K"
_OLD_FILE = b"\0"
_MAX_NS = (1 << 63) - 1
_MAX_ID = 0xFFFFFFFE
_NS = 1_000_000_000


class UnknownError(Exception):
    """The layer has something that this program doesn't unpack, or isn't well-formed."""


class Entry:
    """One file of a layer."""

    __slots__ = (
        "atime_ns",
        "ctime_ns",
        "device",
        "gid",
        "kind",
        "link",
        "mode",
        "mtime_ns",
        "name",
        "size_bytes",
        "uid",
        "xattrs",
    )

    def __init__(self, block: bytes, kind: bytes) -> None:
        magic = block[257:265]
        self.kind = kind
        self.name = _text(block[0:100])
        self.mode = _number(block[100:108]) & 0o7777
        self.uid = _number(block[108:116])
        self.gid = _number(block[116:124])
        self.size_bytes = _number(block[124:136])
        self.mtime_ns = _number(block[136:148]) * _NS
        self.atime_ns = self.ctime_ns = 0
        self.link = _text(block[157:257])
        self.device = (0, 0)
        self.xattrs: list[tuple[bytes, bytes]] = []
        if magic[:6] == b"ustar\0":
            if block[508:512] == b"tar\0":
                raise UnknownError("the format STAR")
            if prefix := _text(block[345:500]):
                self.name = prefix + b"/" + self.name
        elif magic == b"ustar  \0":
            if block[345:500] != _ZEROS[:155]:
                raise UnknownError("times or a prefix in a GNU header")
        else:
            return
        self.device = (_number(block[329:337]), _number(block[337:345]))

    def merge(self, records: dict[bytes, bytes]) -> None:
        """Let PAX records replace what the header says."""
        for key, value in records.items():
            if key.startswith(XATTR_PREFIX):
                self.xattrs.append((key[len(XATTR_PREFIX) :], value))
            elif key.startswith(b"GNU.sparse."):
                raise UnknownError("a sparse file")
            elif value and key in _RECORDS:
                name, parse = _RECORDS[key]
                setattr(self, name, parse(value))

    def check(self) -> None:
        """Refuse what can't be made, and put times into the range that containerd allows."""
        if self.uid > _MAX_ID or self.gid > _MAX_ID:
            raise UnknownError("an owner above 4294967294")
        if self.size_bytes > _MAX_NS:
            raise UnknownError("a size that isn't possible")
        self.atime_ns = max(self.atime_ns, self.mtime_ns)
        if self.mtime_ns > _MAX_NS:
            self.mtime_ns = 0
        if self.atime_ns > _MAX_NS:
            self.atime_ns = 0
        if self.kind != FILE:
            self.size_bytes = 0


def read_entry(stream: TarStream) -> Entry | None:
    """Return the next entry, with the stream at its content; None at the end of the archive.

    Raises:
        UnknownError: it isn't a header, or one of a kind that isn't known.
    """
    records: dict[bytes, bytes] = {}
    long_name = long_link = b""
    while True:
        block = stream.take_block()
        if block is None or block == _ZEROS:
            _check_end(stream, block, bool(records or long_name or long_link))
            return None
        _check_sum(block)
        kind = block[156:157]
        if kind in {_PAX, _LONG_NAME, _LONG_LINK}:
            data = _take_special(stream, _number(block[124:136]))
            if kind == _PAX:
                records = _parse_records(data)
            elif kind == _LONG_NAME:
                long_name = _text(data)
            else:
                long_link = _text(data)
            continue
        entry = Entry(block, FILE if kind == _OLD_FILE else kind)
        entry.merge(records)
        entry.name = long_name or entry.name
        entry.link = long_link or entry.link
        if kind == _OLD_FILE and entry.name.endswith(b"/"):
            entry.kind = DIRECTORY
        if entry.kind not in KNOWN_TYPES:
            raise UnknownError(f"an entry of type {kind!r}")
        entry.check()
        return entry


def _check_end(stream: TarStream, block: bytes | None, is_pending: bool) -> None:
    """Raise if this isn't how an archive ends: two blocks of zeros, or the end of the stream."""
    if is_pending:
        raise UnknownError("records that belong to no entry")
    if block is not None:
        second = stream.take_block()
        if second is not None and second != _ZEROS:
            raise UnknownError("one block of zeros between entries")


def _check_sum(block: bytes) -> None:
    field = block[148:156]
    if sum(block) - sum(field) + 8 * 32 != _number(field):
        raise UnknownError("a header with a wrong checksum")


def _take_special(stream: TarStream, size_bytes: int) -> bytes:
    if size_bytes > MAX_SPECIAL_BYTES:
        raise UnknownError("records or a name of more than 1 MiB")
    data = stream.take(size_bytes)
    stream.skip(-size_bytes % BLOCK_BYTES)
    return data


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Read a number of a header: octal digits, or base 256 with the highest bit set."""
    if field[:1] >= b"\x80":
        if field[0] & 0x40:
            raise UnknownError("a number below 0")
        return int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
    digits = field.strip(b" \0").partition(b"\0")[0]
    if not digits:
        return 0
    if digits.translate(None, b"01234567"):
        raise UnknownError("a number that isn't octal")
    return int(digits, 8)


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 19:
        raise UnknownError("a PAX number that isn't one")
    return int(value)


def _time_ns(value: bytes) -> int:
    """Read seconds with a fraction; digits after the ninth are cut off."""
    seconds, _, fraction = value.partition(b".")
    if fraction and not fraction.isdigit():
        raise UnknownError("a PAX time that isn't one")
    return _decimal(seconds) * _NS + int(fraction[:9].ljust(9, b"0"))


_RECORDS: dict[bytes, tuple[str, Callable[[bytes], object]]] = {
    b"path": ("name", bytes),
    b"linkpath": ("link", bytes),
    b"size": ("size_bytes", _decimal),
    b"uid": ("uid", _decimal),
    b"gid": ("gid", _decimal),
    b"mtime": ("mtime_ns", _time_ns),
    b"atime": ("atime_ns", _time_ns),
    b"ctime": ("ctime_ns", _time_ns),
}
"""What a PAX record sets, and how it is read."""


def _parse_records(data: bytes) -> dict[bytes, bytes]:
    """Parse records, "LENGTH KEY=VALUE" and a line feed; of two with one key the last counts."""
    records: dict[bytes, bytes] = {}
    start = 0
    while start < len(data):
        space = data.find(b" ", start, start + 20)
        length = _decimal(data[start:space]) if space > 0 else 0
        end = start + length
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        is_text = key in {b"path", b"linkpath", b"uname", b"gname"}
        if (
            length < 5
            or end > len(data)
            or data[end - 1 : end] != b"\n"
            or not (key and equals)
            or b"\0" in (value if is_text else key)
        ):
            raise UnknownError("PAX records that aren't well-formed")
        records[key] = value
        start = end
    return records
