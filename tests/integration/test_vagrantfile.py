"""The Vagrantfile, as far as it can be checked without a machine in the machine."""

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

VAGRANTFILE: Final = Path(__file__).resolve().parents[2] / "Vagrantfile"


def validate(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    (directory / "Vagrantfile").write_text(text)
    return subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=directory,
        env={**os.environ, "VAGRANT_HOME": str(directory), "VAGRANT_CHECKPOINT_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.timeout(120)
def test_vagrantfile_is_valid(tmp_path: Path) -> None:
    done = validate(tmp_path, VAGRANTFILE.read_text())

    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(120)
def test_broken_vagrantfile_would_be_noticed(tmp_path: Path) -> None:
    done = validate(
        tmp_path, VAGRANTFILE.read_text().replace("config.vm.hostname", "config.vm.hst")
    )

    assert done.returncode != 0
    assert "hst" in done.stderr
