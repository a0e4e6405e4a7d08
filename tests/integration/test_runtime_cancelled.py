"""A start that is cancelled while a thread makes something: its undo comes after that.

Else the thread makes again what was removed, or somebody else goes on with what is half done.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Final

import pytest

from fargate_agent.drivers import ImageConfig
from fargate_agent.runtime import image_volumes, pidns, roots, volume_fill
from tests.fixtures.runtime import Bench

pytestmark = pytest.mark.root

PAUSE_S: Final = 0.1
"""How long the thread goes on after the cancellation."""


class Held:
    """A function that waits in its thread until the call of it was cancelled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.has_ended = False
        self._loop = asyncio.get_running_loop()
        self._function: Callable[..., Any] = getattr(owner, name)
        self._began = asyncio.Event()
        self._goes_on = threading.Event()
        monkeypatch.setattr(owner, name, self._call)

    def _call(self, *arguments: Any, **more: Any) -> Any:
        self._loop.call_soon_threadsafe(self._began.set)
        self._goes_on.wait(30)
        result = self._function(*arguments, **more)
        self.has_ended = True
        return result

    async def cancel(self, job: asyncio.Task[Any]) -> None:
        """Cancel a job that calls the function, in the middle of the call."""
        async with asyncio.timeout(30):
            await self._began.wait()
        job.cancel()
        self._loop.call_later(PAUSE_S, self._goes_on.set)
        with pytest.raises(asyncio.CancelledError):
            await job


async def test_preparation_that_is_cancelled_ends_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = bench.plan({})
    await bench.storage.ensure(task)
    held = Held(monkeypatch, bench.runtime, "_prepare_host")

    await held.cancel(asyncio.create_task(bench.runtime.prepare(task)))

    assert held.has_ended
    await bench.release(task)
    assert not task.directory.exists()


async def test_shared_pid_namespace_that_is_cancelled_ends_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = bench.plan({}, pidMode="task")
    await bench.storage.ensure(task)
    held = Held(monkeypatch, pidns, "_make_root")

    await held.cancel(asyncio.create_task(bench.runtime.prepare(task)))

    assert held.has_ended
    await bench.release(task)
    assert not task.directory.exists()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(None, "_prepare_host", id="cgroup"),
        pytest.param(roots, "_lay_over", id="root"),
        pytest.param(volume_fill, "_begin", id="begin of a copy"),
        pytest.param(volume_fill, "_finish", id="end of a copy"),
        pytest.param(image_volumes, "_write_paths", id="paths"),
    ],
)
async def test_creation_that_is_cancelled_ends_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    bench.config = ImageConfig(command=("sh",), volumes=("/data",))
    task = bench.plan({})
    await bench.prepare(task)
    held = Held(monkeypatch, owner or bench.runtime._groundwork, name)

    await held.cancel(asyncio.create_task(bench.create(task)))

    assert held.has_ended
    await bench.runtime.stop(task.containers[0])
    await bench.release(task)
    assert not task.directory.exists()
