"""What make says and does where it isn't root, or where packages are missing."""

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

CHECKOUT: Final = Path(__file__).resolve().parents[2]
DEADLINE_S: Final = 30


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory of programs, among them an apt-get that writes down that it was called."""
    for name, script in {
        "apt-get": f"echo called >{tmp_path}/apt-get-was",
        "dpkg-query": 'case "$*" in *vagrant*) ;; *) echo install ok installed ;; esac',
    }.items():
        write_program(tmp_path / name, script)
    return tmp_path


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def make(programs: Path, *arguments: str, user: int) -> subprocess.CompletedProcess[str]:
    write_program(programs / "id", f"echo {user}")
    variables = {key: os.environ[key] for key in os.environ if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments],
        cwd=CHECKOUT,
        env={**variables, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )


def test_without_root_make_test_says_what_is_left_out_and_runs_the_rest(programs: Path) -> None:
    said = make(programs, "packages-reported", user=1000)

    assert said.returncode == 0
    assert said.stdout == (
        "make test: without root, tests of the machine and the virtual machine are left out\n"
        "Tests that need one of these packages are skipped; as root:\n"
        "    apt-get install vagrant\n"
    )
    assert not (programs / "apt-get-was").exists()
    commands = make(programs, "-n", "test", user=1000).stdout
    assert "-m pytest" in commands
    assert "-m tests.vm" not in commands
    assert "apt-get update" not in commands


def test_as_root_make_test_runs_the_virtual_machine_too(programs: Path) -> None:
    commands = make(programs, "-n", "test", user=0).stdout

    assert " CI=true pytest " in commands
    assert commands.index("apt-get update") < commands.index("-m pytest -n 4")
    assert "-m tests.vm --suite bookworm --journey short" in commands


def test_without_root_packages_that_are_missing_are_named(programs: Path) -> None:
    done = make(programs, "packages-test", user=1000)

    assert done.returncode != 0
    assert done.stderr.startswith(
        "make packages-test: packages are missing, and installing them needs root:\n"
        "    apt-get install vagrant\n"
    )
    assert not (programs / "apt-get-was").exists()


def test_as_root_packages_that_are_missing_are_installed(programs: Path) -> None:
    done = make(programs, "packages-test", user=0)

    assert (done.returncode, done.stdout) == (0, "installing vagrant\n")
    assert (programs / "apt-get-was").exists()
