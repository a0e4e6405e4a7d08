"""Which image of several a task gets, and what is said when there is none for it."""

from pathlib import Path
from typing import Any

import pytest

from fargate_agent.errors import CannotPullContainerError
from fargate_agent.image.content import MAX_MANIFESTS
from fargate_agent.image.manifest import MAX_DEPTH
from fargate_agent.image.platform import Machine
from fargate_agent.image.store import PullBehavior
from tests.fixtures.images import BuiltImage, build_image, build_index, write_layout
from tests.fixtures.pulls import Puller
from tests.fixtures.registry import FakeRegistry

pytestmark = pytest.mark.root

MACHINE = Machine(architecture="amd64", variants={"amd64": ("", "v1", "v2")})
COPY_OF_ARM64 = (
    "the copy of the image on this machine can't be used: image Manifest does not contain "
    "descriptor matching platform 'linux/amd64'; it has linux/arm64"
)


def image_for(architecture: str, **more: Any) -> BuiltImage:
    return build_image(platform={"os": "linux", "architecture": architecture, **more})


async def test_an_index_of_a_variant_that_the_machine_runs_is_taken(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    demanding, fitting = image_for("amd64", variant="v3"), image_for("amd64", variant="v2")
    name = fake_registry.add("variants", "latest", build_index([demanding, fitting]))

    assert (await puller.pull(name, machine=MACHINE)).digest == fitting.digest


async def test_an_index_within_an_index_is_looked_through(
    puller: Puller, fake_registry: FakeRegistry, tmp_path: Path
) -> None:
    fitting = image_for("amd64")
    index = build_index([build_index([image_for("arm64")]), build_index([fitting])])
    name = fake_registry.add("nested", "latest", index)

    assert (await puller.pull(name)).digest == fitting.digest

    await puller.admin.remove(name)
    await puller.admin.load(write_layout(tmp_path / "nested.tar", {name: index}))
    local = await puller.pull(name, behavior=PullBehavior.PREFER_CACHED)
    assert local.digest == fitting.digest


async def test_an_image_whose_index_says_no_platform_is_told_by_its_configuration(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    fitting = image_for("amd64")
    unsaid = [
        BuiltImage(media_type=one.media_type, document=one.document, blobs=one.blobs)
        for one in (image_for("arm64"), fitting)
    ]
    name = fake_registry.add("unsaid", "latest", build_index(unsaid))

    assert (await puller.pull(name)).digest == fitting.digest


async def test_an_index_without_the_platform_says_what_it_has(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    index = build_index([build_index([image_for("arm64", variant="v8")]), image_for("s390x")])
    name = fake_registry.add("others", "latest", index)

    with pytest.raises(
        CannotPullContainerError,
        match="matching platform 'linux/amd64'; it has linux/s390x, linux/arm64/v8$",
    ):
        await puller.pull(name)


async def test_indexes_are_looked_through_to_a_depth(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    index = image_for("amd64")
    for _ in range(MAX_DEPTH):
        index = build_index([index])
    name = fake_registry.add("deep", "latest", index)

    with pytest.raises(CannotPullContainerError, match="matching platform 'linux/amd64'"):
        await puller.pull(name)


async def test_so_many_manifests_are_read_and_no_more(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    arm = image_for("arm64")
    unsaid = [
        BuiltImage(media_type=arm.media_type, document=arm.document + b" " * n, blobs=arm.blobs)
        for n in range(MAX_MANIFESTS + 10)
    ]
    name = fake_registry.add("broad", "latest", build_index(unsaid))

    with pytest.raises(CannotPullContainerError, match="matching platform 'linux/amd64'"):
        await puller.pull(name)

    assert fake_registry.count("GET /v2/broad/manifests") <= MAX_MANIFESTS


@pytest.mark.parametrize("is_here", [False, True], ids=["not-here", "copy-of-amd64"])
@pytest.mark.parametrize("behavior", [pytest.param(each, id=each.value) for each in PullBehavior])
async def test_a_task_for_another_machine_ends_before_anything_is_asked_for(
    puller: Puller,
    fake_registry: FakeRegistry,
    tmp_path: Path,
    behavior: PullBehavior,
    is_here: bool,
) -> None:
    image = image_for("amd64")
    name = fake_registry.add("web", "latest", image)
    if is_here:
        await puller.admin.load(write_layout(tmp_path / "a.tar", {name: image}))
    task = await puller.task(architecture="arm64")

    here = "; the copy of the image here is for linux/amd64" if is_here else ""
    with pytest.raises(
        CannotPullContainerError,
        match=f"the task is for linux/arm64, and this machine runs linux/amd64{here}$",
    ):
        await puller.pull(name, task, behavior=behavior, machine=MACHINE)

    assert fake_registry.requests == []


async def test_a_machine_that_emulates_another_runs_its_images(
    puller: Puller, fake_registry: FakeRegistry
) -> None:
    arm = image_for("arm64", variant="v8")
    name = fake_registry.add("web", "latest", build_index([image_for("amd64"), arm]))
    task = await puller.task(architecture="arm64")
    variants = {**MACHINE.variants, "arm64": ("", "v8")}

    pulled = await puller.pull(name, task, machine=Machine(architecture="amd64", variants=variants))

    assert pulled.digest == arm.digest


@pytest.mark.parametrize(
    "behavior", [PullBehavior.DEFAULT, PullBehavior.PREFER_CACHED], ids=["default", "cached"]
)
async def test_a_copy_for_another_platform_is_named_when_the_pull_fails(
    puller: Puller, fake_registry: FakeRegistry, tmp_path: Path, behavior: PullBehavior
) -> None:
    name = f"{fake_registry.host}/nowhere:1"
    await puller.admin.load(write_layout(tmp_path / "a.tar", {name: image_for("arm64")}))

    with pytest.raises(CannotPullContainerError, match=f"not found; {COPY_OF_ARM64}$"):
        await puller.pull(name, behavior=behavior)
