"""From what the kernel answered to what the owner of the task reads."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from fargate_agent.errors import ResourceInitializationError
from fargate_agent.network.blocking import NetlinkError


class SubnetInUseError(Exception):
    """The host itself has an address in the subnet; a bridge would cut it off from there."""


@contextmanager
def kernel_refusals(what: str) -> Iterator[None]:
    """Raise the task error that stands for whatever refusal of the kernel the body meets.

    Raises:
        ResourceInitializationError: naming `what`, and what the kernel said.
    """
    try:
        yield
    except (NetlinkError, SubnetInUseError) as error:
        raise ResourceInitializationError(f"{what}: {error}") from error
    except OSError as error:  # its own text may hold a path
        said = os.strerror(error.errno or errno.EIO)
        raise ResourceInitializationError(f"{what}: {said}") from error
