"""Images that a policy admits or refuses, pulled into a real containerd."""

import base64
import json
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fargate_agent.errors import CannotPullContainerError
from fargate_agent.image.admission import Policy, Requirement
from fargate_agent.image.store import PullBehavior
from tests.fixtures.images import OCI, BuiltImage, build_image, build_index, write_layout
from tests.fixtures.pulls import Puller
from tests.fixtures.registry import FakeRegistry, Fault
from tests.fixtures.signatures import (
    PrivateKey,
    add_signature,
    build_signatures,
    make_key,
    make_payload,
    sign,
    tag_of,
    write_public,
)

pytestmark = pytest.mark.root

CACHED = PullBehavior.PREFER_CACHED


@dataclass
class Signer:
    """A key, and the file of its public half, which a policy for all images names."""

    key: PrivateKey
    file: Path

    @property
    def policies(self) -> tuple[Policy, ...]:
        return (Policy(prefix="", require=Requirement.KEY, key_file=self.file),)


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    key = make_key()
    return Signer(key, write_public(tmp_path / "cosign.pub", key))


async def refusal(puller: Puller, name: str, policies: tuple[Policy, ...], **more: Any) -> str:
    with pytest.raises(CannotPullContainerError) as caught:
        await puller.pull(name, policies=policies, **more)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["manifest", "index", "manifest-of-an-index"])
async def test_a_signed_image_is_pulled(
    puller: Puller, fake_registry: FakeRegistry, signer: Signer, kind: str
) -> None:
    image: BuiltImage = build_image()
    target = image if kind == "manifest" else build_index([image])
    name = fake_registry.add("signed", "1", target)
    signed = target.digest if kind == "index" else image.digest
    add_signature(fake_registry, signed, signer.key)

    pulled = await puller.pull(name, policies=signer.policies)

    assert pulled.digest == image.digest


async def test_an_image_without_a_signature_is_refused_and_no_layer_fetched(
    puller: Puller, fake_registry: FakeRegistry, signer: Signer
) -> None:
    image = build_image()
    name = fake_registry.add("signed", "1", image)

    reason = await refusal(puller, name, signer.policies)

    assert reason == (
        f"CannotPullContainerError: image {name} is refused: the agent's policy "
        f'image_signatures."" asks for a signature of {image.digest}, and there is no signature of '
        "it in the registry: sign it with 'cosign sign --key', or change the policy"
    )
    assert fake_registry.sent[image.layers[0]] == 0
    assert await puller.admin.list() == []


async def test_signatures_of_others_and_of_other_images_do_not_count(
    puller: Puller, fake_registry: FakeRegistry, signer: Signer
) -> None:
    image, other = build_image(), build_image()
    name = fake_registry.add("signed", "1", image)

    add_signature(fake_registry, image.digest, make_key())
    by_another = await refusal(puller, name, signer.policies)
    add_signature(fake_registry, image.digest, signer.key, make_payload(other.digest))
    of_another = await refusal(puller, name, signer.policies)

    assert "none of its 1 signatures was made by the key" in by_another
    assert f"what the key has signed is another one: {other.digest}" in of_another


async def test_one_good_signature_among_others_is_enough(
    puller: Puller, fake_registry: FakeRegistry, signer: Signer
) -> None:
    image = build_image()
    name = fake_registry.add("signed", "1", image)
    payload, bad = make_payload(image.digest), make_payload("sha256:" + "0" * 64)
    pairs = [
        (bad, "not base64"),
        (bad, base64.b64encode(sign(make_key(), bad)).decode()),
        (payload, base64.b64encode(sign(signer.key, payload)).decode()),
    ]
    fake_registry.add("signed", tag_of(image.digest), build_signatures(pairs))

    assert (await puller.pull(name, policies=signer.policies)).digest == image.digest


