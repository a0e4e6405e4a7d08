"""Network configuration lists of CNI: found by name, read and checked.

Source: containernetworking/cni, SPEC.md 1.1.0, section 1.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

VERSIONS: Final = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Versions of the protocol that are spoken, oldest first."""

MAX_FILE_BYTES: Final = 1 << 20

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_SUFFIXES: Final = (".conflist", ".conf", ".json")


class ConflistError(ValueError):
    """A network's configuration is absent, or can't be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginConfig:
    """One plugin of a network."""

    type: str
    capabilities: frozenset[str]
    """Those that the configuration switches on."""
    fields: Mapping[str, Any]
    """The plugin's configuration as written, without `capabilities`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflist:
    """A network: the plugins that an interface passes, in the order of ADD."""

    name: str
    version: str
    plugins: tuple[PluginConfig, ...]
    is_check_disabled: bool = False
    is_gc_disabled: bool = False

    def supports(self, version: str) -> bool:
        """Say whether the network speaks `version` of the protocol, or a later one."""
        return VERSIONS.index(self.version) >= VERSIONS.index(version)

    def render(self) -> Mapping[str, Any]:
        """Return a document of which `parse_conflist` makes the same."""
        return {
            "name": self.name,
            "cniVersion": self.version,
            "disableCheck": self.is_check_disabled,
            "disableGC": self.is_gc_disabled,
            "plugins": [
                {**one.fields, "capabilities": dict.fromkeys(sorted(one.capabilities), True)}
                for one in self.plugins
            ],
        }


def find_conflist(directory: Path, name: str) -> Conflist:
    """Return the network `name`: of the files that hold one, the first by file name; blocks.

    Files that can't be read as a network are passed over, as their names aren't known.

    Raises:
        ConflistError: no file has this name, or the one that has it can't be used.
    """
    try:
        for file, document in _read_documents(directory):
            if document.get("name") == name:
                try:
                    return parse_conflist(document)
                except ConflistError as error:
                    raise ConflistError(f"{file.name}: {error}") from error
    except OSError as error:
        raise ConflistError(f"{directory}: {error.strerror}") from error
    raise ConflistError(f"{directory} has no network '{name}'")


def list_conflists(directory: Path) -> list[Conflist]:
    """Return the networks that can be used, of each name the first; blocks."""
    found: dict[str, Conflist | None] = {}
    with suppress(OSError):
        for _, document in _read_documents(directory):
            name = str(document.get("name"))
            if name not in found:
                found[name] = None
                with suppress(ConflistError):
                    found[name] = parse_conflist(document)
    return [network for network in found.values() if network is not None]


def _read_documents(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in sorted(path for path in directory.iterdir() if path.suffix in _SUFFIXES):
        try:
            if file.stat().st_size > MAX_FILE_BYTES:
                continue
            document = json.loads(file.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(document, dict):
            yield file, document


def parse_conflist(document: Mapping[str, Any]) -> Conflist:
    """Return the network of a list, or of the configuration of a single plugin.

    Raises:
        ConflistError: a field is absent or has a value that can't be used.
    """
    name = document.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConflistError(f"name {name!r} is no name of a network")
    if "plugins" in document:
        plugins = document["plugins"]
    else:
        plugins = [{k: v for k, v in document.items() if k not in ("cniVersion", "name")}]
    if not isinstance(plugins, list) or not plugins:
        raise ConflistError("plugins must be a list of at least one plugin")
    return Conflist(
        name=name,
        version=_choose_version(document),
        plugins=tuple(_parse_plugin(plugin) for plugin in plugins),
        is_check_disabled=_read_flag(document, "disableCheck"),
        is_gc_disabled=_read_flag(document, "disableGC"),
    )


def _choose_version(document: Mapping[str, Any]) -> str:
    offered = document.get("cniVersions", [])
    if not isinstance(offered, list):
        raise ConflistError("cniVersions must be a list")
    offered = [*offered, document["cniVersion"]] if "cniVersion" in document else offered
    spoken = [version for version in VERSIONS if version in offered]
    if not spoken:
        raise ConflistError(f"cniVersion must be one of {', '.join(VERSIONS)}")
    return spoken[-1]


def _parse_plugin(plugin: object) -> PluginConfig:
    if not isinstance(plugin, dict):
        raise ConflistError("a plugin must be an object")
    kind = plugin.get("type")
    if not isinstance(kind, str) or not _NAME.fullmatch(kind):
        raise ConflistError(f"type {kind!r} is no name of a plugin")
    capabilities = plugin.get("capabilities", {})
    if not isinstance(capabilities, dict):
        raise ConflistError(f"plugin {kind}: capabilities must be an object")
    return PluginConfig(
        type=kind,
        capabilities=frozenset(key for key, value in capabilities.items() if value is True),
        fields={key: value for key, value in plugin.items() if key != "capabilities"},
    )


def _read_flag(document: Mapping[str, Any], field: str) -> bool:
    # libcni takes the flags as strings too.
    value = document.get(field, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ConflistError(f"{field} must be true or false")
    return value
