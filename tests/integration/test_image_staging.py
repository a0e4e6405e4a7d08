"""What is begun of a layer and not needed: given back, whatever ends the pull."""

import asyncio
import os
from typing import Any

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.diff import Diff
from fargate_agent.containerd.errors import ContainerdError, UnavailableError
from fargate_agent.containerd.snapshots import Snapshots
from fargate_agent.errors import CannotPullContainerError
from fargate_agent.image.content import NO_SPACE
from fargate_agent.image.extraction import LEAST_STREAMS
from tests.fixtures.busybox import SNAPSHOTTER
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.images import build_image, random_layer
from tests.fixtures.layers import Peer, Tar
from tests.fixtures.pulls import Puller, eventually, find_processes
from tests.fixtures.registry import FakeRegistry

pytestmark = pytest.mark.root


async def test_containerd_that_goes_away_while_a_layer_is_begun_is_asked_again(
    puller: Puller, fake_registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fake_registry.add("web", "1", build_image())
    prepare, failures = Snapshots.prepare, [UnavailableError("prepare: Socket closed")]

    async def fail_once(self: Snapshots, *arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return await prepare(self, *arguments)

    monkeypatch.setattr(Snapshots, "prepare", fail_once)

    image = await puller.pull(name)

    assert await puller.containerd.snapshots(SNAPSHOTTER).exists(image.chain_id)


async def test_reason_says_that_containerd_has_no_space_to_begin_a_layer(
    puller: Puller, fake_registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fake_registry.add("web", "1", build_image())

    async def refuse(*_: Any) -> Any:
        raise ContainerdError(f"prepare: mkdir /var/lib/x: {NO_SPACE}")

    monkeypatch.setattr(Snapshots, "prepare", refuse)

    with pytest.raises(CannotPullContainerError) as caught:
        await puller.pull(name)

    assert caught.value.reason == (
        "CannotPullContainerError: ref pull has been retried 1 time(s): "
        f"failed to unpack image on snapshotter overlayfs: {NO_SPACE}"
    )


async def test_layer_that_does_not_fit_unpacked_is_not_fetched_to_its_end(
    tiny_containerd: PrivateContainerd, fake_registry: FakeRegistry
) -> None:
    """The room that is left free would do for the rest of it, packed."""
    layer = Tar().add("zeros", data=bytes(60 << 20)).add("rest", data=os.urandom(2_200_000)).end()
    image = build_image([layer])
    name = fake_registry.add("big", "latest", image)
    gate = fake_registry.gates[image.layers[0]] = asyncio.Event()
    async with Containerd(tiny_containerd.socket, "test-full") as client:
        await client.ensure_namespace()
        puller = Puller(containerd=client)
        task = await puller.task()
        hosts = (fake_registry.host,)
        pull = asyncio.create_task(puller.pull(name, task, insecure_registries=hosts))
        await eventually(lambda: bool(find_processes()))
        await eventually(lambda: not find_processes())  # the disk is full
        gate.set()

        with pytest.raises(CannotPullContainerError, match=f": failed to copy: {NO_SPACE}$"):
            await pull

        assert await client.content.list_unfinished() == ()
        assert await client.snapshots(SNAPSHOTTER).list() == ()
        await puller.end(task)


@pytest.mark.parametrize(
    ("layer", "is_left"),
    [
        pytest.param(random_layer(), False, id="by the agent"),
        pytest.param(Tar().add("a").add(".wh.a").end(), True, id="by containerd"),
    ],
)
async def test_what_was_begun_is_removed_if_the_task_goes_on_with_the_copy(
    puller: Puller,
    fake_registry: FakeRegistry,
    monkeypatch: pytest.MonkeyPatch,
    layer: bytes,
    is_left: bool,
) -> None:
    """Several layers at once, and the pull has a deadline."""
    copy = await puller.pull(fake_registry.add("web", "1", build_image()))
    image = build_image([layer, random_layer(1_000_000)])
    fake_registry.add("web", "1", image)
    fake_registry.gates[image.layers[1]] = asyncio.Event()
    begun = []

    async def hang(*arguments: Any) -> Any:
        begun.append(arguments)
        await asyncio.Event().wait()

    monkeypatch.setattr(Diff, "apply", hang)

    pulled = await puller.pull(copy.name, deadline_s=3)

    assert pulled.digest == copy.digest
    assert bool(begun) == is_left
    snapshots = await puller.containerd.snapshots(SNAPSHOTTER).list()
    assert [one.key for one in snapshots if one.key.startswith("fargate-unpack-")] == []


async def test_all_layers_are_let_go_if_their_end_is_cancelled_too(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = [random_layer(50_000) for _ in range(LEAST_STREAMS)]
    descriptors = [await peer.store(layer) for layer in layers]
    unpacker, remove = peer.unpacker(layers), Snapshots.remove
    begun, ending, calls = asyncio.Event(), asyncio.Event(), []

    async def hang_once(self: Snapshots, key: str) -> None:
        calls.append(key)
        if len(calls) == 1:
            ending.set()
            await asyncio.Event().wait()
        await remove(self, key)

    async def hold() -> None:
        async with unpacker:
            for position, descriptor in enumerate(descriptors):
                await unpacker.begin(position, descriptor)
            begun.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(Snapshots, "remove", hang_once)
    holding = asyncio.create_task(hold())
    await begun.wait()
    holding.cancel()
    await ending.wait()
    holding.cancel()
    await asyncio.wait([holding])

    assert len(calls) == LEAST_STREAMS
    for _ in range(LEAST_STREAMS):
        assert not peer.turns.streams.locked()
        await peer.turns.streams.acquire()
    assert len(await peer.containerd.snapshots(SNAPSHOTTER).list()) == 1  # that which hung


@pytest.fixture
async def peer(containerd: Containerd) -> Peer:
    await containerd.leases.ensure("test", {})
    return Peer(containerd=containerd.with_lease("test"))
