"""Settings from environment, file and default; each fault is one line that names the place.

E.g. `/etc/fargate/agent.toml:7: regoin: unknown setting; did you mean region?`
"""

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast

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
    """Settings can't be used; each line of the text is a fault, with file, line and key."""

    def __init__(self, *faults: str) -> None:
        """Take one fault or several."""
        super().__init__("\n".join(faults))


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


@dataclass(frozen=True, slots=True)
class Reading(Generic[Settings]):
    """What was read: the settings that are right, and the faults of the others."""

    settings: Settings
    """Has the default where a value is wrong."""
    faults: tuple[str, ...]
    wrong: frozenset[str]
    """Names of the settings that the faults are about."""
    place: Callable[[Sequence[str | int]], str]
    """Says where a setting stands: `FILE:LINE: KEY`, its variable, or its option."""

    def complete(self, faults: Iterable[tuple[str, str]] = ()) -> Settings:
        """Return the settings if neither they nor these have faults: a setting and what is wrong.

        A setting that has another value than was asked for isn't complained about twice.

        Raises:
            SettingsError: there are faults; names every one.
        """
        more = (f"{self.place((key,))}: {what}" for key, what in faults if key not in self.wrong)
        if every := (*self.faults, *more):
            raise SettingsError(*every)
        return self.settings


def read_settings(
    kind: type[Settings], file: Path, options: Mapping[str, str] | None = None
) -> Reading[Settings]:
    """Read the settings, as far as they are right; a file that isn't there counts as empty.

    `options` are those of the command line, by the name of the setting; they win over the
    environment, which wins over the file.

    Raises:
        SettingsError: the file can't be read, or isn't TOML.
    """
    options = options or {}
    prefix = kind.model_config.get("env_prefix", "")
    text, document = _read_toml(file)
    variables, undecoded = _read_variables(kind, prefix)

    def place(location: Sequence[str | int]) -> str:
        name = str(location[0]) if location else ""
        if name in options:
            return f"--{name.replace('_', '-')}"
        if name in variables or f"{prefix}{name.upper()}" in os.environ:
            return f"environment: {prefix}{name.upper()}"
        return _place(file, text, location)

    unknown = document.keys() - kind.model_fields.keys()
    known = {key: document[key] for key in document.keys() - unknown - set(undecoded)}
    faults = _find_unknown_variables(kind, prefix)
    faults += [
        f"{place((key,))}: unknown setting{_guess(key, kind.model_fields)}"
        for key in document
        if key in unknown
    ]
    settings, wrong = _validate(kind, {**known, **variables, **options})
    faults += [f"{place((name,))}: must be JSON" for name in undecoded]
    faults += [_render(fault, place) for fault in wrong]
    names = {str(fault["loc"][0]) for fault in wrong if fault["loc"]}
    return Reading(settings, tuple(dict.fromkeys(faults)), frozenset({*names, *undecoded}), place)


def _validate(kind: type[Settings], values: dict[str, Any]) -> tuple[Settings, list[ErrorDetails]]:
    """Return settings without the values that are wrong, and what is wrong with these."""
    faults: list[ErrorDetails] = []
    while True:
        try:
            return kind(**values), faults
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False)
            faults += found
            wrong = {fault["loc"][0] for fault in found if fault["loc"]} & values.keys()
            if not wrong:  # the fault is in the defaults, or between settings
                return cast(Settings, kind.model_construct()), faults
            values = {name: value for name, value in values.items() if name not in wrong}


def read_document(kind: type[Model], file: Path) -> Model:
    """Read a file that has to be there and says everything itself, such as one of keys.

    Raises:
        SettingsError: it can't be read, or what it says is wrong.
    """
    text, document = _read_toml(file, missing_ok=False)
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        # a misspelt key is the cause of one that is missing
        faults.sort(key=lambda fault: fault["type"] != _UNKNOWN)
        raise SettingsError(
            *(_render(fault, lambda location: _place(file, text, location)) for fault in faults)
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


def _read_variables(kind: type[FileSettings], prefix: str) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that the environment has, and the names of those that aren't JSON."""
    source, values, undecoded = EnvSettingsSource(kind), dict[str, Any](), list[str]()
    for name, field in kind.model_fields.items():
        value, _, is_complex = source.get_field_value(field, name)
        try:
            prepared = source.prepare_field_value(name, field, value, is_complex)
        except ValueError:
            undecoded.append(name)
            continue
        if prepared is not None:
            values[name] = prepared
    return values, undecoded


def _find_unknown_variables(kind: type[FileSettings], prefix: str) -> list[str]:
    known = {f"{prefix}{name.upper()}" for name in kind.model_fields}
    return [
        f"environment: {name}: unknown setting{_guess(name, known)}"
        for name in sorted(os.environ)
        if name.upper().startswith(prefix) and name.upper() not in {*known, f"{prefix}{CONFIG}"}
    ]


def _render(fault: ErrorDetails, place: Callable[[Sequence[str | int]], str]) -> str:
    """Say what is wrong; never the value, which may be a secret."""
    what = "unknown setting" if fault["type"] == _UNKNOWN else fault["msg"]
    return f"{place(fault['loc'])}: {what.removeprefix('Value error, ')}"


def _place(file: Path, text: str, location: Sequence[str | int]) -> str:
    """`FILE:LINE: KEY`, as far as it is known."""
    line = find_line(text, location)
    where = f"{file}" if line is None else f"{file}:{line}"
    return ": ".join(filter(None, (where, ".".join(map(str, location)))))


def _guess(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
