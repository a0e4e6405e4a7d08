"""Pulls that succeed: what arrives, and what is not done twice."""

import asyncio
import subprocess

import pytest

from fargate_agent.drivers import ImageConfig, PullProgress
from fargate_agent.image.manifest import chain_ids
from fargate_agent.parallel import together
from tests.fixtures.busybox import SNAPSHOTTER
from tests.fixtures.images import (
    DOCKER,
    OCI,
    build_image,
    build_index,
    digest_of,
    make_layer,
    random_layer,
)
from tests.fixtures.pulls import Puller, eventually, joined
from tests.fixtures.registry import FakeRegistry, RealRegistry

pytestmark = pytest.mark.root


@pytest.mark.parametrize("types", [pytest.param(OCI, id="oci"), pytest.param(DOCKER, id="docker")])
async def test_pull_through_the_netns_gives_every_layer_and_the_config(
    task_puller: Puller, real_registry: RealRegistry, types: dict[str, str]
) -> None:
    layers = [random_layer(), make_layer({"etc/a": b"old"}), make_layer({"etc/a": b"new"})]
    run = {"Entrypoint": ["/bin/x"], "Cmd": None, "Env": ["A=1"], "User": "web", "WorkingDir": "/w"}
    image = build_image(layers, packing=["gzip", "zstd", "plain"], types=types, run=run)
    name = await real_registry.push("team/web", "1", image)
    task = await task_puller.task(real_registry.netns)

    pulled = await task_puller.pull(name, task)

    assert pulled.name == name
    assert pulled.digest == image.digest
    assert pulled.chain_id == chain_ids(digest_of(layer) for layer in layers)[-1]
    assert pulled.config == ImageConfig(
        entrypoint=("/bin/x",), environment=("A=1",), user="web", working_directory="/w"
    )
    assert await task_puller.read_file(pulled, "etc/a") == b"new"


@pytest.mark.parametrize("types", [pytest.param(OCI, id="oci"), pytest.param(DOCKER, id="docker")])
async def test_pull_of_an_index_takes_the_platform_of_the_task(
    puller: Puller, fake_registry: FakeRegistry, types: dict[str, str]
) -> None:
    arm = build_image(types=types, platform={"os": "linux", "architecture": "arm64"})
    amd = build_image(types=types)
    index = build_index([arm, amd], types)
    name = fake_registry.add("multi", "latest", index)

    pulled = await puller.pull(name)

    record = await puller.containerd.images.get(name)
    assert pulled.digest == amd.digest
    assert record.target.digest == index.digest
    assert fake_registry.sent[arm.layers[0]] == 0
    assert fake_registry.sent[amd.layers[0]] == len(amd.blobs[amd.layers[0]])


