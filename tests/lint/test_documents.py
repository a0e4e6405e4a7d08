"""What the documents say of the code is there."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = ("CONTRIBUTING.md", "SECURITY.md", "docs/ARCHITECTURE.md")
PLACES: Final = (
    ".",
    "fargate_agent",
    "fargate_agent/cli",
    "fargate_agent/containerd",
    "fargate_agent/controlplane",
    "fargate_agent/controlplane/state",
    "shim-loggers",
)
"""Documents name a file from one of these on."""

NOT_CODE: Final = {"log-faults/"}
"""Folders below a state directory."""

FILE: Final = re.compile(r"`([a-z_]+(?:[-/][a-z_*]+)*(?:/|\.py)(?:: \w+)?)`")
"""A module or a folder; after a colon, a name in the module."""


def named_files() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        for match in FILE.finditer((CHECKOUT / document).read_text()):
            if match[1] not in NOT_CODE:
                yield document, match[1]


def exists(named: str) -> bool:
    path, _, name = named.partition(": ")
    found = [one for place in PLACES for one in (CHECKOUT / place).glob(path)]
    return any(not name or re.search(rf"\b{name}\b", one.read_text()) for one in found)


def test_every_file_that_a_document_names_is_there() -> None:
    missing = [(document, named) for document, named in named_files() if not exists(named)]

    assert missing == []


def test_documents_name_files() -> None:
    assert {document for document, _ in named_files()} == set(DOCUMENTS)
