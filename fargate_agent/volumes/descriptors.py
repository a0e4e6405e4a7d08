"""Calls in threads on open files: a thread that nobody waits for any more has files of its own."""

import os
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TypeVar

from fargate_agent.threads import in_thread

T = TypeVar("T")


async def in_thread_with_files(
    function: Callable[..., T], files: Sequence[int], *arguments: object
) -> T:
    """Call a blocking function with copies of descriptors, as `in_thread` does.

    The caller may close its own when this is cancelled: a call that was given up doesn't find
    another file at their numbers.

    Raises:
        OSError: this process has too many open files, or the function raised it.
    """
    copies = [os.dup(file) for file in files]

    @wraps(function)
    def call() -> T:
        try:
            return function(*copies, *arguments)
        finally:
            for copy in copies:
                os.close(copy)

    return await in_thread(call)
