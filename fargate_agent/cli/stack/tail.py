"""The lines that are added to a log file."""

import codecs
from pathlib import Path


class Tail:
    """Reads what has been added to a file since the last time."""

    def __init__(self, file: Path) -> None:
        """Begin with the first line; the file needn't be there yet."""
        self._file = file
        self._offset = 0
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._rest = ""

    def read(self) -> list[str]:
        """The whole lines that are new."""
        try:
            with self._file.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(new)
        *lines, self._rest = (self._rest + self._decode(new)).split("\n")
        return lines
