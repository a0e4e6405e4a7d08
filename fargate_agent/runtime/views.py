"""The layers of an image, as the lower part of root file systems.

containerd tells the directories of layers only for a snapshot that stands upon them. So each image
has a view, a snapshot that nobody writes to, made when a container first needs it.

It is kept by a label on the configuration of the image, so it goes with the image and the layers
with it. What keeps the layers of a container is a label on its record.
"""

from contextlib import suppress
from typing import Final

from fargate_agent.containerd.client import Containerd
from fargate_agent.containerd.errors import AlreadyExistsError, ContainerdError, NotFoundError
from fargate_agent.containerd.types import Mount

REFERENCE_LABEL: Final = "containerd.io/gc.ref.snapshot."
"""Before the name of a snapshotter: the object that has the label keeps the snapshot it names.

Source: containerd, docs/garbage-collection.md, "Garbage Collection labels".
"""

_TRIES: Final = 3
"""A view that is there may be collected before it is asked for its mounts."""


async def ensure_view(
    client: Containerd, snapshotter: str, chain_id: str, config_digest: str | None = None
) -> tuple[Mount, ...]:
    """Return how the file system of an image is mounted to be read.

    `client` has the lease of a task, which keeps the view if the image is removed meanwhile.
    Without a `config_digest` nothing else keeps it.

    Raises:
        NotFoundError: the image isn't unpacked any more.
        ContainerdError: containerd refused.
    """
    snapshots, key = client.snapshots(snapshotter), render_key(chain_id)
    for _ in range(_TRIES):
        with suppress(NotFoundError):
            return await snapshots.mounts(key)
        with suppress(AlreadyExistsError):
            mounts = await snapshots.view(key, chain_id, {})
            if config_digest is not None:
                await _keep(client, snapshotter, key, config_digest)
            return mounts
    raise ContainerdError(f"view of {chain_id}: it is made and collected again and again")


def render_key(chain_id: str) -> str:
    """Return the key of the view of an image."""
    return f"fargate-view {chain_id}"


async def _keep(client: Containerd, snapshotter: str, key: str, config_digest: str) -> None:
    with suppress(NotFoundError):  # the image has just been removed
        await client.content.set_labels(
            config_digest, {f"{REFERENCE_LABEL}{snapshotter}/view": key}
        )
