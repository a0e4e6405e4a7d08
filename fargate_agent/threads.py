"""Blocking calls in threads, whose end a cancellation waits for."""

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Final, ParamSpec, TypeVar

GIVEN_UP_AFTER_S: Final = 75.0
"""More than any call takes that ends: mkfs has a minute."""

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function in a thread; a cancellation first waits for its end.

    So what undoes the call doesn't overtake it. A call that hangs in the kernel, such as one that
    waits for a disk that is gone, is given up `GIVEN_UP_AFTER_S` after the cancellation.
    """
    loop = asyncio.get_running_loop()
    context = copy_context()  # which the log reads
    job = loop.run_in_executor(None, partial(context.run, function, *args, **kwargs))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        if (await asyncio.wait([job], timeout=GIVEN_UP_AFTER_S))[1]:
            name = getattr(function, "__qualname__", repr(function))
            log.error("%s was cancelled and hangs: nobody waits for it any more", name)
        raise
