"""One agent for each thing: a second one is refused, and told who the first is."""

import os
import secrets
import subprocess
import sys

import pytest

from fargate_agent.claim import ClaimedError, claim

HOLD = """
import sys
from fargate_agent.claim import claim
with claim(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def name() -> str:
    return f"test {secrets.token_hex(8)}"


def test_name_is_held_by_one(name: str) -> None:
    with (
        claim(name),
        pytest.raises(ClaimedError, match=rf"^process {os.getpid()}$"),
        claim(name),
    ):
        pytest.fail("both hold it")


def test_other_names_are_free(name: str) -> None:
    with claim(name), claim(f"{name} of another"):
        pass


def test_name_is_free_again_afterwards(name: str) -> None:
    for _ in range(2):
        with claim(name):
            pass


def test_name_goes_with_a_process_that_is_killed(name: str) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ClaimedError, match=str(holder.pid)), claim(name):
            pytest.fail("both hold it")
        holder.kill()

    with claim(name):
        pass
