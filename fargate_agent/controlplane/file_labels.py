"""Labels of a container by which it has files, or whole secrets, in the place of variables. Pure.

Fargate has no such thing. A label is a member that every client of ECS passes on as it is, and
that Fargate takes and does nothing with: there, the secret is a variable.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fargate_agent.controlplane.validate import Json

SECRET_FILE: Final = "fargate.secret-file."  # noqa: S105 - a label
"""Before the name of one of the container's `secrets`; the value is the path of a file."""
SECRET_KEYS: Final = "fargate.secret-keys."  # noqa: S105 - a label
"""Before the name of one of the container's `secrets`, a JSON object; each of its members is a
variable, and the value goes before its name."""
TEXT_FILE: Final = "fargate.text-file."
"""Before the path of a file; the value is what is in it."""
KINDS: Final = (SECRET_FILE, SECRET_KEYS, TEXT_FILE)

_FAMILY: Final = re.compile(r"fargate\.(secret|text|file)", re.IGNORECASE)
"""How a label begins that is one of these, or was meant to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLabels:
    """What the labels of one container ask for, whether that makes sense or not."""

    secret_files: dict[str, str]
    """Paths by the name of the secret."""
    secret_keys: dict[str, str]
    """What goes before the names of members, by the name of the secret."""
    texts: dict[str, str]
    """By path."""
    unknown: tuple[str, ...]
    """Labels that look like one of these, and are none."""

    def paths(self) -> Iterator[tuple[str, str]]:
        """Give each label that makes a file, with the path."""
        for name, path in self.secret_files.items():
            yield SECRET_FILE + name, path
        for path in self.texts:
            yield TEXT_FILE + path, path


def read_file_labels(container: Json) -> FileLabels:
    """Return what the labels of a container ask for."""
    labels: dict[str, str] = container.get("dockerLabels", {})

    def of(kind: str) -> dict[str, str]:
        return {
            label.removeprefix(kind): value
            for label, value in labels.items()
            if label.startswith(kind)
        }

    return FileLabels(
        secret_files=of(SECRET_FILE),
        secret_keys=of(SECRET_KEYS),
        texts=of(TEXT_FILE),
        unknown=tuple(
            label for label in labels if _FAMILY.match(label) and not label.startswith(KINDS)
        ),
    )


def render_files(container: Json) -> Json:
    """Return the members `secrets` and `files` of a container as an agent is told them."""
    labels = read_file_labels(container)
    secrets = []
    for secret in container.get("secrets", []):
        name = secret["name"]
        if name in labels.secret_files:
            more = {"type": "MOUNT_POINT", "containerPath": labels.secret_files[name]}
        elif name in labels.secret_keys:
            more = {"type": "ALL_KEYS", "prefix": labels.secret_keys[name]}
        else:
            more = {}
        secrets.append({**secret, **more})
    files = [{"containerPath": path, "text": text} for path, text in labels.texts.items()]
    return {"secrets": secrets, "files": files}


def asks_for_files(container: Json) -> bool:
    """Whether an agent has to know what these labels mean."""
    labels = read_file_labels(container)
    return bool(labels.secret_files or labels.secret_keys or labels.texts)