async def test_pulled_image_outlives_the_task_and_its_content_is_kept_by_the_record(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image([random_layer(), random_layer()])
    name = fake_registry.add("kept", "latest", build_index([image]))
    task = await puller.task()
    pulled = await puller.pull(name, task)

    await puller.end(task)

    content = {info.digest for info in await puller.containerd.content.list()}
    snapshots = {info.key for info in await puller.containerd.snapshots(SNAPSHOTTER).list()}
    assert {image.digest, *image.blobs} <= content
    assert pulled.chain_id in snapshots
    assert len(snapshots) == 2


async def test_image_is_kept_by_the_lease_when_its_record_is_removed(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    name = fake_registry.add("kept", "latest", build_image([random_layer(), random_layer()]))
    await puller.pull(name)
    task = await puller.task()
    pulled = await puller.pull(name, task)

    assert await puller.admin.remove(name)

    assert await puller.containerd.snapshots(SNAPSHOTTER).exists(pulled.chain_id)
    await puller.end(task)


async def test_second_pull_fetches_and_unpacks_nothing(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    name = fake_registry.add("twice", "latest", build_image())
    first = await puller.pull(name)
    before = await puller.containerd.snapshots(SNAPSHOTTER).list()
    fake_registry.requests.clear()

    second = await puller.pull(name)

    assert second == first
    assert fake_registry.requests == ["HEAD /v2/twice/manifests/latest"]
    assert await puller.containerd.snapshots(SNAPSHOTTER).list() == before


async def test_shared_layer_is_fetched_once(puller: Puller, fake_registry: FakeRegistry) -> None:
    shared = random_layer()
    one, two = build_image([shared, random_layer()]), build_image([shared, random_layer()])

    await puller.pull(fake_registry.add("one", "one", one))
    await puller.pull(fake_registry.add("two", "two", two))

    assert fake_registry.sent[one.layers[0]] == len(one.blobs[one.layers[0]])


async def test_two_tasks_that_pull_at_once_both_get_the_image_and_each_layer_is_sent_once(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image([random_layer(200_000) for _ in range(4)])
    name = fake_registry.add("at-once", "latest", image)
    store = puller.store()
    tasks = [await puller.task() for _ in range(2)]
    images = []

    async def pull(position: int) -> None:
        images.append(await store.ensure(name, tasks[position], puller.told.append, joined()))

    await together([pull(0), pull(1)])

    assert images[0] == images[1]
    assert all(fake_registry.sent[layer] == len(image.blobs[layer]) for layer in image.layers)


async def test_task_that_stops_while_it_pulls_leaves_what_it_unpacked_to_the_other(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image([random_layer(), random_layer(1_000_000)])
    name = fake_registry.add("handed-over", "latest", image)
    gate = fake_registry.gates[image.layers[1]] = asyncio.Event()
    store = puller.store()
    tasks = [await puller.task() for _ in range(2)]
    told: list[PullProgress] = []
    first = asyncio.create_task(store.ensure(name, tasks[0], told.append, joined()))
    await eventually(lambda: any(one.unpacked_layers == 1 for one in told))
    second = asyncio.create_task(store.ensure(name, tasks[1], puller.told.append, joined()))
    await eventually(lambda: any(one.unpacked_layers == 1 for one in puller.told))

    first.cancel()
    await asyncio.wait([first])
    await puller.end(tasks[0])
    gate.set()
    pulled = await second

    assert await puller.containerd.snapshots(SNAPSHOTTER).exists(pulled.chain_id)
    assert fake_registry.sent[image.layers[0]] == len(image.blobs[image.layers[0]])


async def test_progress_grows_to_the_size_of_the_layers(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image([random_layer(3_000_000), random_layer()])
    name = fake_registry.add("progress", "latest", image)
    total_bytes = sum(len(image.blobs[layer]) for layer in image.layers)

    await puller.pull(name)

    fetched = [told.fetched_bytes for told in puller.told]
    assert fetched == sorted(fetched)
    assert len(set(fetched)) > 3
    last = puller.told[-1]
    assert (last.fetched_bytes, last.total_bytes, last.done) == (total_bytes, total_bytes, True)
    assert (last.unpacked_layers, last.total_layers) == (2, 2)


async def test_pull_leaves_no_socket_in_the_netns(
    task_puller: Puller, real_registry: RealRegistry
) -> None:
    name = await real_registry.push("sockets", "1", build_image())
    task = await task_puller.task(real_registry.netns)

    await task_puller.pull(name, task)

    command = ["nsenter", f"--net={real_registry.netns}", "ss", "-Htn", "state", "established"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""


async def test_name_with_a_digest_is_pulled_and_recorded_under_it(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image()
    fake_registry.add("pinned", "latest", image)
    name = f"{fake_registry.host}/pinned@{image.digest}"

    pulled = await puller.pull(name)

    assert pulled.name == name
    assert (await puller.containerd.images.get(name)).target.digest == image.digest


async def test_registry_that_says_no_digest_is_asked_for_the_manifest(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image()
    name = fake_registry.add("plain", "latest", image)
    fake_registry.says_digest = False

    pulled = await puller.pull(name)

    assert pulled.digest == image.digest
