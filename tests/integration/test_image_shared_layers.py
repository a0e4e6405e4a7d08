"""Layers that several tasks need, one of them from a registry that is slow, or means to be."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from fargate_agent.containerd.content import Content
from fargate_agent.containerd.types import Descriptor
from fargate_agent.drivers import Image
from fargate_agent.image import content as content_module
from fargate_agent.image import staging as staging_module
from fargate_agent.image.content import LEAST_GAIN_BYTES, MAX_LOOKS, render_ref, take_ref
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.plan import TaskPlan
from tests.fixtures.busybox import SNAPSHOTTER
from tests.fixtures.images import BuiltImage, build_image, random_layer
from tests.fixtures.pulls import Puller, eventually
from tests.fixtures.registry import FakeRegistry, Fault, bind_loopback

pytestmark = pytest.mark.root

LAYER_BYTES = 3_000_000


@pytest.fixture
async def slow_registry(puller: Puller) -> AsyncIterator[FakeRegistry]:
    registry = FakeRegistry()
    async with registry.serve(bind_loopback()):
        hosts = (*puller.settings.insecure_registries, registry.host)
        puller.settings = replace(puller.settings, insecure_registries=hosts, deadline_s=60)
        yield registry


@pytest.fixture
def image() -> BuiltImage:
    """An image of which the lowest layer is the largest."""
    return build_image([random_layer(LAYER_BYTES), random_layer(), random_layer()])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content_module, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(staging_module, "PATIENCE_S", 0.1)


async def begin_slowly(
    puller: Puller, registry: FakeRegistry, image: BuiltImage
) -> tuple[asyncio.Task[Image], TaskPlan]:
    """Pull from a registry that sends half of the lowest layer; return when all else has come."""
    name = registry.add("slow", "latest", image)
    layer, *others = image.layers
    registry.gates[layer] = asyncio.Event()
    task = await puller.task()
    pull = asyncio.create_task(puller.pull(name, task))
    expected_bytes = sum(len(image.blobs[one]) for one in others) + (1 << 20)
    await eventually(lambda: bool(puller.told) and puller.told[-1].fetched_bytes >= expected_bytes)
    return pull, task


@pytest.mark.usefixtures("impatient")
async def test_layer_that_a_slow_registry_sends_is_fetched_from_another(
    puller: Puller, fake_registry: FakeRegistry, slow_registry: FakeRegistry, image: BuiltImage
) -> None:
    slow, task = await begin_slowly(puller, slow_registry, image)

    fast = await puller.pull(fake_registry.add("fast", "latest", image))

    assert not slow.done()
    layer, *others = image.layers
    assert fake_registry.sent[layer] == len(image.blobs[layer])
    assert [fake_registry.sent[one] for one in others] == [0, 0]
    slow_registry.gates[layer].set()
    assert (await slow).chain_id == fast.chain_id
    await puller.end(task)
    assert await puller.containerd.content.list_unfinished() == ()
    keys = [one.key for one in await puller.containerd.snapshots(SNAPSHOTTER).list()]
    assert len(keys) == 3
    assert fast.chain_id in keys


@pytest.mark.usefixtures("impatient")
async def test_prune_leaves_the_ref_of_each_task_and_that_of_its_own_goes_with_the_pull(
    puller: Puller, fake_registry: FakeRegistry, slow_registry: FakeRegistry, image: BuiltImage
) -> None:
    slow, _ = await begin_slowly(puller, slow_registry, image)
    layer, content = image.layers[0], puller.containerd.content
    fake_registry.gates[layer] = asyncio.Event()
    name = fake_registry.add("fast", "latest", image)
    fast = asyncio.create_task(puller.pull(name))
    await eventually(lambda: fake_registry.sent[layer] > 0)
    async with asyncio.timeout(10):
        while len(await content.list_unfinished()) < 2:
            await asyncio.sleep(0.01)

    await puller.admin.prune()

    assert len(await content.list_unfinished()) == 2
    fast.cancel()
    await asyncio.wait([fast])
    assert await content.list_unfinished() == (render_ref(layer),)
    slow.cancel()
    await asyncio.wait([slow])


async def test_layer_is_free_while_a_task_waits_as_its_registry_asks(
    puller: Puller,
    fake_registry: FakeRegistry,
    slow_registry: FakeRegistry,
    image: BuiltImage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(staging_module, "PATIENCE_S", 0.1)
    name = slow_registry.add("slow", "latest", image)
    layer = image.layers[0]
    busy = Fault(status=429, headers={"Retry-After": "50"})
    slow_registry.faults[layer] = deque([busy] * 9)
    slow = asyncio.create_task(puller.pull(name))
    await eventually(lambda: bool(puller.told) and "asks" in puller.told[-1].retry)

    await puller.pull(fake_registry.add("fast", "latest", image))

    assert slow_registry.count(f"blobs/{layer}") == 1
    assert fake_registry.sent[layer] == len(image.blobs[layer])
    slow.cancel()
    await asyncio.wait([slow])


class Growing(Content):
    """A content store in which so much has come at each look."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    async def unfinished_bytes(self, ref: str) -> int:
        del ref
        return self.sizes.pop(0)

    async def abort(self, ref: str) -> None:
        del ref


@pytest.mark.parametrize(
    ("sizes", "left"),
    [
        pytest.param([0, LEAST_GAIN_BYTES, 2 * LEAST_GAIN_BYTES, 2 * LEAST_GAIN_BYTES + 1, 0], 1),
        pytest.param([n * LEAST_GAIN_BYTES for n in range(MAX_LOOKS + 5)], 4),
    ],
    ids=["too little came", "all the time"],
)
async def test_task_waits_for_a_layer_as_long_as_enough_of_it_comes(
    monkeypatch: pytest.MonkeyPatch, image: BuiltImage, sizes: list[int], left: int
) -> None:
    monkeypatch.setattr(content_module, "LOOK_EVERY_S", 0.001)
    content, locks = Growing(list(sizes)), KeyedLocks()
    layer = Descriptor(media_type="", digest=image.layers[0], size=1)

    async with locks.lock(layer.digest), take_ref(layer, content, locks) as ref:
        assert ref != render_ref(layer.digest)
    async with take_ref(layer, content, locks) as ref:
        assert ref == render_ref(layer.digest)

    assert len(content.sizes) == left
