"""Which images may run: the operator's policies by prefixes of names, and whether one is met.

What was verified is what runs: a name is resolved to a digest first, that digest is verified, and
all of the image is fetched by it. The record of a verified image keeps the fingerprint of the key
and the digest, so that the copy may be used when the registry can't be reached.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from fargate_agent.containerd.images import ImageRecord
from fargate_agent.egress.retry import GaveUpError
from fargate_agent.errors import CannotPullContainerError
from fargate_agent.image.content import PlatformImage
from fargate_agent.image.document import InvalidDocumentError
from fargate_agent.image.mirrors import find_prefix
from fargate_agent.image.reference import Reference
from fargate_agent.image.registry.protocol import Registry
from fargate_agent.image.signatures import (
    InvalidKeyError,
    PublicKey,
    UnsignedError,
    fetch_signatures,
    find_signer,
    read_keys,
)
from fargate_agent.image.uses import is_loaded

VERIFIED_LABEL: Final = "fargate.agent/verified"
"""On an image record: fingerprint of the key, and the digest that it has signed. If that is the
manifest for one platform alone, the copy may not run by itself: its index may have others."""


class Requirement(StrEnum):
    """What a policy asks of images."""

    NONE = "none"
    DIGEST = "digest"
    """The task definition names them by digest."""
    KEY = "key"
    """They were signed by a key."""


class NotAdmittedError(InvalidDocumentError):
    """A copy on this machine may not run; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is asked of images whose names begin with a prefix."""

    prefix: str
    """`HOST[:PORT][/PATH]`; empty for all images."""
    require: Requirement
    key_file: Path | None = None
    """PEM file with one or several public keys, any of which will do."""
    loaded: bool = False
    """Whether images that were loaded from a file are admitted as they are."""

    def __str__(self) -> str:
        return f'the agent\'s policy image_signatures."{self.prefix}"'


class Ticket:
    """Whether one image may run, for the time of one pull."""

    def __init__(self, reference: Reference, policy: Policy) -> None:
        self._reference = reference
        self._policy = policy
        self._labels: dict[str, str] = {}

    @property
    def labels(self) -> Mapping[str, str]:
        """What the record of the image says when it was pulled."""
        return self._labels

    def check_name(self) -> None:
        """Return if an image of that name may be pulled.

        Raises:
            CannotPullContainerError: it may not.
        """
        if self._policy.require is Requirement.DIGEST and self._reference.digest is None:
            raise self._refuse(
                "asks for images by digest: write NAME@sha256:… in the task definition"
            )

    async def verify(self, registry: Registry, image: PlatformImage) -> None:
        """Return if an image that the registry has resolved may be fetched.

        Its signatures are fetched from the same repository, with the same credentials.

        Raises:
            CannotPullContainerError: it may not, or that can't be found out.
        """
        self._labels = {}
        if self._policy.require is not Requirement.KEY:
            return
        try:
            keys = await self._read_keys()
            key, digest = await _find_signer(registry, image, keys)
        except GaveUpError as error:
            raise CannotPullContainerError(
                f"the signatures of image {self._reference.name} could not be read from its "
                f"registry: {error}; {self._policy} asks for one"
            ) from error
        except InvalidDocumentError as error:
            raise self._refuse(
                f"asks for a signature, and those there can't be read: {error}"
            ) from error
        except UnsignedError as error:
            raise self._refuse(
                f"asks for a signature of {image.target.digest}, and {error}: sign it with "
                "'cosign sign --key', or change the policy"
            ) from error
        self._labels = {VERIFIED_LABEL: f"{key.fingerprint} {digest}"}

    async def check_copy(self, record: ImageRecord) -> None:
        """Return if a copy on this machine may run.

        Raises:
            NotAdmittedError: it may not.
            CannotPullContainerError: that can't be found out.
        """
        policy, digest = self._policy, record.target.digest
        if policy.require is Requirement.NONE or (policy.loaded and is_loaded(record)):
            return
        if policy.require is Requirement.DIGEST:
            self.check_name()
            if digest != self._reference.digest:
                raise NotAdmittedError(f"it is {digest}, another image")
        elif is_loaded(record):
            raise NotAdmittedError(
                f"it was loaded from a file, which {policy} doesn't admit without loaded = true"
            )
        elif not await self._was_verified(record):
            raise NotAdmittedError(f"it was not verified with a key of {policy}")

    async def _was_verified(self, record: ImageRecord) -> bool:
        fingerprint, _, digest = record.labels.get(VERIFIED_LABEL, "").partition(" ")
        known = {key.fingerprint for key in await self._read_keys()}
        return fingerprint in known and digest == record.target.digest

    async def _read_keys(self) -> tuple[PublicKey, ...]:
        """Read the keys as they are now: a changed file needs no restart."""
        if self._policy.key_file is None:
            return ()
        try:
            return await asyncio.to_thread(read_keys, self._policy.key_file)
        except InvalidKeyError as error:
            raise self._refuse(f"names a file of keys that can't be used: {error}") from error

    def _refuse(self, why: str) -> CannotPullContainerError:
        return CannotPullContainerError(
            f"image {self._reference.name} is refused: {self._policy} {why}"
        )


class Admission:
    """The setting `image_signatures`."""

    def __init__(self, policies: Iterable[Policy] = ()) -> None:
        self._policies = {policy.prefix: policy for policy in policies}

    def open(self, reference: Reference) -> Ticket:
        """Return what the policy with the longest prefix asks of an image; nothing without one."""
        prefix = find_prefix(reference, self._policies)
        if prefix is None:
            return Ticket(reference, Policy(prefix="", require=Requirement.NONE))
        return Ticket(reference, self._policies[prefix])


async def _find_signer(
    registry: Registry, image: PlatformImage, keys: tuple[PublicKey, ...]
) -> tuple[PublicKey, str]:
    """Return who has signed which digest.

    Signatures of what the name stands for come first, then those of the platform's manifest.

    Raises:
        UnsignedError: none is by one of the keys; the text is about the first that has any.
    """
    refusals = []
    for digest in dict.fromkeys((image.target.digest, image.digest)):
        signatures = await fetch_signatures(registry, digest)
        try:
            return await asyncio.to_thread(find_signer, signatures, keys, digest), digest
        except UnsignedError as error:
            refusals.append((not signatures, error))
    raise min(refusals, key=lambda refusal: refusal[0])[1]
