"""Which images an archive holds, and of which blobs they are made. All functions block."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from fargate_agent.containerd.types import Descriptor
from fargate_agent.image.archive.tar import COPY_BYTES, Archive, ImageArchiveError, Member
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
    MAX_DEPTH,
    NO_PLATFORM,
    Manifest,
    parse_config,
    parse_descriptor,
    parse_manifest,
)
from fargate_agent.image.reference import InvalidReferenceError, digest_of, parse_reference

CONTAINERD_NAME: Final = "io.containerd.image.name"
"""Annotation with the full name. Source: containerd, images/annotations.go."""
OCI_NAME: Final = "org.opencontainers.image.ref.name"
"""Annotation with a name, of which some write the tag alone. Source: OCI, annotations.md."""

MAX_NAMES: Final = 1024
"""Most images and names of an archive: each name becomes a record of containerd."""

_TOO_MANY: Final = f"the archive has more than {MAX_NAMES} images and names"

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
class Content:
    """What an image is made of."""

    target: Descriptor
    blobs: tuple[Blob, ...]
    """What refers to others comes after them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedImage:
    """An image of an archive."""

    names: tuple[str, ...]
    content: Content


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """An image as the archive lists it."""

    names: tuple[str, ...]
    """As they are written there; only full ones."""
    id: str
    """What it is called where it has no name."""
    collect: Callable[[], Content]

    @property
    def label(self) -> str:
        """What it is called in errors."""
        return ", ".join(self.names) or self.id


def read_images(archive: Archive, name: str | None = None) -> list[ArchivedImage]:
    """Find the images of an archive; `name` is what its only image shall be called.

    Raises:
        ImageArchiveError: there are none, or something about them is wrong; the text names each
            image and what is wrong with it.
    """
    entries = _read_entries(archive)
    if not entries:
        raise ImageArchiveError("the archive has no images")
    if sum(max(1, len(entry.names)) for entry in entries) > MAX_NAMES:
        raise ImageArchiveError(_TOO_MANY)
    if name is not None:
        if len(entries) > 1:
            raise ImageArchiveError(
                f"--name is for an archive of one image, and this one has {len(entries)}: "
                + ", ".join(entry.label for entry in entries)
            )
        entries = [replace(entries[0], names=(name,))]
    images, faults = list[ArchivedImage](), list[str]()
    for entry in entries:
        try:
            images.append(_read_image(entry))
        except ImageArchiveError as error:
            faults.append(f"image {entry.label}: {error}")
    if faults:
        raise ImageArchiveError("; ".join(faults))
    return images


def _read_entries(archive: Archive) -> list[_Entry]:
    try:
        if "index.json" in archive:
            return _read_oci_entries(archive)
        if "manifest.json" in archive:
            return _read_docker_entries(archive)
    except InvalidDocumentError as error:
        raise ImageArchiveError(str(error)) from error
    raise ImageArchiveError(
        "the archive has neither an index.json nor a manifest.json, one of which docker save, "
        "skopeo and buildx write"
    )


def _read_image(entry: _Entry) -> ArchivedImage:
    """Read all of an image, so that all that is wrong with it is told at once."""
    faults, names, content = list[str](), list[str](), None
    if not entry.names:
        faults.append("the archive gives it no full name: choose one with --name NAME")
    for name in entry.names:
        try:
            names.append(parse_reference(name).name)
        except InvalidReferenceError as error:
            faults.append(f"its name '{name}' is wrong: {error}")
    try:
        content = entry.collect()
    except (ImageArchiveError, InvalidDocumentError) as error:
        faults.append(str(error))
    if faults or content is None:
        raise ImageArchiveError(", ".join(faults))
    return ArchivedImage(names=tuple(names), content=content)


def _read_oci_entries(archive: Archive) -> list[_Entry]:
    """An image with several names has several entries there."""
    index = parse_document("index.json", archive.read("index.json"))
    entries: dict[str, _Entry] = {}
    for document in index.children("manifests"):
        target = parse_descriptor(document)
        known = entries[target.digest].names if target.digest in entries else ()
        entries[target.digest] = _Entry(
            names=tuple(dict.fromkeys((*known, *_find_name(target)))),
            id=target.digest,
            collect=partial(_collect_oci, archive, target),
        )
    return list(entries.values())


def _find_name(target: Descriptor) -> tuple[str, ...]:
    name = target.annotations.get(CONTAINERD_NAME)
    if name is None:
        name = target.annotations.get(OCI_NAME, "")
        if "/" not in name and ":" not in name:
            return ()
    return (name,) if name else ()


