"""When a registry is asked, and when the copy on this machine will do."""

import logging
from pathlib import Path

import pytest

from fargate_agent.backoff import Backoff
from fargate_agent.egress.retry import Retry
from fargate_agent.errors import CannotPullContainerError
from fargate_agent.image.store import PullBehavior
from tests.fixtures.images import build_image, write_layout
from tests.fixtures.pulls import Puller
from tests.fixtures.registry import FakeRegistry, Fault, bind_loopback

pytestmark = pytest.mark.root

DEFAULT, ALWAYS = PullBehavior.DEFAULT, PullBehavior.ALWAYS
ONCE, PREFER_CACHED = PullBehavior.ONCE, PullBehavior.PREFER_CACHED


@pytest.mark.parametrize(
    ("behavior", "registry_works", "expected"),
    [
        pytest.param(DEFAULT, True, "new", id="default-works"),
        pytest.param(DEFAULT, False, "old", id="default-fails"),
        pytest.param(ALWAYS, True, "new", id="always-works"),
        pytest.param(ALWAYS, False, None, id="always-fails"),
        pytest.param(ONCE, True, "old", id="once-works"),
        pytest.param(ONCE, False, "old", id="once-fails"),
        pytest.param(PREFER_CACHED, True, "old", id="prefer-cached-works"),
        pytest.param(PREFER_CACHED, False, "old", id="prefer-cached-fails"),
    ],
)
async def test_image_that_was_pulled_before(
    puller: Puller,
    fake_registry: FakeRegistry,
    behavior: PullBehavior,
    registry_works: bool,
    expected: str | None,
) -> None:
    old, new = build_image(), build_image()
    name = fake_registry.add("web", "latest", old)
    await puller.pull(name)
    fake_registry.add("web", "latest", new)
    if not registry_works:
        fake_registry.faults["manifests"].extend([Fault(status=404)] * 10)

    if expected is None:
        with pytest.raises(CannotPullContainerError, match="not found"):
            await puller.pull(name, behavior=behavior)
    else:
        image = await puller.pull(name, behavior=behavior)
        assert image.digest == {"old": old.digest, "new": new.digest}[expected]


@pytest.mark.parametrize("behavior", [pytest.param(each, id=each.value) for each in PullBehavior])
@pytest.mark.parametrize("registry_works", [True, False], ids=["works", "fails"])
async def test_image_that_was_never_here_is_pulled_whatever_the_behavior(
    puller: Puller, fake_registry: FakeRegistry, behavior: PullBehavior, registry_works: bool
) -> None:
    image = build_image()
    name = fake_registry.add("web", "latest", image)
    if not registry_works:
        fake_registry.faults["manifests"].extend([Fault(status=404)] * 10)

    if registry_works:
        assert (await puller.pull(name, behavior=behavior)).digest == image.digest
    else:
        with pytest.raises(CannotPullContainerError, match="not found"):
            await puller.pull(name, behavior=behavior)


@pytest.mark.parametrize(
    ("behavior", "expected"),
    [
        pytest.param(ONCE, "remote", id="once"),
        pytest.param(PREFER_CACHED, "loaded", id="prefer-cached"),
    ],
)
async def test_image_that_was_loaded_counts_as_here_but_not_as_pulled(
    puller: Puller,
    fake_registry: FakeRegistry,
    tmp_path: Path,
    behavior: PullBehavior,
    expected: str,
) -> None:
    loaded, remote = build_image(), build_image()
    name = fake_registry.add("web", "latest", remote)
    await puller.admin.load(write_layout(tmp_path / "image.tar", {name: loaded}))

    image = await puller.pull(name, behavior=behavior)

    assert image.digest == {"remote": remote.digest, "loaded": loaded.digest}[expected]


