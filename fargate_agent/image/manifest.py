"""Manifests and indexes of images, in OCI's words and Docker's, and the choice of a platform.

A *manifest* lists the configuration and the layers of an image for one platform. An *index* (in
Docker's words a manifest list) lists manifests. Both are JSON, named by the digest of their bytes.
Source: OCI image specification, manifest.md and image-index.md; Docker registry, schema 2.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fargate_agent.containerd.types import Descriptor
from fargate_agent.image.digest import is_digest
from fargate_agent.image.document import Document, InvalidDocumentError, parse_document
from fargate_agent.image.platform import OS, Platform, parse_platform

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_INDEX: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"

MANIFEST_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_INDEX})
CONFIG_TYPES: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
LAYER_TYPES: Final = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    }
)
"""What containerd unpacks."""

MAX_LAYERS: Final = 127
"""With the container's own, as many as Docker stacks.

Source: moby, daemon/graphdriver/overlay2/overlay.go, `maxDepth`.
"""

MAX_DEPTH: Final = 4
"""Indexes within indexes: the specification allows it, and nobody makes more than two."""

NO_PLATFORM: Final = Platform(os="unknown", architecture="unknown")
"""What builders say of entries that are no images, such as attestations.

Source: docker/buildx, docs/reference, attestation storage.
"""


class PlatformError(InvalidDocumentError):
    """An image isn't there for the platform of the task."""

    def __init__(self, architecture: str, found: Iterable[Platform] = ()) -> None:
        """`found` is what the image was built for instead."""
        self.found = tuple(found)
        has = ", ".join(dict.fromkeys(map(str, self.found)))
        super().__init__(
            f"image Manifest does not contain descriptor matching platform '{OS}/{architecture}'"
            + (f"; it has {has}" if has else "")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image for one platform."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    """The lowest first."""

    @property
    def labels(self) -> dict[str, str]:
        """Tell containerd's garbage collector what the manifest holds on to."""
        layers = {
            f"containerd.io/gc.ref.content.l.{n}": layer.digest
            for n, layer in enumerate(self.layers)
        }
        return {"containerd.io/gc.ref.content.config": self.config.digest, **layers}


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One manifest of an index."""

    descriptor: Descriptor
    platform: Platform | None
    """None if the index doesn't say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The same image for several platforms."""

    entries: tuple[IndexEntry, ...]

    @property
    def labels(self) -> dict[str, str]:
        """Tell containerd's garbage collector what the index holds on to."""
        return {
            f"containerd.io/gc.ref.content.m.{n}": entry.descriptor.digest
            for n, entry in enumerate(self.entries)
        }

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """What the index says that it has."""
        platforms = (entry.platform for entry in self.entries if entry.platform is not None)
        return tuple(one for one in platforms if one != NO_PLATFORM)

    def find(self, architecture: str, variants: Iterable[str]) -> tuple[Descriptor, ...]:
        """Return what may be the image for Linux on that architecture, the best first.

        What says no platform comes last; whether it fits is seen in its configuration.
        """
        wanted = [
            *(Platform(os=OS, architecture=architecture, variant=one) for one in variants),
            None,
        ]
        return tuple(
            entry.descriptor
            for platform in wanted
            for entry in self.entries
            if entry.platform == platform
        )


def parse_manifest(media_type: str, data: bytes) -> Manifest | Index:
    """Read a manifest or an index; `media_type` counts where the document doesn't say its own.

    Raises:
        InvalidDocumentError: it is neither, or something in it is wrong.
    """
    document = parse_document("image manifest", data)
    media_type = document.text("mediaType", media_type)
    if media_type in INDEX_TYPES:
        _refuse(document, "layers", "config")
        return Index(entries=tuple(_index_entry(entry) for entry in document.children("manifests")))
    if media_type not in MANIFEST_TYPES:
        raise InvalidDocumentError(f"media type '{media_type}' is no image manifest")
    _refuse(document, "manifests")
    manifest = Manifest(
        config=parse_descriptor(document.child("config")),
        layers=tuple(parse_descriptor(layer) for layer in document.children("layers")),
    )
    _check_types(manifest)
    return manifest


def parse_descriptor(document: Document) -> Descriptor:
    """Read what names a blob.

    Raises:
        InvalidDocumentError: a field is missing or wrong.
    """
    digest = document.text("digest")
    if not is_digest(digest):
        raise InvalidDocumentError(f"{document.what}: 'digest' is not a SHA-256 digest")
    return Descriptor(
        media_type=document.text("mediaType", ""),
        digest=digest,
        size=document.size("size"),
        annotations=document.child("annotations").strings(),
    )


def _index_entry(document: Document) -> IndexEntry:
    platform = document.child("platform")
    names = [platform.text(key, "") for key in ("os", "architecture", "variant")]
    return IndexEntry(
        descriptor=parse_descriptor(document),
        platform=parse_platform(*names) if any(names) else None,
    )


def _refuse(document: Document, *keys: str) -> None:
    """A document that reads as a manifest and as an index would mean two things to two readers."""
    for key in keys:
        if key in document:
            raise InvalidDocumentError(f"{document.what}: '{key}' does not belong there")


def _check_types(manifest: Manifest) -> None:
    if manifest.config.media_type not in CONFIG_TYPES:
        raise InvalidDocumentError(
            f"'{manifest.config.media_type}' is not the configuration of a container image"
        )
    if not 0 < len(manifest.layers) <= MAX_LAYERS:
        raise InvalidDocumentError(
            f"the image has {len(manifest.layers)} layers; it may have 1 to {MAX_LAYERS}"
        )
    for layer in manifest.layers:
        if layer.media_type not in LAYER_TYPES:
            raise InvalidDocumentError(f"layers of type '{layer.media_type}' can't be unpacked")