def _collect_oci(archive: Archive, target: Descriptor) -> Content:
    if target.media_type not in INDEX_TYPES | MANIFEST_TYPES:
        raise ImageArchiveError(f"media type '{target.media_type}' is no image manifest")
    blobs: dict[str, Blob] = {}
    _collect(archive, target, blobs, MAX_DEPTH)
    # Annotations may be of any size, and records are listed in one message.
    return Content(target=replace(target, annotations={}), blobs=tuple(blobs.values()))


def _collect(archive: Archive, descriptor: Descriptor, blobs: dict[str, Blob], depth: int) -> None:
    """Collect what the descriptor refers to, and it after that."""
    if descriptor.digest in blobs:
        return
    if descriptor.media_type in INDEX_TYPES | MANIFEST_TYPES:
        blob = _collect_manifest(archive, descriptor, blobs, depth)
    else:
        member = archive.member(_blob_path(descriptor))
        _check_size(descriptor, member.size)
        blob = Blob(digest=descriptor.digest, source=member, labels={})
    blobs[descriptor.digest] = blob


def _collect_manifest(
    archive: Archive, descriptor: Descriptor, blobs: dict[str, Blob], depth: int
) -> Blob:
    if depth == 0:
        raise ImageArchiveError(f"its indexes are nested deeper than {MAX_DEPTH}")
    data = archive.read(_blob_path(descriptor))
    if digest_of(data) != descriptor.digest:
        raise ImageArchiveError(f"'{_blob_path(descriptor)}' has another digest than its name says")
    _check_size(descriptor, len(data))
    parsed = parse_manifest(descriptor.media_type, data)
    if isinstance(parsed, Manifest):
        parse_config(archive.read(_blob_path(parsed.config)), None, len(parsed.layers))
        children = [*parsed.layers, parsed.config]
    else:
        # An archive may hold an image for one platform and still the index of all.
        entries = [one.descriptor for one in parsed.entries if one.platform != NO_PLATFORM]
        children = [entry for entry in entries if _blob_path(entry) in archive]
        if not children:
            raise ImageArchiveError(f"the archive has no manifest of index {descriptor.digest}")
    for child in children:
        _collect(archive, child, blobs, depth - 1)
    return Blob(digest=descriptor.digest, source=data, labels=parsed.labels)


def _check_size(descriptor: Descriptor, size: int) -> None:
    if size != descriptor.size:
        raise ImageArchiveError(f"{descriptor.digest} has not the size that is said of it")


def _blob_path(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.replace(':', '/')}"


def _read_docker_entries(archive: Archive) -> list[_Entry]:
    entries = parse_json("manifest.json", archive.read("manifest.json"))
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ImageArchiveError("manifest.json is not a list of images")
    if len(entries) > MAX_NAMES:
        raise ImageArchiveError(_TOO_MANY)
    documents = [Document(f"manifest.json: [{n}]", entry) for n, entry in enumerate(entries)]
    digests: dict[Member, str] = {}
    return [
        _Entry(
            names=document.texts("RepoTags"),
            id=document.text("Config"),
            collect=partial(_collect_docker, archive, document, digests),
        )
        for document in documents
    ]


def _collect_docker(archive: Archive, entry: Document, digests: dict[Member, str]) -> Content:
    """Make the manifest that the archive lacks; each layer is hashed once, into `digests`."""
    layer_names = entry.texts("Layers")
    config = archive.read(entry.text("Config"))
    diff_ids = parse_config(config, None, len(layer_names)).diff_ids
    blobs = []
    layers = []
    for name, diff_id in zip(layer_names, diff_ids, strict=True):
        member = archive.member(name)
        suffix = _packed_suffix(archive, member)
        if suffix and member not in digests:
            digests[member] = _hash(archive, member)
        digest = digests[member] if suffix else diff_id
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
    return Content(target=target, blobs=tuple(blobs))


def _packed_suffix(archive: Archive, member: Member) -> str:
    start = archive.read_at(member, 0, 4)
    return next((end for magic, end in _PACKED_TYPES.items() if start.startswith(magic)), "")


def _hash(archive: Archive, member: Member) -> str:
    digest = hashlib.sha256()
    for position in range(0, member.size, COPY_BYTES):
        digest.update(archive.read_at(member, position, COPY_BYTES))
    return f"sha256:{digest.hexdigest()}"
