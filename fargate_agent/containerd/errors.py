"""The few ways containerd says no, and the one place where gRPC status codes are read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import grpc.aio


class ContainerdError(Exception):
    """containerd refused a call. Stays inside the drivers; see `fargate_agent.errors`."""


class NotFoundError(ContainerdError):
    """The object does not exist; `release` and `stop` take it for success."""


class AlreadyExistsError(ContainerdError):
    """The object exists; `ensure` and `start` take it for success."""


class FailedPreconditionError(ContainerdError):
    """The object is not in the state that the call needs, or content has another digest."""


class UnavailableError(ContainerdError):
    """containerd went away during the call, or something it needs is in use; may be repeated."""


class DeadlineError(ContainerdError):
    """No answer in time. containerd may still be at it: what was asked for may yet happen."""


_KINDS: Final[Mapping[grpc.StatusCode, type[ContainerdError]]] = {
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
}


@contextmanager
def containerd_call(what: str) -> Iterator[None]:
    """Raise the `ContainerdError` that stands for whatever gRPC error the body meets.

    Example:
        >>> with containerd_call("start process web"):  # doctest: +SKIP
        ...     await self._stub.Start(StartRequest(container_id="web"))
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        kind = _KINDS.get(error.code(), ContainerdError)
        detail = "no answer in time" if kind is DeadlineError else error.details()
        raise kind(f"{what}: {detail}") from error
    except TimeoutError as error:
        raise DeadlineError(f"{what}: no answer in time") from error
