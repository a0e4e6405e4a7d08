"""What happens to one image for one task: resolve, fetch, unpack; its retries and progress."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.content import Content
from fargate_agent.containerd.errors import ContainerdError, NotFoundError
from fargate_agent.containerd.types import Descriptor
from fargate_agent.drivers import PullProgress
from fargate_agent.egress.retry import GaveUpError, Tries
from fargate_agent.egress.transport import RefusedError
from fargate_agent.errors import CannotPullContainerError
from fargate_agent.image.admission import Ticket
from fargate_agent.image.content import (
    ImageKeeper,
    PlatformImage,
    ReadDocument,
    copy_error,
    fetch_layer,
    read_local,
    take_ref,
)
from fargate_agent.image.document import InvalidDocumentError
from fargate_agent.image.extraction import Turns
from fargate_agent.image.locks import KeyedLocks
from fargate_agent.image.manifest import PlatformError
from fargate_agent.image.reference import Reference
from fargate_agent.image.registry.protocol import Registry
from fargate_agent.image.unpack import Unpacker
from fargate_agent.parallel import together

MAX_TRANSFERS: Final = 3
"""Layers of one image that are fetched at once. Source: dockerd, `max-concurrent-downloads`."""


class Progress:
    """Tells of one pull whenever something has changed."""

    def __init__(self, image: str, tell: Callable[[PullProgress], None]) -> None:
        self._image = image
        self._tell = tell
        self._fetched: dict[str, int] = {}
        self._total_bytes = 0
        self._unpacked_layers = 0
        self._total_layers = 0
        self._retry = ""

    def fetched_bytes(self, digest: str) -> int:
        """Return how much of a layer is there; 0 for one that doesn't count."""
        return self._fetched.get(digest, 0)

    def note_retry(self, text: str) -> None:
        """Note which try is next and why; an empty text when it has succeeded."""
        self._retry = text
        self._report()

    def begin(self, missing: Iterable[Descriptor], total_layers: int) -> None:
        """Note what has to be fetched."""
        sizes = {layer.digest: layer.size for layer in missing}
        self._fetched = dict.fromkeys(sizes, 0)
        self._total_bytes = sum(sizes.values())
        self._total_layers = total_layers
        self._report()

    def note_fetched(self, digest: str, fetched_bytes: int) -> None:
        """Note how much of a layer is there; one that was there before doesn't count."""
        if digest in self._fetched:
            self._fetched[digest] = fetched_bytes
            self._report()

    def note_unpacked(self, layers: int) -> None:
        """Note how many layers are unpacked."""
        self._unpacked_layers = layers
        self._report()

    def end(self, layers: int) -> None:
        """Note that the image is there."""
        self._unpacked_layers = self._total_layers = layers
        self._retry = ""
        self._report(done=True)

    def _report(self, *, done: bool = False) -> None:
        self._tell(
            PullProgress(
                image=self._image,
                fetched_bytes=sum(self._fetched.values()),
                total_bytes=self._total_bytes,
                unpacked_layers=self._unpacked_layers,
                total_layers=self._total_layers,
                retry=self._retry,
                done=done,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """One image on its way to one task.

    The reasons count tries as those of Fargate do: "has been retried 1 time(s)" is one try.
    """

    reference: Reference
    architecture: str
    variants: tuple[str, ...]
    """Of the architecture: those that this machine runs, the best first."""
    containerd: Containerd
    """Under the lease of the task."""
    snapshotter: str
    tries: Tries
    locks: KeyedLocks
    turns: Turns
    progress: Progress
    ticket: Ticket
    """Whether the image may run, by the name that the task definition gives it."""

    async def resolve(self, registry: Registry) -> PlatformImage:
        """Return what the name stands for at the registry, all but the layers kept.

        Raises:
            CannotPullContainerError: that can't be found out.
        """
        try:
            return await self.tries.repeat(partial(self._resolve, registry))
        except GaveUpError as error:
            raise CannotPullContainerError(
                f"pull image manifest has been retried {error.tries} time(s): {error}"
            ) from error

    async def open_local(self, target: Descriptor) -> PlatformImage | None:
        """Return the image if all that is needed of it is there, and keep it; None otherwise.

        Raises:
            InvalidDocumentError: it is for another platform, or a document of it is wrong.
        """
        content = self.containerd.content
        try:
            image = await self._keeper(partial(read_local, content)).keep(target)
        except NotFoundError:
            return None
        if await self._unpacker(image).is_done() or not await _missing(content, image):
            return image
        return None

    async def get_layers(self, image: PlatformImage, registry: Registry) -> None:
        """Fetch the layers, several at once, and unpack each as soon as those below it are.

        Raises:
            CannotPullContainerError: one can't be fetched or unpacked.
        """
        layers = image.manifest.layers
        content = self.containerd.content
        missing = await _missing(content, image)
        if not missing and await self._unpacker(image).is_done():
            return
        self.progress.begin(missing, len(layers))
        arrived = [asyncio.Event() for _ in layers]
        # Waiters are let in in the order in which they came: the lowest layers first.
        transfers = asyncio.Semaphore(MAX_TRANSFERS)

        async def fetch(position: int, layer: Descriptor) -> None:
            async with transfers:
                await self._try(
                    partial(self._fetch, position, layer, registry, unpacker),
                    partial(self.progress.fetched_bytes, layer.digest),
                )
            await self._try(partial(unpacker.complete, position, layer))
            arrived[position].set()

        async with self._unpacker(image) as unpacker:
            await together(
                [
                    *(fetch(position, layer) for position, layer in enumerate(layers)),
                    self._unpack(image, unpacker, arrived),
                ]
            )

    async def is_unpacked(self, image: PlatformImage) -> bool:
        """Whether a container can be made of the image as it is."""
        return await self._unpacker(image).is_done()

    async def unpack_local(self, image: PlatformImage) -> None:
        """Unpack what is there, if that hasn't been done.

        Raises:
            CannotPullContainerError: a layer can't be unpacked.
        """
        if not await self._unpacker(image).is_done():
            layers = image.manifest.layers
            self.progress.begin((), len(layers))
            arrived = [asyncio.Event() for _ in layers]

            async def read(position: int, layer: Descriptor) -> None:
                await self._try(partial(unpacker.complete, position, layer))
                arrived[position].set()

            async with self._unpacker(image) as unpacker:
                await together(
                    [
                        *(read(position, layer) for position, layer in enumerate(layers)),
                        self._unpack(image, unpacker, arrived),
                    ]
                )

    async def _resolve(self, registry: Registry) -> PlatformImage:
        """Return the image. The registry's requests have had their own tries."""
        content = self.containerd.content

        async def read(descriptor: Descriptor) -> bytes:
            if descriptor.digest == resolved.target.digest and resolved.data is not None:
                return resolved.data
            try:
                return await read_local(content, descriptor)
            except NotFoundError:
                return await registry.read(descriptor)

        try:
            resolved = await registry.resolve()
            return await self._keeper(read).keep(resolved.target)
        except PlatformError as error:
            raise RefusedError(str(error)) from error
        except InvalidDocumentError as error:
            raise RefusedError(f"{self._unresolved}: {error}") from error
        except GaveUpError as error:
            raise error.within(self._unresolved) from error
        except ContainerdError as error:
            raise copy_error(error) from error

    async def _fetch(
        self, position: int, layer: Descriptor, registry: Registry, unpacker: Unpacker
    ) -> None:
        """Fetch a layer, or find that another task has; between two tries others may.

        Raises:
            TransferError, RefusedError, GaveUpError: as `fetch_layer` does.
        """
        content = self.containerd.content
        async with take_ref(layer, content, self.locks) as ref:
            await unpacker.begin(position, layer)
            note = partial(self.progress.note_fetched, layer.digest)
            await fetch_layer(layer, ref, registry, content, note, partial(unpacker.feed, position))

    async def _unpack(
        self, image: PlatformImage, unpacker: Unpacker, arrived: Sequence[asyncio.Event]
    ) -> None:
        for position, layer in enumerate(image.manifest.layers):
            await arrived[position].wait()
            await self._try(partial(unpacker.unpack, position, layer))
            self.progress.note_unpacked(position + 1)

    async def _try(
        self, call: Callable[[], Awaitable[None]], reached: Callable[[], int] = lambda: 0
    ) -> None:
        try:
            await self.tries.repeat(call, reached)
        except GaveUpError as error:
            raise CannotPullContainerError(
                f"ref pull has been retried {error.tries} time(s): {error}"
            ) from error

    @property
    def _unresolved(self) -> str:
        return f"failed to resolve ref {self.reference.name}"

    def _keeper(self, read: ReadDocument) -> ImageKeeper:
        return ImageKeeper(
            architecture=self.architecture,
            variants=self.variants,
            snapshotter=self.snapshotter,
            read=read,
            content=self.containerd.content,
        )

    def _unpacker(self, image: PlatformImage) -> Unpacker:
        diff_ids = image.config.diff_ids
        return Unpacker(self.containerd, self.snapshotter, diff_ids, self.locks, self.turns)


async def _missing(content: Content, image: PlatformImage) -> list[Descriptor]:
    missing = []
    for layer in image.manifest.layers:
        try:
            await content.info(layer.digest)
        except NotFoundError:
            missing.append(layer)
    return missing
