"""What the agent's unit does at a reload, with a program in the agent's place."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

UNIT: Final = Path(__file__).resolve().parents[2] / "systemd/fargate-agent.service"

PROGRAM: Final = """
import os, signal, sys, time
from pathlib import Path

told = Path(sys.argv[1])

def reload(*_):
    time.sleep(0.5)  # an agent reads its settings and lets go of its tasks
    told.touch()  # as it tells systemd that it reloads
    os.execv(sys.executable, sys.orig_argv)

if not told.exists():
    signal.signal(signal.SIGHUP, reload)
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that begins anew at SIGHUP, and makes the file `told` just before."""
    program = tmp_path / "agent.py"
    program.write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, program, tmp_path / "told"], stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "ready\n"
        yield agent
        agent.kill()


def read_reload() -> list[str]:
    """The last command of the unit's reload."""
    text = UNIT.read_text().replace("\\\n", "")
    commands = [line for line in text.splitlines() if line.startswith("ExecReload=")]
    return shlex.split(commands[-1].removeprefix("ExecReload="))


def test_reload_lasts_until_the_agent_has_told_that_it_reloads(
    agent: subprocess.Popen[str], tmp_path: Path
) -> None:
    environment = {"PATH": "/usr/bin:/bin", "MAINPID": str(agent.pid)}

    done = subprocess.run(read_reload(), env=environment, check=False, timeout=30)

    assert done.returncode == 0
    assert (tmp_path / "told").exists()
    assert agent.stdout is not None
    assert agent.stdout.readline() == "ready\n"
    assert agent.poll() is None