@pytest.mark.parametrize(
    ("document", "text"),
    [
        pytest.param(
            b"[", "those there can't be read: manifest of signatures is not JSON", id="no"
        ),
        pytest.param(b'{"layers": 7}', "'layers' is not a list", id="layers"),
        pytest.param(b'{"layers": []}', "there is no signature of it in the registry", id="empty"),
    ],
)
async def test_what_is_no_manifest_of_signatures_is_refused(
    puller: Puller, fake_registry: FakeRegistry, signer: Signer, document: bytes, text: str
) -> None:
    image = build_image()
    name = fake_registry.add("signed", "1", image)
    signatures = BuiltImage(media_type=OCI["manifest"], document=document)
    fake_registry.add("signed", tag_of(image.digest), signatures)

    assert text in await refusal(puller, name, signer.policies)


async def test_more_signatures_than_are_looked_at_are_refused(
    puller: Puller, fake_registry: FakeRegistry, signer: Signer
) -> None:
    image = build_image()
    name = fake_registry.add("signed", "1", image)
    payload = make_payload(image.digest)
    pairs = [(payload, base64.b64encode(b"x").decode())] * 65
    fake_registry.add("signed", tag_of(image.digest), build_signatures(pairs))

    reason = await refusal(puller, name, signer.policies)

    assert "there are 65 signatures, and 64 at most are looked at" in reason


async def test_a_registry_that_fails_is_told_apart_from_one_without_signatures(
    puller: Puller, fake_registry: FakeRegistry, signer: Signer
) -> None:
    name = fake_registry.add("signed", "1", build_image())
    fake_registry.faults["manifests"] = deque([Fault(), Fault(), *[Fault(status=500)] * 50])

    reason = await refusal(puller, name, signer.policies)

    assert f"the signatures of image {name} could not be read from its registry: " in reason
    assert "500 Internal Server Error" in reason


async def test_signatures_are_fetched_with_the_login_of_the_image(
    puller: Puller, fake_registry: FakeRegistry, signer: Signer, tmp_path: Path
) -> None:
    image = build_image()
    name = fake_registry.add("signed", "1", image)
    add_signature(fake_registry, image.digest, signer.key)
    pair = base64.b64encode(b"ann:pw").decode()
    fake_registry.basic = f"Basic {pair}"
    auth_file = tmp_path / "auth.json"
    auth_file.write_text(json.dumps({"auths": {fake_registry.host: {"auth": pair}}}))

    pulled = await puller.pull(name, policies=signer.policies, auth_file=auth_file)

    assert pulled.digest == image.digest


async def test_a_mirror_is_held_to_the_policy_of_the_image_that_it_stands_for(
    puller: Puller, fake_registry: FakeRegistry, signer: Signer
) -> None:
    image = build_image()
    fake_registry.add("signed", "1", image)
    mirrors = {"registry.test": (f"{fake_registry.host}", "no-original")}
    policies = (
        Policy(prefix="registry.test", require=Requirement.KEY, key_file=signer.file),
        Policy(prefix=fake_registry.host, require=Requirement.NONE),
    )

    reason = await refusal(puller, "registry.test/signed:1", policies, mirrors=mirrors)
    add_signature(fake_registry, image.digest, signer.key)
    pulled = await puller.pull("registry.test/signed:1", policies=policies, mirrors=mirrors)

    assert 'policy image_signatures."registry.test" asks for a signature' in reason
    assert pulled.digest == image.digest


@pytest.mark.parametrize("behavior", list(PullBehavior))
async def test_a_policy_for_digests_refuses_tags_without_asking_anybody(
    puller: Puller, fake_registry: FakeRegistry, behavior: PullBehavior
) -> None:
    image = build_image()
    name = fake_registry.add("web", "1", image)
    policies = (Policy(prefix="", require=Requirement.DIGEST),)

    reason = await refusal(puller, name, policies, behavior=behavior)
    assert reason == (
        f"CannotPullContainerError: image {name} is refused: the agent's policy "
        'image_signatures."" asks for images by digest: write NAME@sha256:… in the task definition'
    )
    assert fake_registry.requests == []
    by_digest = f"{name}@{image.digest}"
    for _ in range(2):  # the second may be the copy
        pulled = await puller.pull(by_digest, policies=policies, behavior=behavior)
        assert pulled.digest == image.digest


