"""What a stack chose for itself when it ran last."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from fargate_agent.files import replace_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a stack chose for itself and keeps, so that what still runs there can be taken over."""

    listen: str | None = None
    vpc_cidr: str | None = None
    containerd_namespace: str | None = None


def read_choices(file: Path) -> Choices:
    """Read what was chosen last; nothing, if there is no such file or it makes no sense."""
    try:
        return Choices(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return Choices()


def write_choices(file: Path, choices: Choices) -> None:
    """Keep what was chosen."""
    replace_file(file, json.dumps(asdict(choices)) + "\n")
