"""Manifests, indexes and configurations of images, in OCI's words and Docker's.

A *manifest* lists the configuration and the layers of an image for one platform. An *index* (in
Docker's words a manifest list) lists manifests. A *configuration* says what to run, and what the
layers are when they aren't compressed. All are JSON, named by the digest of their bytes.
Source: OCI image specification, manifest.md, image-index.md and config.md; Docker registry, schema
2; Docker's image specification has the same fields.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from fargate_agent.containerd.types import Descriptor
from fargate_agent.drivers import ImageConfig
from fargate_agent.image.document import Document, InvalidDocumentError, parse_document
from fargate_agent.image.platform import OS, Platform, parse_platform
from fargate_agent.image.reference import digest_of, is_digest
from fargate_agent.image.refused import name_artifact, name_layer, name_manifest

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

_ROOTFS_TYPE: Final = "layers"
_TEXTS: Final = ("os", "architecture", "variant", "os.version", "author", "created")
_RUN_TEXTS: Final = ("User", "WorkingDir", "StopSignal")
_RUN_LISTS: Final = ("Entrypoint", "Cmd", "Env")
_RUN_OBJECTS: Final = ("ExposedPorts", "Volumes", "Healthcheck")
"""Members by their types. Source: OCI image specification, config.md; Docker's for the last."""

SNAPSHOT_LABEL: Final = "containerd.io/gc.ref.snapshot"
"""On a configuration: keeps a snapshot. Source: containerd, metadata/gc.go."""


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
    if refusal := name_manifest(media_type, document.number("schemaVersion")):
        raise InvalidDocumentError(refusal)
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
    _check_types(manifest, document.text("artifactType", ""))
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


def _check_types(manifest: Manifest, artifact_type: str) -> None:
    config_type = manifest.config.media_type
    if config_type not in CONFIG_TYPES:
        raise InvalidDocumentError(
            name_artifact(config_type, artifact_type)
            or f"'{config_type}' is not the configuration of a container image"
        )
    if not 0 < len(manifest.layers) <= MAX_LAYERS:
        raise InvalidDocumentError(
            f"the image has {len(manifest.layers)} layers; it may have 1 to {MAX_LAYERS}"
        )
    for layer in manifest.layers:
        if refusal := name_layer(layer.media_type):
            raise InvalidDocumentError(refusal)
        if layer.media_type not in LAYER_TYPES:
            raise InvalidDocumentError(f"layers of type '{layer.media_type}' can't be unpacked")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """What is read of an image's configuration."""

    config: ImageConfig
    diff_ids: tuple[str, ...]
    """Digest of each layer when it isn't compressed."""

    def snapshot_labels(self, snapshotter: str) -> dict[str, str]:
        """Tell containerd's garbage collector which snapshots the configuration holds on to.

        The top one keeps all below it. They have labels of their own too, so that while an image is
        being unpacked a layer that another task unpacked stays when that task's lease goes.
        """
        *below, top = chain_ids(self.diff_ids)
        label = f"{SNAPSHOT_LABEL}.{snapshotter}"
        return {label: top, **{f"{label}/{n}": chain_id for n, chain_id in enumerate(below)}}


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """Name the file system after each layer: a layer's name depends on all below it.

    Source: OCI image specification, config.md, "Layer ChainID".
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)


def parse_config(data: bytes, architecture: str | None, layers: int) -> ConfigFile:
    """Read the configuration of an image that has so many layers.

    Raises:
        PlatformError: the image is for another platform than Linux on `architecture`; None takes
            any that is said.
        InvalidDocumentError: members are missing or wrong; the text names them all.
    """
    document = parse_document("image config", data)
    _check_config(document, layers, () if architecture else ("os", "architecture"))
    platform = parse_platform(
        document.text("os", OS),
        document.text("architecture", architecture or ""),
        document.text("variant", ""),
    )
    if architecture and (platform.os, platform.architecture) != (OS, architecture):
        raise PlatformError(architecture, [platform])
    run = document.child("config")
    return ConfigFile(
        config=ImageConfig(
            entrypoint=run.texts("Entrypoint"),
            command=run.texts("Cmd"),
            environment=run.texts("Env"),
            user=run.text("User", ""),
            working_directory=run.text("WorkingDir", ""),
            stop_signal=run.text("StopSignal", ""),
            volumes=tuple(run.child("Volumes").keys),
        ),
        diff_ids=document.child("rootfs").texts("diff_ids"),
    )


def _check_config(document: Document, layers: int, required: tuple[str, ...]) -> None:
    """Return if all members have the types of the specification, whether they are used or not."""
    faults = []
    for check in _config_checks(document, layers, required):
        try:
            check()
        except InvalidDocumentError as error:
            faults.append(str(error))
    if faults:
        raise InvalidDocumentError(", ".join(dict.fromkeys(faults)))


def _config_checks(
    document: Document, layers: int, required: tuple[str, ...]
) -> Iterator[Callable[[], object]]:
    for key in _TEXTS:
        yield partial(document.text, key, None if key in required else "")
    yield partial(document.texts, "os.features")
    yield partial(document.children, "history")
    yield partial(_check_rootfs, document, layers)
    try:
        run = document.child("config")
    except InvalidDocumentError:
        yield partial(document.child, "config")
        return
    for key in _RUN_TEXTS:
        yield partial(run.text, key, "")
    for key in _RUN_LISTS:
        yield partial(run.texts, key)
    for key in _RUN_OBJECTS:
        yield partial(run.child, key)
    yield partial(_check_labels, run)


def _check_labels(run: Document) -> None:
    labels = run.child("Labels")
    for key in labels.keys:
        labels.text(key, "")


def _check_rootfs(document: Document, layers: int) -> None:
    rootfs = document.child("rootfs")
    if rootfs.text("type", _ROOTFS_TYPE) != _ROOTFS_TYPE:
        raise InvalidDocumentError(f"{document.what}: 'rootfs.type' is not '{_ROOTFS_TYPE}'")
    diff_ids = rootfs.texts("diff_ids")
    if len(diff_ids) != layers or not all(map(is_digest, diff_ids)):
        raise InvalidDocumentError(
            f"{document.what}: 'rootfs.diff_ids' does not name the {layers} layers of the manifest"
        )
