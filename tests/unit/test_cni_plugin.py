"""What a CNI plugin may do, and what the agent makes of it."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from fargate_agent.network.cni.plugin import PluginError, run_plugin


def _write(directory: Path, script: str) -> Path:
    program = directory / "spy"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


async def test_a_plugin_gets_its_configuration_and_nothing_of_the_agents_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    program = _write(tmp_path, f"env >{tmp_path}/env; cat")
    answer = await run_plugin(program, "ADD", {"a": 1}, {"CNI_IFNAME": "eth1"}, timeout_s=60)
    assert answer == {"a": 1}
    seen = (tmp_path / "env").read_text().splitlines()
    assert {"CNI_COMMAND=ADD", "CNI_IFNAME=eth1"} <= set(seen)
    assert "SECRET=x" not in seen


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("""echo '{"code":11,"msg":"later","details":"busy"}'; exit 1""", r"later; busy .code 11"),
        ("""echo '{"code":100,"msg":"panic"}'""", "panic .code 100"),
        ("exit 3", "exited with 3"),
        ("echo garbage", "no JSON object"),
        ("echo []", "no JSON object"),
        ("exec cat /dev/zero", "more than"),
    ],
)
async def test_a_plugin_that_fails_is_named_with_what_it_said(
    tmp_path: Path, script: str, said: str
) -> None:
    with pytest.raises(PluginError, match=f"CNI plugin spy, ADD: .*{said}"):
        await run_plugin(_write(tmp_path, script), "ADD", {}, {}, timeout_s=60)


async def test_a_plugin_that_prints_nothing_has_no_result(tmp_path: Path) -> None:
    assert await run_plugin(_write(tmp_path, "true"), "DEL", {}, {}, timeout_s=60) is None


async def test_a_plugin_that_hangs_is_killed(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    program = _write(tmp_path, f"exec 9>{started}; echo started >&9; sleep 600 & wait")
    # Its end is read once the plugin and its child are both gone.
    reading = asyncio.create_task(asyncio.to_thread(started.read_bytes))
    try:
        with pytest.raises(PluginError, match="not done within 3 s"):
            await run_plugin(program, "ADD", {}, {}, timeout_s=3)
    finally:
        with contextlib.suppress(OSError):  # let the reader go if the plugin never came so far
            os.close(os.open(started, os.O_WRONLY | os.O_NONBLOCK))
    async with asyncio.timeout(60):
        assert await reading == b"started\n"


async def test_a_daemon_that_keeps_the_output_open_is_not_waited_for(tmp_path: Path) -> None:
    program = _write(tmp_path, f"sleep 600 & echo $! >{tmp_path}/pid; echo '{{}}'")
    try:
        assert await run_plugin(program, "ADD", {}, {}, timeout_s=60) == {}
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 9)
