"""Pulls from registries that misbehave: the reason the owner reads, or how it goes on."""

import asyncio
import re
from collections import deque
from dataclasses import replace
from typing import Any

import pytest

from fargate_agent.containerd.client import Containerd
from fargate_agent.errors import CannotPullContainerError
from tests.fixtures.containerd import PrivateContainerd
from tests.fixtures.images import DOCKER, BuiltImage, build_image, build_index, random_layer
from tests.fixtures.pulls import Puller, eventually
from tests.fixtures.registry import FakeRegistry, Fault, bind_loopback

pytestmark = pytest.mark.root

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
ALWAYS = 100
"""More than the tries of a pull."""
LAYER_BYTES = 3_000_000


def fail(registry: FakeRegistry, what: str, times: int, fault: Fault) -> None:
    registry.faults[what] = deque([fault] * times)


async def reason_of_pull(puller: Puller, name: str, **settings: Any) -> str:
    with pytest.raises(CannotPullContainerError) as caught:
        await puller.pull(name, **settings)
    return caught.value.reason


@pytest.mark.parametrize(
    ("status", "tries", "text"),
    [
        pytest.param(404, 1, "not found", id="404"),
        pytest.param(
            401,
            1,
            "pull access denied, repository does not exist or may require authorization: "
            "authorization failed",
            id="401",
        ),
        pytest.param(
            403,
            1,
            "unexpected status from GET request to http://HOST/v2/bad/manifests/latest: "
            "403 Forbidden",
            id="403",
        ),
        pytest.param(
            500,
            3,
            "unexpected status from GET request to http://HOST/v2/bad/manifests/latest: "
            "500 Internal Server Error",
            id="500",
        ),
    ],
)
async def test_reason_names_the_reference_when_the_registry_answers_badly(
    puller: Puller, fake_registry: FakeRegistry, status: int, tries: int, text: str
) -> None:
    name = fake_registry.add("bad", "latest", build_image())
    fail(fake_registry, "manifests", ALWAYS, Fault(status=status))

    reason = await reason_of_pull(puller, name)

    assert reason == (
        f"CannotPullContainerError: pull image manifest has been retried {tries} time(s): "
        f"failed to resolve ref {name}: {text.replace('HOST', fake_registry.host)}"
    )
    heard = 2 if status == 403 else tries  # HEAD, which can't say why, and GET
    assert fake_registry.count("manifests") == heard


async def test_reason_says_connection_refused_when_nobody_listens(puller: Puller) -> None:
    with bind_loopback() as closed:
        host = f"127.0.0.1:{closed.getsockname()[1]}"

    reason = await reason_of_pull(puller, f"{host}/web:1", insecure_registries=(host,))

    assert reason == (
        "CannotPullContainerError: pull image manifest has been retried 3 time(s): "
        f'failed to resolve ref {host}/web:1: failed to do request: Head "http://{host}/v2/web/'
        f'manifests/1": dial tcp {host}: connect: connection refused'
    )


