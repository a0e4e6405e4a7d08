"""Settings from environment, file and default; what is wrong is one line that names the place.

E.g. `/etc/fargate/agent.toml:7: regoin: unknown setting; did you mean region?`
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

from fargate_agent.toml_lines import find_line

CONFIG: Final = "CONFIG"
"""`<PREFIX>CONFIG` names the settings file, so it is no setting itself."""

_AT_LINE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
"""How the parser says where. Source: Python, Lib/tomllib/_parser.py, `suffixed_err_msg`."""

_UNKNOWN: Final = "extra_forbidden"

Settings = TypeVar("Settings", bound="FileSettings")
Model = TypeVar("Model", bound=BaseModel)


class SettingsError(Exception):
    """Settings can't be used; the text is one line that names file, line and key."""


class FileSettings(BaseSettings):
    """Base of settings that come from where `read_settings` has looked, and nowhere else."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values are given to the class: which one wins was decided before."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def read_settings(
    kind: type[Settings], file: Path, options: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings; a file that isn't there counts as empty.

    `options` are those of the command line, by the name of the setting; they win over the
    environment, which wins over the file.

    Raises:
        SettingsError: the file can't be read, a key is unknown, or its value is wrong.
    """
    options = options or {}
    prefix = kind.model_config.get("env_prefix", "")
    text, document = _read_toml(file)
    variables = _read_variables(kind, prefix)
    _refuse_unknown(file, text, document, kind.model_fields)

    def place(fault: ErrorDetails) -> str:
        name = str(fault["loc"][0]) if fault["loc"] else ""
        if name in options:
            return f"--{name.replace('_', '-')}"
        if name in variables:
            return f"environment: {prefix}{name.upper()}"
        return _place(file, text, fault["loc"])

    try:
        return kind(**{**document, **variables, **options})
    except ValidationError as error:
        raise SettingsError(_render(error, place)) from None


def read_document(kind: type[Model], file: Path) -> Model:
    """Read a file that has to be there and says everything itself, such as one of keys.

    Raises:
        SettingsError: it can't be read, or what it says is wrong.
    """
    text, document = _read_toml(file, missing_ok=False)
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise SettingsError(
            _render(error, lambda fault: _place(file, text, fault["loc"]))
        ) from None


def _read_toml(file: Path, *, missing_ok: bool = True) -> tuple[str, dict[str, Any]]:
    try:
        text = file.read_bytes().decode()
    except FileNotFoundError as error:
        if missing_ok:
            return "", {}
        raise SettingsError(f"{file}: {error.strerror}") from None
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{file}:{line}: not UTF-8") from None
    text = text.replace("\r\n", "\n")
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        told = str(error)
        found = _AT_LINE.search(told)
        line = int(found[1]) if found and found[1] else text.count("\n") + 1
        raise SettingsError(f"{file}:{line}: {_AT_LINE.sub('', told)}") from None


def _read_variables(kind: type[FileSettings], prefix: str) -> dict[str, Any]:
    """Return the settings that the environment has.

    Raises:
        SettingsError: a variable is unknown, or is not written as it has to be.
    """
    known = {f"{prefix}{name.upper()}" for name in kind.model_fields}
    for name in sorted(os.environ):
        if name.upper().startswith(prefix) and name.upper() not in {*known, f"{prefix}{CONFIG}"}:
            raise SettingsError(f"environment: {name}: unknown setting{_guess(name, known)}")
    try:
        return EnvSettingsSource(kind)()
    except ValueError as error:  # a list or table that isn't JSON
        raise SettingsError(f"environment: {prefix}*: {error}") from None


def _refuse_unknown(
    file: Path, text: str, document: Mapping[str, object], known: Iterable[str]
) -> None:
    names = list(known)
    for key in document:
        if key not in names:
            place = _place(file, text, (key,))
            raise SettingsError(f"{place}: unknown setting{_guess(key, names)}")


def _render(error: ValidationError, place: Callable[[ErrorDetails], str]) -> str:
    """Name the first fault; never the value, which may be a secret."""
    faults = error.errors(include_input=False, include_url=False)
    # a misspelt key is the cause of one that is missing
    first = next((fault for fault in faults if fault["type"] == _UNKNOWN), faults[0])
    what = "unknown setting" if first["type"] == _UNKNOWN else first["msg"]
    more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
    return f"{place(first)}: {what.removeprefix('Value error, ')}{more}"


def _place(file: Path, text: str, location: Sequence[str | int]) -> str:
    """`FILE:LINE: KEY`, as far as it is known."""
    line = find_line(text, location)
    where = f"{file}" if line is None else f"{file}:{line}"
    return ": ".join(filter(None, (where, ".".join(map(str, location)))))


def _guess(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
