"""What no reviewer should have to look for: tools that must find nothing, and rules of our own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

CHECKOUT: Final = Path(__file__).resolve().parents[2]
GENERATED: Final = CHECKOUT / "fargate_agent/containerd/pb"
MAX_LINES: Final = 400

PROGRAMS_WITHOUT_SUFFIX: Final = (
    "cni/plugin",
    "examples/busybox-image",
    "shim-loggers/logger",
    "systemd/install-wheels",
)
"""Python that the tools don't find by themselves."""

LOGGERS: Final = {
    "shim-loggers/json-file": r"#!/bin/sh\n(?s:.*)\nexec /usr/bin/python3 -ISE ",
    "shim-loggers/logger": r"#!/usr/bin/python3 -ISE\n",
}
"""How they begin."""

PUBLIC_HOSTS: Final = {
    "www.apache.org",
    "github.com",
    "docs.aws.amazon.com",
    "ec2.amazonaws.com",  # the name of an XML namespace
}
"""Where text may point to. Programs and tests reach nothing outside of the machine."""

# Composed, so that this file doesn't contain what it looks for.
DEVELOPER_PATH: Final = re.compile(r"(?<![\w./-])/(?:work|Users)" + "/")


def run(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, *command], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def files(suffix: str = "") -> Iterator[Path]:
    """Every file of ours, committed or about to be."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listing.stdout.split("\0"):
        path = CHECKOUT / name
        if name.endswith(suffix) and path.is_file() and GENERATED not in path.parents:
            yield path


def texts() -> Iterator[tuple[Path, str]]:
    for path in files():
        yield path.relative_to(CHECKOUT), path.read_text(encoding="utf-8", errors="replace")


def test_ruff_finds_nothing() -> None:
    run("-m", "ruff", "check", ".", *PROGRAMS_WITHOUT_SUFFIX)


def test_everything_is_formatted() -> None:
    run("-m", "ruff", "format", "--check", ".", *PROGRAMS_WITHOUT_SUFFIX)


@pytest.mark.timeout(300)  # without its cache mypy reads all anew
def test_types_are_right() -> None:
    run("-m", "mypy")


def test_imports_keep_the_contracts() -> None:
    """Those of the package, and those of the loggers, whose packages lie in shim-loggers/."""
    lint = (
        "import sys; sys.path.insert(0, 'shim-loggers'); "
        "from importlinter.cli import lint_imports_command as lint; lint()"
    )
    run("-c", lint, "--no-cache")


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in files(".py")}

    too_long = {str(path): length for path, length in lengths.items() if length > MAX_LINES}

    assert not too_long


def test_one_module_imports_pyroute2() -> None:
    imports = re.compile(r"(?:from|import|import_module\(\") ?\"?pyroute2\b")

    importers = [path for path in files(".py") if imports.search(path.read_text())]

    assert importers == [CHECKOUT / "fargate_agent/network/pyroute.py"]


def test_no_path_of_a_developers_machine_is_written_down() -> None:
    found = [
        f"{path}: {match[0]}" for path, text in texts() for match in DEVELOPER_PATH.finditer(text)
    ]

    assert not found


def test_links_lead_nowhere_but_to_public_documents() -> None:
    links = re.compile(r"\bhttps?://[^\s\"'`<>\\)]+")

    found = [
        f"{path}: {match[0]}"
        for path, text in texts()
        for match in links.finditer(text)
        if not _is_harmless(match[0])
    ]

    assert not found


def _is_harmless(link: str) -> bool:
    """Whether it stays on the machine, is a placeholder, or is in `PUBLIC_HOSTS`."""
    host = re.split(r"[/:?#\[{]", link.partition("//")[2])[0]
    labels = host.split(".")
    return (
        len(labels) == 1
        or labels[-1] in {"example", "test", "invalid", "internal", ""}  # "": a placeholder follows
        or labels[-2:] == ["amazonaws", "com"]  # what the product is for; tests only compare names
        or labels[-2] == "example"
        or all(label.isdecimal() for label in labels)
        or host in PUBLIC_HOSTS
    )


def test_loggers_name_their_interpreter_absolutely() -> None:
    """They are started without an environment, so there is no PATH to look for it."""
    for name, begins in LOGGERS.items():
        program = CHECKOUT / name

        assert re.match(begins, program.read_text())
        assert program.stat().st_mode & 0o111 == 0o111
