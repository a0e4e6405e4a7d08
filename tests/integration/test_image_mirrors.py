"""Mirrors that stand for a registry: who is asked, with what, and what the image is called."""

import asyncio
import base64
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from fargate_agent.errors import CannotPullContainerError
from fargate_agent.image.store import PullBehavior
from tests.fixtures.images import build_image, write_layout
from tests.fixtures.pulls import Puller, joined
from tests.fixtures.registry import FakeRegistry, Fault, RealRegistry, bind_loopback
from tests.fixtures.registry_client import AUTH

pytestmark = pytest.mark.root

PASSWORD = "s3cret-pa55"


@pytest.fixture
def mirror(elsewhere: FakeRegistry) -> FakeRegistry:
    return elsewhere


def stands_for(puller: Puller, original: str, *mirrors: str, insecure: tuple[str, ...]) -> Puller:
    puller.settings = replace(
        puller.settings, mirrors={original: mirrors}, insecure_registries=insecure
    )
    return puller


async def test_image_of_docker_hub_comes_from_a_pull_through_cache_under_its_own_name(
    puller: Puller, mirror: FakeRegistry
) -> None:
    image = build_image()
    mirror.add("hub/library/tool", "1", image)
    stands_for(puller, "docker.io", f"{mirror.host}/hub", insecure=(mirror.host,))

    pulled = await puller.pull("tool:1")

    name = "docker.io/library/tool:1"
    assert (pulled.name, pulled.digest) == (name, image.digest)
    assert pulled.source == f"{mirror.host}/hub/library/tool:1"
    assert (await puller.containerd.images.get(name)).target.digest == image.digest
    assert mirror.count("/v2/hub/library/tool/manifests/1") > 0


async def test_digest_is_asked_of_the_mirror_and_what_has_another_is_refused(
    puller: Puller, mirror: FakeRegistry
) -> None:
    image, other = build_image(), build_image()
    mirror.add("web", "1", image)
    stands_for(puller, "r.test", mirror.host, "no-original", insecure=(mirror.host,))

    assert (await puller.pull(f"r.test/web@{image.digest}")).digest == image.digest

    mirror.manifests[other.digest] = mirror.manifests[image.digest]
    with pytest.raises(CannotPullContainerError, match="unexpected digest"):
        await puller.pull(f"r.test/web@{other.digest}")


async def test_next_mirror_and_then_the_registry_itself_is_asked_after_one_that_fails(
    puller: Puller,
    mirror: FakeRegistry,
    fake_registry: FakeRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = build_image()
    name = fake_registry.add("web", "1", image)
    with bind_loopback() as closed:
        gone = f"127.0.0.1:{closed.getsockname()[1]}"
    hosts = (gone, mirror.host, fake_registry.host)
    stands_for(puller, fake_registry.host, gone, mirror.host, insecure=hosts)

    with caplog.at_level(logging.WARNING):
        pulled = await puller.pull(name)

    assert (pulled.digest, pulled.source) == (image.digest, None)
    assert f"{name}: {gone}/web:1: pull image manifest has been retried 1 time(s)" in caplog.text
    assert f"failed to resolve ref {mirror.host}/web:1: not found" in caplog.text


async def test_mirror_that_breaks_off_in_the_middle_is_followed_by_the_registry_itself(
    puller: Puller, mirror: FakeRegistry, fake_registry: FakeRegistry
) -> None:
    image = build_image()
    name = fake_registry.add("web", "1", image)
    mirror.add("web", "1", image)
    mirror.faults[image.layers[0]].extend([Fault(status=404)] * 5)
    hosts = (mirror.host, fake_registry.host)
    stands_for(puller, fake_registry.host, mirror.host, insecure=hosts)

    pulled = await puller.pull(name)

    assert (pulled.digest, pulled.source) == (image.digest, None)


async def test_reason_names_every_mirror_and_what_it_said(
    puller: Puller, mirror: FakeRegistry, fake_registry: FakeRegistry
) -> None:
    fake_registry.faults["manifests"].extend([Fault(status=403)] * 9)
    name, hosts = f"{fake_registry.host}/web:1", (mirror.host, fake_registry.host)
    stands_for(puller, fake_registry.host, mirror.host, insecure=hosts)

    with pytest.raises(CannotPullContainerError) as caught:
        await puller.pull(name)

    reason = caught.value.reason
    assert reason.startswith(
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): "
        f"failed to resolve ref {name}: unexpected status from GET request"
    )
    assert reason.endswith(
        f"; the mirrors failed too: {mirror.host}/web:1: pull image manifest has been retried 1 "
        f"time(s): failed to resolve ref {mirror.host}/web:1: not found"
    )


