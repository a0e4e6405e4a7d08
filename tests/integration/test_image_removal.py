"""What happens to images and layers while the collector is at work, in a real containerd."""

import asyncio

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.image.content import render_ref
from fargate_agent.image.uses import turn_of
from tests.fixtures.unused_images import HOUR, Machine

pytestmark = pytest.mark.root


@pytest.fixture
def machine(containerd: Containerd) -> Machine:
    return Machine(containerd=containerd)


async def test_an_image_that_is_loaded_or_pulled_anew_meanwhile_stays(machine: Machine) -> None:
    for name in ("a:1", "loaded:1", "pulled:1", "gone:1"):
        await machine.add(name, 5 * HOUR)
    collector = machine.collector()

    async with turn_of(machine.locks, "docker.io/library/gone:1"):
        cleaning = asyncio.create_task(collector.clean_up())
        while "a:1" in await machine.names():
            await asyncio.sleep(0.01)
        await machine.add("loaded:1", 5 * HOUR, is_loaded=True)
        await machine.add("pulled:1", 5 * HOUR)
        await machine.containerd.images.delete("docker.io/library/gone:1")

    assert await cleaning == ["docker.io/library/a:1"]
    assert await machine.names() == ["loaded:1", "pulled:1"]


async def test_a_full_disk_is_relieved_of_unfinished_layers_before_images(
    machine: Machine,
) -> None:
    await machine.add("web:1", 5 * HOUR)
    content = machine.containerd.content
    idle, busy = (render_ref(f"sha256:{digit * 64}") for digit in "12")
    for ref in (idle, busy):
        async with content.open_writer(ref, ref.removeprefix("layer-"), 100) as writer:
            await writer.write(b"1" * 50)

    async def measure() -> float:
        return 95 if idle in await content.list_unfinished() else 50

    machine.disk = measure
    async with machine.locks.lock(busy.removeprefix("layer-")):
        await machine.collector().look()

    assert await content.list_unfinished() == (busy,)
    assert await machine.names() == ["web:1"]
    await content.abort(busy)
