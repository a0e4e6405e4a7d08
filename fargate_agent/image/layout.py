"""Which images an archive holds, and of which blobs they are made. All functions block."""

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from fargate_agent.containerd.types import Descriptor
from fargate_agent.image.archive import COPY_BYTES, Archive, ImageArchiveError, Member
from fargate_agent.image.config import parse_config
from fargate_agent.image.digest import digest_of
from fargate_agent.image.document import (
    Document,
    InvalidDocumentError,
    parse_document,
    parse_json,
)
from fargate_agent.image.manifest import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    Manifest,
    parse_descriptor,
    parse_manifest,
)
from fargate_agent.image.reference import InvalidReferenceError, parse_reference

CONTAINERD_NAME: Final = "io.containerd.image.name"
"""Annotation with the full name. Source: containerd, images/annotations.go."""
OCI_NAME: Final = "org.opencontainers.image.ref.name"
"""Annotation with a name, of which some write the tag alone. Source: OCI, annotations.md."""

_DIFF_TAR: Final = "application/vnd.docker.image.rootfs.diff.tar"
_PACKED_TYPES: Final = {b"\x1f\x8b": ".gzip", b"\x28\xb5\x2f\xfd": ".zstd"}
"""Endings of the media type, by the first bytes of the layer. Source: RFC 1952, RFC 8878."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Content to be stored."""

    digest: str
    source: bytes | Member
    labels: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.size


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedImage:
    """An image of an archive."""

    names: tuple[str, ...]
    target: Descriptor
    blobs: tuple[Blob, ...]
    """What refers to others comes after them."""


def read_images(archive: Archive) -> list[ArchivedImage]:
    """Find the images of an archive.

    Raises:
        ImageArchiveError: there are none, or something about them is wrong.
    """
    try:
        if "index.json" in archive:
            images = _read_oci(archive)
        elif "manifest.json" in archive:
            images = _read_docker(archive)
        else:
            raise ImageArchiveError("the archive has neither an index.json nor a manifest.json")
    except (InvalidDocumentError, InvalidReferenceError) as error:
        raise ImageArchiveError(str(error)) from error
    if not images:
        raise ImageArchiveError("the archive has no images")
    return images


def _read_oci(archive: Archive) -> list[ArchivedImage]:
    index = parse_document("index.json", archive.read("index.json"))
    images = []
    for entry in index.children("manifests"):
        target = parse_descriptor(entry)
        blobs: dict[str, Blob] = {}
        _collect(archive, target, blobs)
        images.append(
            ArchivedImage(names=(_name(target),), target=target, blobs=tuple(blobs.values()))
        )
    return images


def _name(target: Descriptor) -> str:
    name = target.annotations.get(CONTAINERD_NAME)
    if name is None:
        name = target.annotations.get(OCI_NAME, "")
        if "/" not in name and ":" not in name:
            raise ImageArchiveError(
                f"index.json gives no full name to image {target.digest}, as {CONTAINERD_NAME} "
                f"or {OCI_NAME} would"
            )
    return parse_reference(name).name


def _collect(archive: Archive, descriptor: Descriptor, blobs: dict[str, Blob]) -> None:
    """Collect what the target refers to, and it after that."""
    if descriptor.digest in blobs:
        return
    if descriptor.media_type not in INDEX_TYPES | MANIFEST_TYPES:
        member = archive.member(_blob_path(descriptor))
        if member.size != descriptor.size:
            raise ImageArchiveError(f"{descriptor.digest} has not the size that is said of it")
        blobs[descriptor.digest] = Blob(digest=descriptor.digest, source=member, labels={})
        return
    data = archive.read(_blob_path(descriptor))
    if digest_of(data) != descriptor.digest:
        raise ImageArchiveError(f"'{_blob_path(descriptor)}' has another digest than its name says")
    parsed = parse_manifest(descriptor.media_type, data)
    if isinstance(parsed, Manifest):
        children = [*parsed.layers, parsed.config]
    else:
        # An archive may hold an image for one platform and still the index of all.
        entries = [entry.descriptor for entry in parsed.entries]
        children = [entry for entry in entries if _blob_path(entry) in archive]
        if not children:
            raise ImageArchiveError(f"the archive has no manifest of index {descriptor.digest}")
    for child in children:
        _collect(archive, child, blobs)
    blobs[descriptor.digest] = Blob(digest=descriptor.digest, source=data, labels=parsed.labels)


def _blob_path(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.replace(':', '/')}"


def _read_docker(archive: Archive) -> list[ArchivedImage]:
    entries = parse_json("manifest.json", archive.read("manifest.json"))
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ImageArchiveError("manifest.json is not a list of images")
    return [
        _read_docker_image(archive, Document(f"manifest.json: [{n}]", entry))
        for n, entry in enumerate(entries)
    ]


def _read_docker_image(archive: Archive, entry: Document) -> ArchivedImage:
    """Make the manifest that the archive lacks."""
    names = tuple(parse_reference(name).name for name in entry.texts("RepoTags"))
    if not names:
        raise ImageArchiveError(f"{entry.what}: 'RepoTags' gives the image no name")
    layer_names = entry.texts("Layers")
    config = archive.read(entry.text("Config"))
    diff_ids = parse_config(config, None, len(layer_names)).diff_ids
    blobs = []
    layers = []
    for name, diff_id in zip(layer_names, diff_ids, strict=True):
        member = archive.member(name)
        suffix = _packed_suffix(archive, member)
        digest = _hash(archive, member) if suffix else diff_id
        blobs.append(Blob(digest=digest, source=member, labels={}))
        layers.append({"mediaType": f"{_DIFF_TAR}{suffix}", "digest": digest, "size": member.size})
    blobs.append(Blob(digest=digest_of(config), source=config, labels={}))
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": {
                "mediaType": DOCKER_CONFIG,
                "digest": digest_of(config),
                "size": len(config),
            },
            "layers": layers,
        }
    ).encode()
    labels = parse_manifest(DOCKER_MANIFEST, manifest).labels
    blobs.append(Blob(digest=digest_of(manifest), source=manifest, labels=labels))
    target = Descriptor(media_type=DOCKER_MANIFEST, digest=digest_of(manifest), size=len(manifest))
    return ArchivedImage(names=names, target=target, blobs=tuple(blobs))


def _packed_suffix(archive: Archive, member: Member) -> str:
    start = archive.read_at(member, 0, 4)
    return next((end for magic, end in _PACKED_TYPES.items() if start.startswith(magic)), "")


def _hash(archive: Archive, member: Member) -> str:
    digest = hashlib.sha256()
    for position in range(0, member.size, COPY_BYTES):
        digest.update(archive.read_at(member, position, COPY_BYTES))
    return f"sha256:{digest.hexdigest()}"
