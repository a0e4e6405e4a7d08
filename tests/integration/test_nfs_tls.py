"""tlshd in the network namespaces of tasks; a program that listens as it does stands for it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fargate_agent.network.namespaces import make_netns
from fargate_agent.volumes import nfs_tls
from fargate_agent.volumes.nfs_tls import TlsHandshakes

pytestmark = pytest.mark.root

_PROGRAM = """#!{python}
import os, socket, time
ours = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)  # NETLINK_GENERIC
ours.bind((os.getpid(), 0))
ours.setsockopt(270, 1, 16)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, the family nlctrl
with open({log!r}, "a") as log:
    print(os.getpid(), os.readlink("/proc/self/ns/net"), file=log)
time.sleep(600)
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where each program that is started writes a line: its process, and its namespace."""
    program, log = tmp_path / "tlshd", tmp_path / "log"
    program.write_text(_PROGRAM.format(python=sys.executable, log=str(log)))
    program.chmod(0o700)
    log.touch()
    monkeypatch.setattr(nfs_tls, "find_program", lambda: str(program))
    return log


@pytest.fixture
async def handshakes() -> AsyncIterator[TlsHandshakes]:
    made = TlsHandshakes()
    yield made
    await made.close()


async def test_one_listens_in_the_namespace_until_its_last_user_goes(
    log: Path, handshakes: TlsHandshakes
) -> None:
    with await asyncio.to_thread(make_netns) as namespace:
        netns = Path(f"/proc/{os.getpid()}/fd/{namespace.fileno()}")
        await handshakes.ensure(netns, Path("/one"))
        await handshakes.ensure(netns, Path("/other"))
        (line,) = await _lines(log, 1)
        pid, inside = line.split()
        assert inside == str(netns.readlink())
        await handshakes.release(netns, Path("/one"))
        assert Path("/proc", pid).exists()
        await handshakes.release(netns, Path("/other"))
        assert not Path("/proc", pid).exists()


async def test_one_that_ends_is_started_again(log: Path, handshakes: TlsHandshakes) -> None:
    await handshakes.ensure(Path("/proc/self/ns/net"), Path("/one"))
    (line,) = await _lines(log, 1)
    os.kill(int(line.split()[0]), signal.SIGKILL)
    _, again = await _lines(log, 2)
    await handshakes.close()
    assert not Path("/proc", again.split()[0]).exists()


async def test_without_the_program_the_package_is_named(
    handshakes: TlsHandshakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nfs_tls, "find_program", lambda: None)
    with pytest.raises(OSError, match="tlshd of the package ktls-utils is not installed"):
        await handshakes.ensure(Path("/proc/self/ns/net"), Path("/one"))


async def _lines(log: Path, count: int) -> list[str]:
    async with asyncio.timeout(30):
        while len(lines := log.read_text().splitlines()) < count:
            await asyncio.sleep(0.02)
    return lines
