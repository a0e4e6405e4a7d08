"""Images, and who gets them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from fargate_agent.drivers.lifecycle import Driver
from fargate_agent.plan import TaskPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image says about running it. Source: OCI image specification, config.md."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    """Each `NAME=value`."""
    user: str = ""
    working_directory: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    """Paths that the image declares to be volumes (`VOLUME`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that is there and unpacked."""

    name: str
    """Full reference, as containerd's image store names it."""
    digest: str
    """Of the manifest that was chosen for the platform, `sha256:…`."""
    config_digest: str
    """What Docker calls the image id."""
    chain_id: str
    """Name of the snapshot that holds the root file system."""
    config: ImageConfig
    source: str | None = None
    """The reference that it was pulled by, where a mirror stands for its registry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullProgress:
    """How far one pull is."""

    image: str
    fetched_bytes: int
    total_bytes: int
    """Compressed size of what had to be fetched; 0 until the manifest is known."""
    unpacked_layers: int
    total_layers: int
    retry: str = ""
    """What is being tried again: "try 2 of 5: …"; empty if nothing is."""
    done: bool = False


FindLogin = Callable[[], Awaitable[tuple[str, str] | None]]
"""Returns the user and password that a task definition has for a registry; None if it has none.
Raises `ResourceInitializationError`."""


async def no_login() -> None:
    """Find none."""


class ImageStore(Driver, Protocol):
    """Gets images, through a task's own network."""

    failed_pull_ends_task: bool = False
    """Whether a failed pull ends the task, even if the container isn't essential."""

    async def ensure(
        self,
        reference: str,
        task: TaskPlan,
        progress: Callable[[PullProgress], None],
        network: asyncio.Event,
        find_login: FindLogin = no_login,
    ) -> Image:
        """Return when the image is there, unpacked, and kept from the garbage collector.

        `network` is set when the task's network can be used; nothing is sent before, and
        `find_login` is not called.

        Raises:
            CannotPullContainerError: it could not be resolved, fetched or unpacked.
            ResourceInitializationError: there is no password to be had for its registry.
        """
        ...

    def forget(self, image: Image) -> None:
        """Take it that an image isn't there any more, until it was looked for."""
        ...
