"""From what a pipe gives to lines, and to the pieces of lines that are too long."""

import posix

OVERHEAD_BYTES = 200
"""What holding some lines costs beside their text: the objects around it."""


class Lines:
    """Lines of one stream that were read at once, or one piece of a line that is too long."""

    __slots__ = ("_count", "cost", "goes_on", "partial", "stream", "text", "time_ns")

    def __init__(
        self,
        stream: str,
        time_ns: int,
        text: bytes,
        partial: tuple[str, int, bool] | None = None,
        *,
        goes_on: bool = False,
    ) -> None:
        self.stream = stream
        """`stdout` or `stderr`."""
        self.time_ns = time_ns
        """Since 1970."""
        self.text = text
        """Without the last newline: `b"a\\nb"` are two lines, `b""` is an empty one."""
        self.partial = partial
        """Id of the line that this is a piece of, its number from 1, whether it is the last one."""
        self.goes_on = goes_on
        """Whether the last line has no newline: it is a piece, or the output ended with it."""
        self.cost = len(text) + OVERHEAD_BYTES
        """Bytes of memory."""
        self._count = 0

    def count(self) -> int:
        """How many lines these are."""
        if not self._count:
            self._count = count_newlines(self.text) + 1
        return self._count


def count_newlines(text: bytes) -> int:
    """Count them; `bytes.count` takes seven times as long for a single byte (Python 3.11)."""
    return len(text) - len(text.replace(b"\n", b""))


class Splitter:
    """One pipe, and the line that has begun but not ended there.

    A line of up to `max_bytes` comes whole, one that is longer in pieces of at most that size, cut
    between characters where it is UTF-8. A last line without newline comes when the pipe ends.
    """

    def __init__(self, stream: str, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._rest = b""
        self._piece = ("", 0, 0)
        """Id of a line whose beginning was given away, how many pieces it had, when it began."""

    def take(self, data: bytes, now_ns: int) -> list[Lines]:
        """Return what is complete with `data`."""
        text, newline, self._rest = (self._rest + data).rpartition(b"\n")
        taken = self._split(text, now_ns) if newline else []
        if len(self._rest) > self._max_bytes:
            self._rest = self._cut(self._rest, now_ns, taken)
        return taken

    def finish(self, now_ns: int) -> list[Lines]:
        """Return the last line if it has no newline."""
        rest, self._rest = self._rest, b""
        taken = self._split(rest, now_ns) if rest else []
        if taken:
            taken[-1].goes_on = True
        return taken

    def _split(self, text: bytes, now_ns: int) -> list[Lines]:
        taken: list[Lines] = []
        start = self._end_line(text, 0, now_ns, taken) if self._piece[1] else 0
        while start <= len(text):
            end = self._find_too_long(text, start)
            if end >= start:
                taken.append(Lines(self._stream, now_ns, text[start:end]))
                start = end + 1
            else:
                start = self._end_line(text, start, now_ns, taken)
        return taken

    def _find_too_long(self, text: bytes, start: int) -> int:
        """Return where the newline before the first line that is too long stands, or the end."""
        end = start - 1
        while len(text) - end - 1 > self._max_bytes:
            newline = text.rfind(b"\n", end + 1, end + self._max_bytes + 2)
            if newline < 0:
                return end
            end = newline
        return len(text)

    def _end_line(self, text: bytes, start: int, now_ns: int, taken: list[Lines]) -> int:
        """Take pieces up to the end of a line; return where the next one begins."""
        end = text.find(b"\n", start)
        end = len(text) if end < 0 else end
        last = self._cut(text[start:end], now_ns, taken)
        name, number, began_ns = self._piece
        taken.append(Lines(self._stream, began_ns, last, (name, number + 1, True)))
        self._piece = ("", 0, 0)
        return end + 1

    def _cut(self, line: bytes, now_ns: int, taken: list[Lines]) -> bytes:
        while len(line) > self._max_bytes:
            end = self._max_bytes
            while end > self._max_bytes - 4 and line[end] & 0xC0 == 0x80:
                end -= 1
            name, number, began_ns = self._piece
            if not number:
                name, began_ns = _new_id(), now_ns
            self._piece = (name, number + 1, began_ns)
            piece = (name, number + 1, False)
            taken.append(Lines(self._stream, began_ns, line[:end], piece, goes_on=True))
            line = line[end:]
        return line


def _new_id() -> str:
    """64 hexadecimal digits. Source: moby, daemon/logger/copier.go."""
    return posix.urandom(32).hex()