async def test_a_copy_that_was_verified_runs_without_the_registry(
    puller: Puller, fake_registry: FakeRegistry, signer: Signer
) -> None:
    image = build_image()
    name = fake_registry.add("signed", "1", image)
    add_signature(fake_registry, image.digest, signer.key)
    await puller.pull(name, policies=signer.policies)
    fake_registry.faults["manifests"] = deque([Fault(status=500)] * 100)

    for behavior in (PullBehavior.DEFAULT, PullBehavior.ONCE, PullBehavior.PREFER_CACHED):
        copy = await puller.pull(name, policies=signer.policies, behavior=behavior)
        assert copy.digest == image.digest


async def test_a_copy_that_was_not_verified_with_this_key_is_pulled_again_or_refused(
    puller: Puller, fake_registry: FakeRegistry, signer: Signer
) -> None:
    image = build_image()
    name = fake_registry.add("signed", "1", image)
    await puller.pull(name)

    reason = await refusal(puller, name, signer.policies, behavior=CACHED)
    add_signature(fake_registry, image.digest, signer.key)
    pulled = await puller.pull(name, policies=signer.policies, behavior=CACHED)
    write_public(signer.file, make_key())
    after = await refusal(puller, name, signer.policies, behavior=CACHED)

    not_verified = 'it was not verified with a key of the agent\'s policy image_signatures.""'
    assert "there is no signature of it in the registry" in reason
    assert not_verified in reason
    assert pulled.digest == image.digest
    assert not_verified in after


async def test_a_copy_of_which_one_platform_is_signed_does_not_run_by_itself(
    puller: Puller, fake_registry: FakeRegistry, signer: Signer
) -> None:
    """The index might have another image for the next task."""
    image = build_image()
    name = fake_registry.add("signed", "1", build_index([image]))
    add_signature(fake_registry, image.digest, signer.key)
    await puller.pull(name, policies=signer.policies)
    fake_registry.faults["manifests"] = deque([Fault(status=500)] * 100)

    assert "it was not verified" in await refusal(puller, name, signer.policies, behavior=CACHED)


async def test_a_loaded_image_needs_a_policy_that_says_so(
    puller: Puller, signer: Signer, tmp_path: Path
) -> None:
    name = "registry.invalid/tool:1"
    image = build_image()
    await puller.admin.load(write_layout(tmp_path / "a.tar", {name: image}))
    for require in (Requirement.KEY, Requirement.DIGEST):
        key_file = signer.file if require is Requirement.KEY else None
        strict = Policy(prefix="", require=require, key_file=key_file)
        lenient = Policy(prefix="", require=require, key_file=key_file, loaded=True)

        refused = await refusal(puller, name, (strict,), behavior=CACHED)
        loaded = await puller.pull(name, policies=(lenient,), behavior=CACHED)

        assert re.search("was loaded from a file.*without loaded = true|by digest", refused)
        assert loaded.digest == image.digest


async def test_a_loaded_image_that_has_another_digest_than_its_name_is_refused(
    puller: Puller, tmp_path: Path
) -> None:
    name = f"registry.invalid/tool:1@sha256:{'0' * 64}"
    image = build_image()
    await puller.admin.load(write_layout(tmp_path / "a.tar", {name: image}))
    policies = (Policy(prefix="", require=Requirement.DIGEST),)

    reason = await refusal(puller, name, policies, behavior=CACHED)

    assert f"can't be used: it is {image.digest}, another image" in reason


async def test_a_key_that_can_not_be_read_refuses_the_image(
    puller: Puller, fake_registry: FakeRegistry, signer: Signer
) -> None:
    name = fake_registry.add("signed", "1", build_image())
    signer.file.unlink()

    reason = await refusal(puller, name, signer.policies)

    assert reason.endswith("names a file of keys that can't be used: No such file or directory")
    assert str(signer.file) not in reason
