"""JSON documents of images, read with distrust: whatever isn't as it should be is said by name."""

import json
from collections.abc import Mapping
from typing import Final

MAX_DOCUMENT_BYTES: Final = 4 << 20
"""Largest manifest, index or image configuration that is read.

Source: OCI distribution specification, "Pushing Manifests": registries should take 4 MiB.
"""


MAX_LIST_LENGTH: Final = 1024
"""Longest list that is read: an image has 127 layers, an index some dozens of manifests. Of 4 MiB,
a million empty objects would take the agent a second and some hundred MiB.

Each manifest of an index is a label of its blob, of 110 bytes, and containerd tells of 100 blobs in
one message of 16 MiB at most. Source: containerd, services/content/contentserver, `List`.
"""

MAX_ERROR_CHARS: Final = 2000
"""More than what a task's reason has room for, and not too much for a line of the log."""


class InvalidDocumentError(ValueError):
    """A document isn't what it should be; the text says which and why, in one line."""

    def __init__(self, text: str) -> None:
        """`text` may hold what strangers wrote."""
        super().__init__(tidy(text, MAX_ERROR_CHARS))


class Document:
    """A JSON object that remembers what it is, for its error texts."""

    def __init__(self, what: str, fields: Mapping[str, object]) -> None:
        self.what = what
        self._fields = fields

    def __contains__(self, key: str) -> bool:
        return self._fields.get(key) is not None

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of all fields."""
        return tuple(self._fields)

    def text(self, key: str, default: str | None = None) -> str:
        """A text; the default if it is absent or null.

        Raises:
            InvalidDocumentError: it is something else, or absent with no default.
        """
        value = self._fields.get(key)
        if value is None:
            if default is None:
                raise InvalidDocumentError(f"{self.what}: '{key}' is missing")
            return default
        if not isinstance(value, str):
            raise InvalidDocumentError(f"{self.what}: '{key}' is not text")
        return value

    def size(self, key: str) -> int:
        """A number of bytes.

        Raises:
            InvalidDocumentError: it is absent, or not a whole number from 0 to 2^63-1.
        """
        value = self._fields.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            raise InvalidDocumentError(f"{self.what}: '{key}' is not a size")
        return value

    def number(self, key: str) -> int | None:
        """A whole number; None if it is absent or something else."""
        value = self._fields.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; none if it is absent or null.

        Raises:
            InvalidDocumentError: it is something else, or too long.
        """
        values = self._list(key)
        texts = tuple(value for value in values if isinstance(value, str))
        if len(texts) != len(values):
            raise InvalidDocumentError(f"{self.what}: '{key}' is not a list of texts")
        return texts

    def child(self, key: str) -> "Document":
        """An object; an empty one if it is absent or null.

        Raises:
            InvalidDocumentError: it is something else.
        """
        value = self._fields.get(key)
        return self._wrap(key, {} if value is None else value)

    def children(self, key: str) -> tuple["Document", ...]:
        """A list of objects; none if it is absent or null.

        Raises:
            InvalidDocumentError: it is something else, or too long.
        """
        return tuple(self._wrap(f"{key}[{n}]", value) for n, value in enumerate(self._list(key)))

    def strings(self) -> dict[str, str]:
        """All fields that are text, e.g. annotations."""
        return {key: value for key, value in self._fields.items() if isinstance(value, str)}

    def _list(self, key: str) -> list[object]:
        value = self._fields.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise InvalidDocumentError(f"{self.what}: '{key}' is not a list")
        if len(value) > MAX_LIST_LENGTH:
            raise InvalidDocumentError(
                f"{self.what}: '{key}' has {len(value)} members; it may have {MAX_LIST_LENGTH}"
            )
        return value

    def _wrap(self, key: str, value: object) -> "Document":
        if not isinstance(value, dict):
            raise InvalidDocumentError(f"{self.what}: '{key}' is not an object")
        return Document(f"{self.what}: {key}", value)


def parse_json(what: str, data: bytes) -> object:
    """Read JSON of whatever shape.

    Raises:
        InvalidDocumentError: it is too large, or not JSON.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidDocumentError(f"{what} is larger than {MAX_DOCUMENT_BYTES} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidDocumentError(f"{what} is not JSON") from error


def parse_document(what: str, data: bytes) -> Document:
    """Read a JSON object.

    Raises:
        InvalidDocumentError: it is too large, not JSON, or not an object.
    """
    value = parse_json(what, data)
    if not isinstance(value, dict):
        raise InvalidDocumentError(f"{what} is not a JSON object")
    return Document(what, value)


def tidy(text: str, max_chars: int) -> str:
    """Return the beginning of a text that strangers wrote, as one line that can be printed."""
    text = text[: 16 * max_chars]  # white space is left out, and there may be MiB of it
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:max_chars]
