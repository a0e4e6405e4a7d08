"""Keys are made at the first start, unless others have used the database with theirs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fargate_agent.controlplane.access.keys import read_keys
from tests.fixtures.controlplane import DEADLINE_S, ForkedControlPlane


@pytest.fixture
def used_database(tmp_path: Path, postgres_url: str) -> Iterator[str]:
    """One that the control plane in `one` uses."""
    with closing(ForkedControlPlane(tmp_path / "one", postgres_url)) as first:
        first.start()
        yield postgres_url


def test_second_control_plane_makes_no_keys_of_its_own(tmp_path: Path, used_database: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "fargate_agent.controlplane", "--listen", "http://127.0.0.1:0"],
        env={
            **os.environ,
            "FARGATE_CONTROL_PLANE_STATE_DIR": str(tmp_path / "two"),
            "FARGATE_CONTROL_PLANE_DATABASE": used_database,
        },
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    keys_file = tmp_path / "two" / "keys.toml"
    assert ended.returncode == os.EX_CONFIG
    assert ended.stderr.splitlines()[-1].endswith(
        f"{keys_file}: not there, but the database is in use already: copy the file from another"
        " control plane that uses it"
    )
    assert not keys_file.exists()


def test_second_control_plane_starts_with_the_keys_of_the_first(
    tmp_path: Path, used_database: str
) -> None:
    (tmp_path / "two").mkdir()
    shutil.copy2(tmp_path / "one" / "keys.toml", tmp_path / "two")

    with closing(ForkedControlPlane(tmp_path / "two", used_database)) as second:
        assert second.start().client().list_clusters()["clusterArns"]


def test_keys_are_made_again_beside_a_database_of_one_s_own(tmp_path: Path) -> None:
    with closing(ForkedControlPlane(tmp_path)) as plane:
        plane.start()
        before = read_keys(tmp_path / "keys.toml")
        plane.kill()
        (tmp_path / "keys.toml").unlink()

        plane.start()

    assert not read_keys(tmp_path / "keys.toml").keys() & before.keys()