async def test_registry_that_is_not_to_be_asked_is_not(
    puller: Puller, mirror: FakeRegistry, fake_registry: FakeRegistry
) -> None:
    name = fake_registry.add("web", "1", build_image())
    hosts = (mirror.host, fake_registry.host)
    stands_for(puller, fake_registry.host, mirror.host, "no-original", insecure=hosts)

    with pytest.raises(CannotPullContainerError) as caught:
        await puller.pull(name)

    assert f"{name} is pulled from its mirrors alone: {mirror.host}/web:1: " in caught.value.reason
    assert fake_registry.requests == []


async def test_mirror_is_shown_its_own_password_and_never_that_of_the_registry(
    puller: Puller, mirror: FakeRegistry, fake_registry: FakeRegistry, tmp_path: Path
) -> None:
    image = build_image()
    name = fake_registry.add("web", "1", image)
    mirror.add("web", "1", image)
    mirror.basic = f"Basic {AUTH}"
    file = tmp_path / "config.json"
    own = base64.b64encode(b"bob:own").decode()
    hosts = (mirror.host, fake_registry.host)
    stands_for(puller, fake_registry.host, mirror.host, insecure=hosts)

    async def login() -> tuple[str, str]:
        raise AssertionError("it is the registry's, not the mirror's")

    file.write_text(json.dumps({"auths": {mirror.host: {"auth": AUTH}}}))
    store = puller.store(auth_file=file)
    pulled = await store.ensure(name, await puller.task(), puller.told.append, joined(), login)
    assert pulled.source == f"{mirror.host}/web:1"

    fake_registry.basic = f"Basic {own}"
    mirror.headers.clear()
    file.write_text(json.dumps({"auths": {fake_registry.host: {"auth": own}}}))
    store = puller.store(auth_file=file, behavior=PullBehavior.ALWAYS)
    assert (await store.ensure(name, await puller.task(), print, joined())).source is None
    assert {shown for _, shown in mirror.headers} == {""}


async def test_host_of_the_mirror_must_be_listed_to_be_spoken_to_without_tls(
    puller: Puller, mirror: FakeRegistry
) -> None:
    mirror.add("web", "1", build_image())
    stands_for(puller, "r.test", mirror.host, "no-original", insecure=("r.test",))

    with pytest.raises(CannotPullContainerError, match="insecure_registries"):
        await puller.pull("r.test/web:1")


@pytest.mark.parametrize("behavior", [PullBehavior.ONCE, PullBehavior.PREFER_CACHED])
async def test_copy_still_says_which_mirror_it_came_from(
    puller: Puller, mirror: FakeRegistry, behavior: PullBehavior
) -> None:
    mirror.add("web", "1", build_image())
    stands_for(puller, "r.test", mirror.host, insecure=(mirror.host,))
    await puller.pull("r.test/web:1")
    mirror.requests.clear()

    copy = await puller.pull("r.test/web:1", behavior=behavior)

    assert copy.source == f"{mirror.host}/web:1"
    assert mirror.requests == []


async def test_image_that_was_loaded_has_no_source(
    puller: Puller, mirror: FakeRegistry, tmp_path: Path
) -> None:
    stands_for(puller, "r.test", mirror.host, "no-original", insecure=(mirror.host,))
    image = build_image()
    await puller.admin.load(write_layout(tmp_path / "image.tar", {"r.test/web:1": image}))

    pulled = await puller.pull("r.test/web:1")

    assert (pulled.digest, pulled.source) == (image.digest, None)


async def test_real_registry_with_a_password_gives_the_image_to_the_login_of_the_task(
    task_puller: Puller, private_registry: RealRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    image = build_image()
    name = await private_registry.push("team/web", "1", image)
    task = await task_puller.task(private_registry.netns)
    logins = [("ann", "wrong"), ("ann", PASSWORD)]

    async def login() -> tuple[str, str]:
        await asyncio.sleep(0)
        return logins.pop(0)

    store = task_puller.store(behavior=PullBehavior.ALWAYS)
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(CannotPullContainerError, match="pull access denied"):
            await store.ensure(name, task, task_puller.told.append, joined(), login)
        pulled = await store.ensure(name, task, task_puller.told.append, joined(), login)
        with pytest.raises(CannotPullContainerError, match="pull access denied"):
            await store.ensure(name, task, task_puller.told.append, joined())

    assert pulled.digest == image.digest
    assert PASSWORD not in caplog.text
