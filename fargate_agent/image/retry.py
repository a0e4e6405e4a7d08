"""Trying again, a bounded number of times and with growing pauses."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from fargate_agent.image.transport import RefusedError, TransferError

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often, and how long apart.

    Source: amazon-ecs-agent, agent/dockerclient/dockerapi/docker_client.go, the back-off of pulls.
    """

    attempts: int = 5
    first_pause_s: float = 1.1
    longest_pause_s: float = 5.0
    factor: float = 2.0
    jitter: float = 0.2
    """Each pause is up to this part of itself longer, so that many tasks don't come at once."""

    def pause_s(self, tries: int) -> float:
        """How long to wait after so many tries."""
        pause_s = min(self.first_pause_s * self.factor ** (tries - 1), self.longest_pause_s)
        return pause_s * (1 + random.uniform(0, self.jitter))  # noqa: S311 - no secret


class GaveUpError(Exception):
    """All tries failed, or one was refused. The text is that of the last."""

    def __init__(self, tries: int, error: TransferError) -> None:
        super().__init__(str(error))
        self.tries = tries


async def try_repeatedly(retry: Retry, call: Callable[[], Awaitable[Result]]) -> Result:
    """Return what the first call that succeeds returns.

    Raises:
        GaveUpError: none did.
    """
    tries = 0
    while True:
        tries += 1
        try:
            return await call()
        except TransferError as error:
            if isinstance(error, RefusedError) or tries >= retry.attempts:
                raise GaveUpError(tries, error) from error
            log.info("pull: try %d of %d failed: %s", tries, retry.attempts, error)
        await asyncio.sleep(retry.pause_s(tries))
