"""What runs of the VM test that were killed leave, and who removes it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.vm.machine import find_stale, scratch


def test_what_an_ended_process_left_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with subprocess.Popen(["/bin/true"]) as ended:
        pass
    left = tmp_path / f"fargate-vm-{ended.pid}-abc"
    left.mkdir()
    (tmp_path / "fargate-vm-notes").mkdir()

    with scratch() as ours:
        assert ours.name.startswith(f"fargate-vm-{os.getpid()}-")
        assert find_stale(tmp_path) == [left]

    assert not ours.exists()
