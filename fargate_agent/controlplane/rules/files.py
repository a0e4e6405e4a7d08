"""Rules about labels that give a container files. They are ours: ECS has no such thing."""

import posixpath
import re
from collections.abc import Iterator
from typing import Final

from fargate_agent.controlplane.errors import ApiError, client_error
from fargate_agent.controlplane.file_labels import (
    KINDS,
    SECRET_FILE,
    SECRET_KEYS,
    FileLabels,
    read_file_labels,
)
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.validate import Json

MAX_PATH_BYTES: Final = 4095
MAX_NAME_BYTES: Final = 255
"""Source: Linux, `PATH_MAX`, with the byte at its end, and `NAME_MAX`."""
MAX_LABEL_CHARS: Final = 256
"""Of a label that a text names."""

_CLOSED: Final = ("/proc", "/sys", "/dev")
"""Directories of the kernel in every container."""
_TAKEN: Final = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
"""Files that every container has of its task."""

_PREFIX: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)?")


def check_files(draft: Draft) -> None:
    """Raise if a label asks for a file that can't be, or for a secret that isn't there."""
    for container in draft.containers:
        labels = read_file_labels(container)
        if labels.unknown:
            known = ", ".join(f"{kind}…" for kind in KINDS)
            raise _refuse(container, labels.unknown[0], f"there is no such label, but {known}")
        _check_secrets(container, labels)
        _check_paths(container, labels, list(_find_mounts(draft, container["name"])))


def _check_secrets(container: Json, labels: FileLabels) -> None:
    known = {secret["name"] for secret in container.get("secrets", [])}
    for kind, named in ((SECRET_FILE, labels.secret_files), (SECRET_KEYS, labels.secret_keys)):
        for name in named:
            if name not in known:
                raise _refuse(container, kind + name, f"'secrets' has no '{name}'")
    if both := labels.secret_files.keys() & labels.secret_keys.keys():
        name = min(both)
        raise _refuse(container, SECRET_KEYS + name, f"there is {SECRET_FILE}{name} as well")
    for name, prefix in labels.secret_keys.items():
        if not _PREFIX.fullmatch(prefix):
            raise _refuse(
                container,
                SECRET_KEYS + name,
                "what goes before the names of variables must be letters, digits and underscores, "
                "and no digit first",
            )


def _check_paths(container: Json, labels: FileLabels, mounts: list[str]) -> None:
    others = [(path, f"the volume at {path}") for path in mounts]
    tmpfs = [
        posixpath.normpath(one["containerPath"])
        for one in container.get("linuxParameters", {}).get("tmpfs", [])
    ]
    for label, path in labels.paths():
        met = [what for other, what in others if _is_below(path, other) or _is_below(other, path)]
        met += [f"the tmpfs at {other}" for other in tmpfs if _is_below(other, path)]
        if fault := _find_fault(path) or _find_taken(path):
            raise _refuse(container, label, fault)
        if met:
            raise _refuse(container, label, f"{path} and {met[0]} meet")
        others.append((path, f"the path of {label[:MAX_LABEL_CHARS]}"))


def _find_fault(path: str) -> str:
    """Return why a text is no path of a file; empty if it is one."""
    whole = path.encode(errors="surrogatepass")
    if not path.startswith("/"):
        return "the path must begin with /"
    if path == "/" or posixpath.normpath(path) != path or path.startswith("//"):
        return "the path must name a file, without '.', '..' and doubled or last slashes"
    if not path.isprintable():
        return "the path has characters that can't be printed"
    if len(whole) > MAX_PATH_BYTES or max(map(len, whole.split(b"/"))) > MAX_NAME_BYTES:
        return f"a path has at most {MAX_PATH_BYTES} bytes, and {MAX_NAME_BYTES} between slashes"
    return ""


def _find_taken(path: str) -> str:
    """Return why there is no room at a path, whatever the container; empty if there is."""
    for directory in _CLOSED:
        if _is_below(path, directory):
            return f"nothing can be put into {directory}"
    for file in _TAKEN:
        if _is_below(path, file) or _is_below(file, path):
            return f"the task has a {file} of its own"
    return ""


def _find_mounts(draft: Draft, name: str) -> Iterator[str]:
    """Give where a container sees volumes, be they those of another container."""
    by_name = {container["name"]: container for container in draft.containers}
    waiting, seen = [name], set[str]()
    while waiting:
        current = waiting.pop()
        if current in seen or current not in by_name:
            continue
        seen.add(current)
        for point in by_name[current].get("mountPoints", []):
            if path := point.get("containerPath"):
                yield posixpath.normpath(path)
        waiting += [
            source.get("sourceContainer", "") for source in by_name[current].get("volumesFrom", [])
        ]


def _is_below(path: str, other: str) -> bool:
    """Whether a path is another one, or lies in it."""
    return path == other or path.startswith(f"{other.rstrip('/')}/")


def _refuse(container: Json, label: str, fault: str) -> ApiError:
    return client_error(
        f"Invalid label '{label[:MAX_LABEL_CHARS]}' of container '{container['name']}': {fault}."
    )