async def test_image_that_was_pulled_and_then_loaded_is_pulled_once_more(
    puller: Puller, fake_registry: FakeRegistry, tmp_path: Path
) -> None:
    image, loaded = build_image(), build_image()
    name = fake_registry.add("web", "latest", image)
    await puller.pull(name)
    await puller.admin.load(write_layout(tmp_path / "image.tar", {name: loaded}))

    assert (await puller.pull(name, behavior=ONCE)).digest == image.digest


async def test_reason_of_the_fall_back_is_logged(
    puller: Puller, fake_registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    name = fake_registry.add("web", "latest", build_image())
    await puller.pull(name)
    fake_registry.faults["manifests"].extend([Fault(status=404)] * 10)

    with caplog.at_level(logging.WARNING):
        await puller.pull(name)

    assert f"{name}: using the copy on this machine" in caplog.text
    assert "not found" in caplog.text


async def test_copy_whose_layers_are_gone_is_pulled_again(
    puller: Puller, fake_registry: FakeRegistry, tmp_path: Path
) -> None:
    image = build_image()
    name = fake_registry.add("web", "latest", image)
    await puller.admin.load(write_layout(tmp_path / "image.tar", {name: image}))
    await puller.containerd.content.delete(image.layers[0])

    await puller.pull(name, behavior=PREFER_CACHED)

    assert fake_registry.sent[image.layers[0]] > 0


async def test_copy_for_another_platform_is_no_copy(
    puller: Puller, fake_registry: FakeRegistry, tmp_path: Path
) -> None:
    arm, amd = build_image(platform={"os": "linux", "architecture": "arm64"}), build_image()
    name = fake_registry.add("web", "latest", amd)
    await puller.admin.load(write_layout(tmp_path / "image.tar", {name: arm}))

    image = await puller.pull(name, behavior=PREFER_CACHED)

    assert image.digest == amd.digest


@pytest.mark.parametrize("host", ["refused", "unknown"])
async def test_registry_that_is_not_there_is_tried_once_where_a_copy_is_here(
    puller: Puller, tmp_path: Path, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with bind_loopback() as closed:
        refused = f"127.0.0.1:{closed.getsockname()[1]}"
    name = f"{refused if host == 'refused' else 'nowhere.test'}/web:latest"
    image = build_image()
    await puller.admin.load(write_layout(tmp_path / "image.tar", {name: image}))
    slow = Retry(attempts=5, backoff=Backoff(first_s=60, longest_s=5))

    with caplog.at_level(logging.WARNING):
        pulled = await puller.pull(name, retry=slow, insecure_registries=(refused,))

    assert pulled.digest == image.digest
    assert "has been retried 1 time(s)" in caplog.text


async def test_registry_that_is_not_there_is_tried_again_where_no_copy_is_here(
    puller: Puller,
) -> None:
    with bind_loopback() as closed:
        host = f"127.0.0.1:{closed.getsockname()[1]}"

    with pytest.raises(CannotPullContainerError, match=r"has been retried 3 time\(s\)"):
        await puller.pull(f"{host}/web:1", insecure_registries=(host,))


async def test_registry_that_fails_is_tried_again_though_a_copy_is_here(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    old, new = build_image(), build_image()
    name = fake_registry.add("web", "latest", old)
    await puller.pull(name)
    fake_registry.add("web", "latest", new)
    fake_registry.faults["manifests"].extend([Fault(status=503)] * 2)

    assert (await puller.pull(name)).digest == new.digest


async def test_registry_that_asks_for_a_long_pause_is_not_waited_for_where_a_copy_is_here(
    puller: Puller, fake_registry: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    image = build_image()
    name = fake_registry.add("web", "latest", image)
    await puller.pull(name)
    busy = Fault(status=429, headers={"Retry-After": "60"})
    fake_registry.faults["manifests"].extend([busy] * 5)

    with caplog.at_level(logging.WARNING):
        assert (await puller.pull(name, deadline_s=300)).digest == image.digest

    assert "the server asks to wait 60 s, which is too long" in caplog.text
