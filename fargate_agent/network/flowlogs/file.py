"""Flow logs in a file: whole lines, with older files beside it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fargate_agent.network.flowlogs.destination import Destination, DestinationError
from fargate_agent.threads import in_thread

MAX_FILE_BYTES: Final = 64 << 20
MAX_FILES: Final = 5
"""With the one that is written."""


class FlowLogFile(Destination):
    """Appends to a file that only root reads; one that is full gets a number."""

    def __init__(self, file: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._file = file
        self._max_bytes = max_bytes

    async def write(self, lines: Mapping[str, Sequence[str]], at_s: int) -> None:
        del at_s
        text = "".join(f"{line}\n" for of_eni in lines.values() for line in of_eni)
        try:
            await in_thread(self._append, text.encode())
        except OSError as error:
            raise DestinationError(f"{self._file}: {error.strerror}") from error

    def _append(self, data: bytes) -> None:
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab", buffering=0) as opened:
            size_bytes = os.fstat(opened.fileno()).st_size
            written = opened.write(data)
            if written < len(data):  # a full disk: no half a line stays
                os.ftruncate(opened.fileno(), size_bytes)
                raise OSError(28, os.strerror(28))
        if size_bytes + len(data) >= self._max_bytes:
            self._rotate()

    def _rotate(self) -> None:
        for number in range(MAX_FILES - 1, 0, -1):
            older = self._numbered(number - 1) if number > 1 else self._file
            if older.exists():
                older.replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self._file.with_name(f"{self._file.name}.{number}")
