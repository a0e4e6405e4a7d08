"""Calls to a service, tried a bounded number of times, in the words in which Fargate counts them.

"has been retried 1 time(s)" is one try. Source: ECS developer guide, stopped task error messages.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from fargate_agent.aws.errors import AwsError, RoleError
from fargate_agent.egress.retry import Retry
from fargate_agent.egress.transport import RefusedError, TransferError

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSettings:
    """How long a task waits for its secrets, and for its environment files."""

    retry: Retry = field(default_factory=Retry)
    inactivity_s: float = 15
    """How long a service may send nothing."""
    deadline_s: float = 120
    """For all of a task."""


class FetchError(Exception):
    """A value is not to be had. Never leaves this package; the text holds no secret."""


async def repeat(
    ask: Callable[[], Awaitable[Result]], retry: Retry, what: str, failed: str = ""
) -> Result:
    """Return what the first try that succeeds returns.

    Raises:
        FetchError: none did, or one was refused; the text begins with `what`, and has `failed`
            before what the service said.
    """
    tries, pauses_s = 0, retry.backoff.pauses_s()
    while True:
        tries += 1
        try:
            return await ask()
        except (AwsError, RoleError, TransferError) as error:
            if not _may_pass(error) or tries >= retry.attempts:
                counted = f"service call has been retried {tries} time(s)"
                raise FetchError(f"{what}: {counted}: {failed}{_explain(error)}") from error
            log.info("secrets: try %d of %d failed: %s", tries, retry.attempts, error)
        await asyncio.sleep(next(pauses_s))


def _may_pass(error: AwsError | RoleError | TransferError) -> bool:
    if isinstance(error, TransferError):
        return not isinstance(error, RefusedError)
    return error.may_pass


def _explain(error: AwsError | RoleError | TransferError) -> str:
    if isinstance(error, TransferError) and _may_pass(error):
        return (
            f"RequestError: send request failed caused by: {error}. "
            "Please check your task network configuration."
        )
    return str(error)