async def test_reason_says_timeout_when_the_registry_says_nothing(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    name = fake_registry.add("bad", "latest", build_image())
    fail(fake_registry, "manifests", ALWAYS, Fault(hang=True))

    reason = await reason_of_pull(puller, name, inactivity_s=0.1)

    assert reason.endswith('manifests/latest": i/o timeout')


async def test_reason_says_deadline_when_a_pull_takes_too_long(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image([random_layer(LAYER_BYTES)])
    name = fake_registry.add("slow", "latest", image)
    fake_registry.gates[image.layers[0]] = asyncio.Event()

    reason = await reason_of_pull(puller, name, deadline_s=0.5)

    assert reason == (
        "CannotPullContainerError: ref pull has not ended within 0.5 s: context deadline exceeded"
    )


async def test_reason_says_that_a_name_names_no_image(puller: Puller) -> None:
    reason = await reason_of_pull(puller, "Not/A/Name!")

    assert reason == (
        "CannotPullContainerError: failed to resolve ref Not/A/Name!: invalid reference format"
    )


@pytest.mark.parametrize(
    ("image", "has"),
    [
        pytest.param(
            build_index([build_image(platform={"os": "linux", "architecture": "arm64"})]),
            "linux/arm64",
            id="index",
        ),
        pytest.param(
            build_image(platform={"os": "linux", "architecture": "arm64"}),
            "linux/arm64",
            id="manifest",
        ),
        pytest.param(
            build_image(platform={"os": "windows", "architecture": "amd64"}),
            "windows/amd64",
            id="os",
        ),
    ],
)
async def test_reason_names_the_platform_when_the_image_is_for_another(
    puller: Puller, fake_registry: FakeRegistry, image: BuiltImage, has: str
) -> None:
    reason = await reason_of_pull(puller, fake_registry.add("arm", "latest", image))

    assert reason == (
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): "
        "image Manifest does not contain descriptor matching platform 'linux/amd64'; "
        f"it has {has}"
    )


@pytest.mark.parametrize(
    ("image", "text"),
    [
        pytest.param(
            build_image(config={"config": {"Cmd": "sleep 1"}}),
            "image config: config: 'Cmd' is not a list",
            id="config",
        ),
        pytest.param(
            build_image(config={"rootfs": {"diff_ids": []}}),
            "image config: 'rootfs.diff_ids' does not name the 1 layers of the manifest",
            id="diff-ids",
        ),
        pytest.param(
            replace(
                build_image(),
                document=b'{"schemaVersion": 1, "fsLayers": []}',
                media_type="application/vnd.docker.distribution.manifest.v1+prettyjws",
            ),
            "the image has a manifest of Docker's schema 1, which is not supported: rebuild the "
            "image, or copy it with 'skopeo copy --format v2s2'",
            id="schema-1",
        ),
        pytest.param(
            replace(build_image(), document=b'{"schemaVersion": 2}', media_type="text/plain"),
            "media type 'text/plain' is no image manifest",
            id="no-manifest",
        ),
        pytest.param(
            build_image(types={**DOCKER, "gzip": FOREIGN}),
            f"the image has a foreign layer ('{FOREIGN}'), whose content is not in the registry: "
            "rebuild the image upon a base whose layers are",
            id="foreign-layer",
        ),
        pytest.param(
            replace(build_image(), document=b"["), "image manifest is not JSON", id="json"
        ),
    ],
)
async def test_reason_says_what_is_wrong_with_a_document(
    puller: Puller, fake_registry: FakeRegistry, image: BuiltImage, text: str
) -> None:
    name = fake_registry.add("bad", "latest", image)

    assert (await reason_of_pull(puller, name)).endswith(f"failed to resolve ref {name}: {text}")


async def test_reason_says_that_a_layer_is_missing(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image()
    name = fake_registry.add("bad", "latest", image)
    del fake_registry.blobs[image.layers[0]]

    reason = await reason_of_pull(puller, name)

    assert reason == (
        "CannotPullContainerError: ref pull has been retried 1 time(s): "
        "failed to copy: httpReadSeeker: failed open: not found"
    )


async def test_layer_with_another_digest_is_refused_and_none_of_it_stays(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image()
    name = fake_registry.add("bad", "latest", image)
    layer = image.layers[0]
    fail(fake_registry, layer, ALWAYS, Fault(corrupt=True))

    reason = await reason_of_pull(puller, name)

    assert reason == (
        "CannotPullContainerError: ref pull has been retried 3 time(s): "
        f'failed commit on ref "layer-{layer}": unexpected commit digest, expected {layer}: '
        "failed precondition"
    )
    fake_registry.faults.clear()
    await puller.pull(name)


async def test_layer_that_is_not_what_the_config_says_is_refused(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image(config={"rootfs": {"diff_ids": ["sha256:" + "0" * 64]}})

    reason = await reason_of_pull(puller, fake_registry.add("bad", "latest", image))

    assert "failed to unpack image on snapshotter overlayfs: wrong diff id calculated" in reason


async def test_layer_that_is_not_an_archive_is_refused(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image([b"this is no archive" * 1000])

    reason = await reason_of_pull(puller, fake_registry.add("bad", "latest", image))

    assert "failed to unpack image on snapshotter overlayfs" in reason


async def test_broken_transfer_goes_on_where_it_stopped(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image([random_layer(LAYER_BYTES)])
    name = fake_registry.add("broken", "latest", image)
    layer = image.layers[0]
    fail(fake_registry, layer, 1, Fault(cut_after=LAYER_BYTES // 2))

    await puller.pull(name)

    # What had not reached containerd when the connection broke, less than one write, comes again.
    assert fake_registry.sent[layer] < len(image.blobs[layer]) + 2 * (1 << 20)
    assert fake_registry.count(f"blobs/{layer}") == 2


async def test_broken_transfer_is_completed_when_the_registry_knows_no_ranges(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image([random_layer(LAYER_BYTES)])
    name = fake_registry.add("no-ranges", "latest", image)
    fake_registry.ignores_range = True
    fail(fake_registry, image.layers[0], 2, Fault(cut_after=LAYER_BYTES // 2))

    pulled = await puller.pull(name)

    assert pulled.digest == image.digest


async def test_reason_says_eof_when_every_transfer_breaks(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image([random_layer(LAYER_BYTES)])
    name = fake_registry.add("broken", "latest", image)
    fail(fake_registry, image.layers[0], ALWAYS, Fault(cut_after=0))

    reason = await reason_of_pull(puller, name)

    assert re.fullmatch(
        r"CannotPullContainerError: ref pull has been retried 3 time\(s\): "
        r"failed to copy: .*(EOF|connection reset by peer)",
        reason,
    )
    assert fake_registry.count("blobs/" + image.layers[0]) == 3


async def test_server_error_for_a_layer_is_tried_again(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image()
    name = fake_registry.add("bad", "latest", image)
    fail(fake_registry, image.layers[0], 2, Fault(status=503))

    assert (await puller.pull(name)).digest == image.digest


async def test_pull_that_was_cut_off_goes_on_with_what_was_written(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    image = build_image([random_layer(4 * LAYER_BYTES)])
    name = fake_registry.add("cut-off", "latest", image)
    layer = image.layers[0]
    gate = fake_registry.gates[layer] = asyncio.Event()
    task = await puller.task()
    first = asyncio.create_task(puller.pull(name, task))
    await eventually(lambda: bool(puller.told) and puller.told[-1].fetched_bytes > LAYER_BYTES)
    await eventually(lambda: fake_registry.sent[layer] >= len(image.blobs[layer]) // 2)
    written = puller.told[-1].fetched_bytes
    first.cancel()
    await asyncio.wait([first])
    sent = fake_registry.sent[layer]
    puller.told.clear()
    gate.set()

    await puller.pull(name, task)

    assert fake_registry.sent[layer] - sent <= len(image.blobs[layer]) - written


async def test_pull_says_no_space_when_the_content_store_is_full(
    tiny_containerd: PrivateContainerd, fake_registry: FakeRegistry
) -> None:
    name = fake_registry.add("big", "latest", build_image([random_layer(40 << 20)]))
    async with Containerd(tiny_containerd.socket, "test-full") as client:
        await client.ensure_namespace()
        puller = Puller(containerd=client)
        task = await puller.task()

        reason = await reason_of_pull(
            puller, name, insecure_registries=(fake_registry.host,), deadline_s=30
        )

        assert await client.content.list_unfinished() == ()
        await puller.end(task)
    assert reason == (
        "CannotPullContainerError: ref pull has been retried 1 time(s): "
        "failed to copy: no space left on device"
    )


async def test_reason_shows_no_signed_url(puller: Puller, fake_registry: FakeRegistry) -> None:
    image = build_image()
    name = fake_registry.add("signed", "latest", image)
    with bind_loopback() as closed:
        cdn = f"127.0.0.1:{closed.getsockname()[1]}"
    target = f"http://user:pw@{cdn}/blob?X-Signature=secret"
    fail(fake_registry, image.layers[0], ALWAYS, Fault(redirect=target))

    reason = await reason_of_pull(puller, name, insecure_registries=(fake_registry.host, cdn))

    assert f'Get "http://{cdn}/blob": dial tcp {cdn}: connect: connection refused' in reason
    assert "secret" not in reason
