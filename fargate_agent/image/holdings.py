"""What each image keeps on the disk, and what comes back when some of them go.

Images share layers: a layer goes when the last image that needs it has gone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.content import ContentInfo
from fargate_agent.containerd.errors import NotFoundError
from fargate_agent.containerd.images import ImageRecord
from fargate_agent.containerd.snapshots import Snapshots
from fargate_agent.containerd.types import Descriptor
from fargate_agent.image.content import read_local
from fargate_agent.image.document import MAX_DOCUMENT_BYTES, InvalidDocumentError
from fargate_agent.image.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    SNAPSHOT_LABEL,
    Manifest,
    parse_manifest,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one image keeps."""

    blobs: Mapping[str, int] = field(default_factory=dict)
    """Bytes by digest, as they came: most are compressed."""
    snapshots: Mapping[str, int] = field(default_factory=dict)
    """Bytes of unpacked layers, by the key of the snapshot."""


async def read_holdings(
    containerd: Containerd, snapshotter: str, records: Iterable[ImageRecord]
) -> dict[str, Holding]:
    """Return what is here of each image, by the name of its record.

    A document that is not here, or can't be read, holds nothing.

    Raises:
        ContainerdError: containerd doesn't answer.
    """
    reader = _Reader(containerd, containerd.snapshots(snapshotter))
    await reader.look()
    by_digest: dict[str, Holding] = {}
    for record in records:
        if record.target.digest not in by_digest:
            by_digest[record.target.digest] = await reader.read(record.target)
    return {record.name: by_digest[record.target.digest] for record in records}


def sum_freed(holdings: Mapping[str, Holding], removed: Iterable[str]) -> int:
    """Return how many bytes come back when these images go and all others stay."""
    gone = set(removed)
    blobs, snapshots = dict[str, int](), dict[str, int]()
    for name in gone:
        blobs |= holdings[name].blobs
        snapshots |= holdings[name].snapshots
    for name, holding in holdings.items():
        if name not in gone:
            blobs = {key: size for key, size in blobs.items() if key not in holding.blobs}
            snapshots = {
                key: size for key, size in snapshots.items() if key not in holding.snapshots
            }
    return sum(blobs.values()) + sum(snapshots.values())


class _Reader:
    """Reads each document and measures each snapshot once."""

    def __init__(self, containerd: Containerd, snapshots: Snapshots) -> None:
        self._content = containerd.content
        self._snapshots = snapshots
        self._blobs: dict[str, ContentInfo] = {}
        self._parents: dict[str, str] = {}
        self._sizes: dict[str, int] = {}

    async def look(self) -> None:
        """Find out which blobs and snapshots there are."""
        self._blobs = {info.digest: info for info in await self._content.list()}
        self._parents = {info.key: info.parent for info in await self._snapshots.list()}

    async def read(self, target: Descriptor) -> Holding:
        """Follow all references of an image."""
        blobs, snapshots = dict[str, int](), dict[str, int]()
        pending = [target]
        while pending:
            descriptor = pending.pop()
            info = self._blobs.get(descriptor.digest)
            if info is None or descriptor.digest in blobs:
                continue
            blobs[descriptor.digest] = info.size
            snapshots |= await self._read_snapshots(info)
            pending += await self._find_children(descriptor, info)
        return Holding(blobs=blobs, snapshots=snapshots)

    async def _find_children(self, descriptor: Descriptor, info: ContentInfo) -> list[Descriptor]:
        if descriptor.media_type not in INDEX_TYPES | MANIFEST_TYPES:
            return []
        if info.size > MAX_DOCUMENT_BYTES:  # whatever the index says of it
            return []
        try:
            data = await read_local(self._content, descriptor)
            parsed = parse_manifest(descriptor.media_type, data)
        except (NotFoundError, InvalidDocumentError):
            return []
        if isinstance(parsed, Manifest):
            return [parsed.config, *parsed.layers]
        return [entry.descriptor for entry in parsed.entries]

    async def _read_snapshots(self, info: ContentInfo) -> dict[str, int]:
        """Measure the snapshots that a configuration holds on to, and those below them."""
        label = f"{SNAPSHOT_LABEL}.{self._snapshots.snapshotter}"
        found: dict[str, int] = {}
        for name, key in info.labels.items():
            if name != label and not name.startswith(f"{label}/"):
                continue
            while key in self._parents and key not in found:
                found[key] = await self._measure(key)
                key = self._parents[key]
        return found

    async def _measure(self, key: str) -> int:
        if key not in self._sizes:
            try:
                self._sizes[key] = await self._snapshots.usage(key)
            except NotFoundError:
                self._sizes[key] = 0
        return self._sizes[key]
