from pathlib import Path

import pytest

from fargate_agent.cli import up
from fargate_agent.cli.up import remove_shim_sockets


@pytest.fixture
def run_containerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "containerd"
    monkeypatch.setattr(up, "RUN_CONTAINERD", path)
    return path


@pytest.mark.parametrize("left_by_a_stack", [False, True])
def test_directory_of_shims_goes_with_the_stack_that_made_it(
    run_containerd: Path, left_by_a_stack: bool
) -> None:
    if left_by_a_stack:
        (run_containerd / "s").mkdir(parents=True)

    with remove_shim_sockets():
        (run_containerd / "s").mkdir(parents=True, exist_ok=True)

    assert not run_containerd.exists()


@pytest.mark.parametrize("other", ["containerd.sock", "io.containerd.runtime.v2.task"])
def test_directory_of_shims_stays_if_a_containerd_of_the_system_uses_it(
    run_containerd: Path, other: str
) -> None:
    (run_containerd / "s").mkdir(parents=True)
    (run_containerd / other).touch()

    with remove_shim_sockets():
        pass

    assert (run_containerd / "s").exists()


def test_directory_of_shims_stays_if_another_stack_has_tasks(run_containerd: Path) -> None:
    with remove_shim_sockets():
        (run_containerd / "s").mkdir(parents=True)
        (run_containerd / "s" / "socket").touch()

    assert (run_containerd / "s" / "socket").exists()


def test_directory_of_shims_stays_empty_if_it_was_there_before(run_containerd: Path) -> None:
    run_containerd.mkdir()

    with remove_shim_sockets():
        pass

    assert run_containerd.exists()


def test_directory_of_shims_needn_t_be_made(run_containerd: Path) -> None:
    with remove_shim_sockets():
        pass

    assert not run_containerd.exists()
