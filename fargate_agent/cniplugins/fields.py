"""The fields of a configuration, by name, with their types checked.

Names count without their case, and null is as good as nothing: so Go decodes JSON, which the
originals of these plugins are written in. Source: Go, encoding/json, `Unmarshal`.
"""

from collections.abc import Mapping
from typing import Any, Final

from fargate_agent.cniplugins.errors import DECODE_FAILURE, INVALID_CONFIG, CniError

_NAMES: Final = {str: "a string", int: "a number", bool: "true or false", list: "a list"}


class Fields:
    """One object of a configuration."""

    def __init__(self, raw: Mapping[str, Any], path: str = "") -> None:
        """`path` is where the object is in the configuration, for messages; empty at its top."""
        self.raw = raw
        self._path = path
        self._folded = {name.casefold(): value for name, value in raw.items()}

    def has(self, name: str) -> bool:
        """Whether a field is there, and not null."""
        return self._folded.get(name.casefold()) is not None

    def value(self, name: str) -> Any:  # noqa: ANN401 - any JSON
        """Return what a field holds, of whatever type; None if it isn't there."""
        exact = self.raw.get(name)
        return self._folded.get(name.casefold()) if exact is None else exact

    def text(self, name: str, default: str = "") -> str:
        """Return a string.

        Raises:
            CniError: it is something else.
        """
        found: str = self._typed(name, str, default)
        return found

    def required(self, name: str) -> str:
        """Return a string that has to be there.

        Raises:
            CniError: it is missing, empty, or something else.
        """
        found = self.text(name)
        if not found:
            raise CniError(f"missing required parameter {self._path}{name}", INVALID_CONFIG)
        return found

    def number(self, name: str, default: int = 0) -> int:
        """Return a whole number.

        Raises:
            CniError: it is something else.
        """
        found: int = self._typed(name, int, default)
        return found

    def flag(self, name: str) -> bool:
        """Return true or false; the latter if it isn't there.

        Raises:
            CniError: it is something else.
        """
        found: bool = self._typed(name, bool, default=False)
        return found

    def texts(self, name: str) -> list[str]:
        """Return a list of strings.

        Raises:
            CniError: it is something else.
        """
        found: list[str] = self._typed(name, list, [])
        if not all(isinstance(one, str) for one in found):
            raise self._wrong(name, "a list of strings")
        return found

    def fields(self, name: str) -> "Fields":
        """Return an object; an empty one if it isn't there.

        Raises:
            CniError: it is something else.
        """
        found = self.value(name)
        if found is None:
            found = {}
        if not isinstance(found, dict):
            raise self._wrong(name, "an object")
        return Fields(found, f"{self._path}{name}.")

    def list_of_fields(self, name: str) -> list["Fields"]:
        """Return a list of objects.

        Raises:
            CniError: it is something else.
        """
        found: list[Any] = self._typed(name, list, [])
        if not all(isinstance(one, dict) for one in found):
            raise self._wrong(name, "a list of objects")
        return [Fields(one, f"{self._path}{name}[{at}].") for at, one in enumerate(found)]

    def _typed(self, name: str, kind: type, default: Any) -> Any:  # noqa: ANN401 - any JSON
        found = self.value(name)
        if found is None:
            return default
        if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
            raise self._wrong(name, _NAMES[kind])
        return found

    def _wrong(self, name: str, wanted: str) -> CniError:
        return CniError(f"{self._path}{name} has to be {wanted}", DECODE_FAILURE)
