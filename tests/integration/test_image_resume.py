"""Interrupted layers: what is here isn't fetched again, and is never trusted unseen."""

import asyncio
from collections import deque

import pytest

from fargate_agent.errors import CannotPullContainerError
from fargate_agent.image.content import render_ref
from tests.fixtures.images import BuiltImage, build_image, random_layer
from tests.fixtures.pulls import Puller, eventually
from tests.fixtures.registry import FakeRegistry, Fault

pytestmark = pytest.mark.root

LAYER_BYTES = 3_000_000
PIECE = 1 << 20
"""As much as is written at once."""


def add(registry: FakeRegistry, layer_bytes: int = LAYER_BYTES) -> tuple[str, BuiltImage, str]:
    image = build_image([random_layer(layer_bytes)])
    return registry.add("web", "1", image), image, image.layers[0]


async def interrupt(puller: Puller, registry: FakeRegistry, name: str, layer: str) -> int:
    """Stop a task in the middle of its pull; return how much of the layer stays."""
    gate = registry.gates[layer] = asyncio.Event()
    task = await puller.task()
    pull = asyncio.create_task(puller.pull(name, task))
    await eventually(lambda: bool(puller.told) and puller.told[-1].fetched_bytes >= PIECE)
    pull.cancel()
    await asyncio.wait([pull])
    await puller.end(task)
    gate.set()
    registry.ranges.clear()
    return puller.told[-1].fetched_bytes


async def unfinished(puller: Puller, image: BuiltImage) -> int:
    """How much of the layer came and isn't a blob yet."""
    return await puller.containerd.content.unfinished_bytes(render_ref(image.layers[0]))


async def test_next_task_goes_on_behind_what_is_here(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    name, image, layer = add(fake_registry)
    here = await interrupt(puller, fake_registry, name, layer)

    pulled = await puller.pull(name)

    assert pulled.digest == image.digest
    assert fake_registry.ranges[layer] == [f"bytes={here}-"]


async def test_next_task_gets_the_layer_of_a_registry_without_ranges(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    name, image, layer = add(fake_registry)
    await interrupt(puller, fake_registry, name, layer)
    fake_registry.ignores_range = True

    assert (await puller.pull(name)).digest == image.digest


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(status=416), id="nothing-behind"),
        pytest.param(Fault(headers={"Content-Range": "bytes 9-99/100"}), id="another-size"),
        pytest.param(
            Fault(headers={"Content-Range": f"bytes {2 * PIECE}-9999999/*"}), id="another-start"
        ),
        pytest.param(Fault(headers={"Content-Range": "nonsense"}), id="nonsense"),
        pytest.param(Fault(corrupt=True), id="another-digest"),
    ],
)
async def test_what_does_not_belong_behind_is_never_used(
    puller: Puller, fake_registry: FakeRegistry, fault: Fault
) -> None:
    name, image, layer = add(fake_registry)
    await interrupt(puller, fake_registry, name, layer)
    fake_registry.faults[layer] = deque([fault])

    pulled = await puller.pull(name)

    assert pulled.digest == image.digest
    assert [bool(one) for one in fake_registry.ranges[layer]] == [True, False]


async def test_what_is_here_is_thrown_away_if_it_was_wrong(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    name, image, layer = add(fake_registry)
    good = fake_registry.blobs[layer]
    fake_registry.blobs[layer] = bytes(len(good))
    await interrupt(puller, fake_registry, name, layer)
    fake_registry.blobs[layer] = good

    pulled = await puller.pull(name)

    assert pulled.digest == image.digest
    assert [bool(one) for one in fake_registry.ranges[layer]] == [True, False]


@pytest.mark.parametrize("change", [-1000, 1000])
async def test_blob_of_another_size_than_the_manifest_says_is_refused_within_the_tries(
    puller: Puller, fake_registry: FakeRegistry, change: int
) -> None:
    name, image, layer = add(fake_registry)
    size = len(image.blobs[layer])
    fake_registry.blobs[layer] = (image.blobs[layer] + bytes(1000))[: size + change]

    with pytest.raises(CannotPullContainerError) as caught:
        await puller.pull(name)

    assert caught.value.reason.endswith(
        "ref pull has been retried 3 time(s): failed to copy: httpReadSeeker: failed open: "
        f"the registry has {size + change} bytes, expected {size}"
    )


@pytest.mark.parametrize("has_ranges", [True, False])
async def test_connection_that_ends_again_and_again_is_no_failure_while_more_comes(
    puller: Puller, fake_registry: FakeRegistry, has_ranges: bool
) -> None:
    name, image, layer = add(fake_registry, 900_000)
    fake_registry.ignores_range = not has_ranges
    cuts = [150_000] * 6 if has_ranges else [150_000 * n for n in range(1, 7)]
    fake_registry.faults[layer] = deque(Fault(cut_after=cut) for cut in cuts)

    pulled = await puller.pull(name)

    assert pulled.digest == image.digest
    assert len(fake_registry.ranges[layer]) > 5
    assert all(fake_registry.ranges[layer][1:])
    assert puller.told[-1].retry == ""


async def test_connection_that_ends_at_the_same_byte_fails_within_the_tries(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    name, image, layer = add(fake_registry)
    fake_registry.ignores_range = True
    fake_registry.faults[layer] = deque([Fault(cut_after=PIECE)] * 20)

    with pytest.raises(CannotPullContainerError, match=r"retried 3 time\(s\): failed to copy: "):
        await puller.pull(name)

    assert len(fake_registry.ranges[layer]) <= 5


async def test_further_tries_are_shown(puller: Puller, fake_registry: FakeRegistry) -> None:
    name, _, layer = add(fake_registry)
    fake_registry.faults[layer] = deque([Fault(status=503)] * 2)

    await puller.pull(name)

    told = [one.retry.partition(": ")[0] for one in puller.told]
    assert [one for one in dict.fromkeys(told) if one] == ["try 2 of 3", "try 3 of 3"]
    assert told[-1] == ""


async def test_prune_drops_what_nobody_fetches(puller: Puller, fake_registry: FakeRegistry) -> None:
    name, image, layer = add(fake_registry)
    await interrupt(puller, fake_registry, name, layer)
    assert await unfinished(puller, image) > 0

    await puller.admin.prune()

    assert await unfinished(puller, image) == 0


async def test_prune_leaves_a_layer_that_is_being_fetched(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    name, image, layer = add(fake_registry)
    gate = fake_registry.gates[layer] = asyncio.Event()
    pull = asyncio.create_task(puller.pull(name))
    await eventually(lambda: bool(puller.told) and puller.told[-1].fetched_bytes >= PIECE)

    await puller.admin.prune()
    gate.set()

    assert (await pull).digest == image.digest
    assert fake_registry.ranges[layer] == [""]


async def test_small_layer_is_not_kept_for_later(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    name, image, layer = add(fake_registry, 500_000)
    fake_registry.faults[layer] = deque([Fault(cut_after=300_000), *[Fault(status=404)] * 9])
    task = await puller.task()

    with pytest.raises(CannotPullContainerError):
        await puller.pull(name, task)
    assert await unfinished(puller, image) > 0
    await puller.end(task)

    assert await unfinished(puller, image) == 0
