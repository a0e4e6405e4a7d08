"""Trying again, a bounded number of times and with growing pauses."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from fargate_agent.backoff import Backoff
from fargate_agent.egress.transport import RefusedError, TransferError, UnreachableError

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often, and how long apart.

    Source: amazon-ecs-agent, agent/dockerclient/dockerapi/docker_client.go, the back-off of pulls.
    """

    attempts: int = 5
    unreachable_attempts: int = 5
    """Instead, where nobody answers at all."""
    longest_asked_pause_s: float = math.inf
    """The longest pause that is taken because a server asks for it."""
    backoff: Backoff = Backoff(first_s=1.1, longest_s=5.0)
    """Between the tries, unless the server asks for a longer pause."""

    @property
    def waits_shortly(self) -> bool:
        """Whether something else does where this fails: a copy, or another server."""
        return self.unreachable_attempts == 1

    def attempts_after(self, error: TransferError) -> int:
        """How often a request is sent that ends with such an error."""
        if isinstance(error, RefusedError):
            return 1
        if isinstance(error, UnreachableError):
            return min(self.attempts, self.unreachable_attempts)
        return self.attempts


class GaveUpError(Exception):
    """All tries failed, or one was refused. The text is that of the last."""

    def __init__(self, tries: int, text: str) -> None:
        super().__init__(text)
        self.tries = tries

    def within(self, what: str) -> "GaveUpError":
        """Return the same error with a text that begins with `what`."""
        return GaveUpError(self.tries, f"{what}: {self}")


def _tell_nobody(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """How requests that belong together are tried: each by itself, all within one deadline."""

    retry: Retry
    ends_at: float = math.inf
    """When the deadline of the whole is, in the loop's time. No pause is begun that ends later."""
    tell: Callable[[str], None] = _tell_nobody
    """Hears "try 2 of 5: …" before the pause, and an empty text when a later try succeeds."""

    async def repeat(
        self, call: Callable[[], Awaitable[Result]], reached: Callable[[], int] = lambda: 0
    ) -> Result:
        """Return what the first call that succeeds returns.

        A call that got further than any before, as `reached` says, doesn't use up the tries: it was
        interrupted, and the next goes on behind it.

        Raises:
            GaveUpError: none did, or the server asks for a pause that is too long.
        """
        tries, told, furthest = 0, False, reached()
        pauses_s = self.retry.backoff.pauses_s()
        while True:
            tries += 1
            try:
                result = await call()
            except TransferError as error:
                if (now := reached()) > furthest:
                    furthest, tries = now, 1
                    pauses_s = self.retry.backoff.pauses_s()
                pause_s = self._pause_s(tries, error, next(pauses_s))
            else:
                if told:
                    self.tell("")
                return result
            told = True
            await asyncio.sleep(pause_s)

    def _pause_s(self, tries: int, error: TransferError, pause_s: float) -> float:
        """Choose how long to wait, `pause_s` or as long as the server asks, and say so.

        Raises:
            GaveUpError: there is no further try.
        """
        attempts = self.retry.attempts_after(error)
        if tries >= attempts:
            raise GaveUpError(tries, str(error)) from error
        asked = ""
        if error.retry_after_s > pause_s:
            pause_s, seconds = error.retry_after_s, math.ceil(error.retry_after_s)
            ends_at = asyncio.get_running_loop().time() + pause_s
            if pause_s > self.retry.longest_asked_pause_s or ends_at > self.ends_at:
                raise GaveUpError(
                    tries, f"{error}; the server asks to wait {seconds} s, which is too long"
                ) from error
            asked = f" (in {seconds} s, as the server asks)"
        self.tell(f"try {tries + 1} of {attempts}: {error}{asked}")
        return pause_s
