"""The way from a name to an image for one platform: index, manifest, configuration.

These documents are small, read into memory, and kept in containerd's content store with the labels
that tell its garbage collector what they refer to.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fargate_agent.containerd.content import Content
from fargate_agent.containerd.errors import NotFoundError
from fargate_agent.containerd.types import Descriptor
from fargate_agent.drivers import Image
from fargate_agent.image.config import ConfigFile, parse_config
from fargate_agent.image.digest import chain_ids
from fargate_agent.image.document import MAX_DOCUMENT_BYTES, InvalidDocumentError
from fargate_agent.image.manifest import MAX_DEPTH, Index, Manifest, PlatformError, parse_manifest
from fargate_agent.image.platform import Platform
from fargate_agent.image.unpack import snapshot_labels

MAX_MANIFESTS: Final = 64
"""So many manifests and indexes of one image are read before it counts as one that doesn't fit."""

ReadDocument = Callable[[Descriptor], Awaitable[bytes]]
"""Returns the bytes of a document; that they have its digest has been verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformImage:
    """An image for one platform, all but its layers in the content store."""

    target: Descriptor
    """What the name stands for: an index or a manifest."""
    digest: str
    """Of the manifest."""
    manifest: Manifest
    config: ConfigFile

    def named(self, name: str) -> Image:
        """Return it as it is told to the rest of the agent."""
        return Image(
            name=name,
            digest=self.digest,
            config_digest=self.manifest.config.digest,
            chain_id=chain_ids(self.config.diff_ids)[-1],
            config=self.config.config,
        )


async def read_local(content: Content, descriptor: Descriptor) -> bytes:
    """Read a document out of the content store.

    Raises:
        NotFoundError: it isn't there.
        InvalidDocumentError: it is too large.
    """
    if descriptor.size > MAX_DOCUMENT_BYTES:
        raise InvalidDocumentError(
            f"document {descriptor.digest} is larger than {MAX_DOCUMENT_BYTES} bytes"
        )
    return await content.read(descriptor.digest, MAX_DOCUMENT_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageKeeper:
    """Finds the image for one platform, and keeps it."""

    architecture: str
    variants: Sequence[str]
    """Those that will do, the best first."""
    snapshotter: str
    read: ReadDocument
    content: Content

    async def keep(self, target: Descriptor) -> PlatformImage:
        """Return the image when the lease of `content` keeps its documents, and what they refer to.

        Raises:
            PlatformError: there is none for Linux on the architecture.
            InvalidDocumentError: a document isn't what it should be.
            NotFoundError: `read` didn't find a document, and no other one will do.
            ContainerdError: containerd refused to keep it.
        """
        pending, found = [(target, 1)], list[Platform]()
        missing: NotFoundError | None = None
        for _ in range(MAX_MANIFESTS):
            if not pending:
                break
            descriptor, depth = pending.pop()
            try:
                parsed = await self._keep_manifest(descriptor)
                if isinstance(parsed, Manifest):
                    config = await self._keep_config(parsed)
                    return PlatformImage(
                        target=target, digest=descriptor.digest, manifest=parsed, config=config
                    )
            except PlatformError as error:
                found += error.found
                continue
            except NotFoundError as error:
                missing = error
                continue
            found += parsed.platforms
            if depth < MAX_DEPTH:
                fitting = parsed.find(self.architecture, self.variants)
                pending += [(one, depth + 1) for one in reversed(fitting)]
        raise missing or PlatformError(self.architecture, found)

    async def _keep_manifest(self, descriptor: Descriptor) -> Manifest | Index:
        data = await self.read(descriptor)
        parsed = parse_manifest(descriptor.media_type, data)
        await keep_document(self.content, data, descriptor.digest, parsed.labels)
        return parsed

    async def _keep_config(self, manifest: Manifest) -> ConfigFile:
        data = await self.read(manifest.config)
        config = parse_config(data, self.architecture, len(manifest.layers))
        labels = snapshot_labels(self.snapshotter, config.diff_ids)
        await keep_document(self.content, data, manifest.config.digest, labels)
        return config


async def keep_document(
    content: Content, data: bytes, digest: str, labels: Mapping[str, str]
) -> None:
    """Return when the document is in the content store, labelled, and kept by the lease.

    Two may do it at once: each writes under a ref of its own.
    """
    try:
        labelled = labels.items() <= (await content.info(digest)).labels.items()
    except NotFoundError:
        labelled = False
    await content.write_blob(
        f"document-{digest}-{secrets.token_hex(8)}", data, {} if labelled else labels
    )
