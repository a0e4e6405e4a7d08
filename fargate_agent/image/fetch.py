"""Blobs, from a registry into containerd's content store.

What was written under a ref stays there when a transfer breaks off, or the task or the agent ends:
the next fetch of the blob, for whichever task, goes on behind it. containerd hashes: a blob with
another digest is never committed.
"""

from contextlib import suppress
from typing import Final

from fargate_agent.containerd.content import Content, ContentWriter
from fargate_agent.containerd.errors import (
    AlreadyExistsError,
    ContainerdError,
    FailedPreconditionError,
)
from fargate_agent.containerd.host_paths import hide_host_paths
from fargate_agent.containerd.types import Descriptor
from fargate_agent.egress.retry import GaveUpError
from fargate_agent.egress.session import READ_BUFFER_BYTES
from fargate_agent.egress.transport import RefusedError, TransferError
from fargate_agent.image.progress import Progress
from fargate_agent.image.registry import RangeError, Registry
from fargate_agent.image.turns import Turns

_LAYER: Final = "layer-"

NO_SPACE: Final = "no space left on device"
"""Source: Linux, the text of ENOSPC, which containerd passes on."""


async def fetch_layer(
    layer: Descriptor, registry: Registry, content: Content, progress: Progress
) -> None:
    """Return when the blob is in the content store and the lease of `content` keeps it.

    Raises:
        TransferError: the registry or containerd broke off. What was written stays.
        RefusedError: the registry doesn't have it, or the disk is full.
        GaveUpError: the registry's token service could not be asked.
    """
    ref = render_ref(layer.digest)
    try:
        await _fetch(ref, layer, registry, content, progress)
    except AlreadyExistsError:
        progress.note_fetched(layer.digest, layer.size)
    except (TransferError, GaveUpError) as error:
        raise error.within("failed to copy") from error
    except _SpoiltError as error:
        await content.abort(ref)
        raise TransferError(str(error)) from error
    except ContainerdError as error:
        if NO_SPACE in str(error):
            with suppress(ContainerdError):
                await content.abort(ref)  # the room is worth more than what is in it
        raise copy_error(error) from error


def render_ref(digest: str) -> str:
    """Name the unfinished blob as containerd's own client does."""
    return f"{_LAYER}{digest}"


async def drop_unfinished(content: Content, turns: Turns) -> None:
    """Throw away what came of layers that nobody fetches at the moment."""
    for ref in await content.list_unfinished():
        turn = turns.lock(ref.removeprefix(_LAYER))
        if ref.startswith(_LAYER) and not turn.locked():
            async with turn:
                await content.abort(ref)


def copy_error(error: ContainerdError) -> TransferError:
    """Say what containerd answered, without paths of this machine."""
    if NO_SPACE in str(error):
        return RefusedError(f"failed to copy: {NO_SPACE}")
    return TransferError(f"failed to copy: {hide_host_paths(str(error))}")


class _SpoiltError(Exception):
    """What was written is not the blob, so it is no use to go on behind it."""


async def _fetch(
    ref: str, layer: Descriptor, registry: Registry, content: Content, progress: Progress
) -> None:
    if layer.size > READ_BUFFER_BYTES and not await content.unfinished_bytes(ref):
        await content.keep_unfinished(ref, layer.digest, layer.size)
    async with content.open_writer(ref, layer.digest, layer.size) as writer:
        try:
            await _copy(layer, registry, writer, progress)
        except RangeError as error:
            raise _SpoiltError(f"failed to copy: {error}") from error
        await _commit(ref, layer, writer)


async def _copy(
    layer: Descriptor, registry: Registry, writer: ContentWriter, progress: Progress
) -> None:
    progress.note_fetched(layer.digest, writer.offset)
    if writer.offset < layer.size:
        async with registry.open_blob(layer, writer.offset) as pieces:
            async for piece in pieces:
                if writer.offset + len(piece) > layer.size:
                    raise _SpoiltError("failed to copy: the registry sent too many bytes")
                await writer.write(piece)
                progress.note_fetched(layer.digest, writer.offset)
    if writer.offset > layer.size:
        raise _SpoiltError("failed to copy: the content store had too many bytes")
    if writer.offset < layer.size:
        raise TransferError("unexpected EOF")


async def _commit(ref: str, layer: Descriptor, writer: ContentWriter) -> None:
    try:
        await writer.commit({})
    except FailedPreconditionError as error:
        raise _SpoiltError(
            f'failed commit on ref "{ref}": unexpected commit digest, expected {layer.digest}: '
            "failed precondition"
        ) from error
