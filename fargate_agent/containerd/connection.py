"""One channel to containerd, the headers of its calls, and how long an answer may take.

The channel connects and reconnects by itself. A call made while containerd is away waits for it as
long as its deadline allows, so a restart of containerd is not noticed; a call that was under way
when it went fails with `UnavailableError`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import grpc.aio

from fargate_agent.containerd.errors import containerd_call

CALL_DEADLINE_S: Final = 30.0
"""For calls that read or write containerd's metadata: 1 ms as a rule, but each write is an fsync,
and a disk that others keep busy takes seconds for it."""

GARBAGE_DEADLINE_S: Final = 120.0
"""For deletions that wait for the garbage collector, which removes whole snapshots."""

MAX_MESSAGE_BYTES: Final = 16 << 20
"""Largest message in either direction.

Source: containerd, defaults/defaults.go, `DefaultMaxRecvMsgSize`.
"""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # containerd is back within a second of its restart, and a unix socket costs nothing to try
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # the address is a file: a proxy of the environment is not meant for it
    ("grpc.enable_http_proxy", 0),
    # without an authority of our own gRPC sends the socket's path, which the server refuses
    ("grpc.default_authority", "localhost"),
)

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class Connection:
    """A channel, and for whom the calls on it are."""

    channel: grpc.aio.Channel
    namespace: str
    lease: str | None

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Say for which namespace, and on behalf of which lease, a call is.

        Source: containerd, namespaces/grpc.go and leases/grpc.go, `GRPCHeader`.
        """
        of_lease = (("containerd-lease", self.lease),) if self.lease else ()
        return (("containerd-namespace", self.namespace), *of_lease)

    async def call(
        self,
        what: str,
        method: "grpc.aio.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        deadline_s: float | None = CALL_DEADLINE_S,
    ) -> Response:
        """Call a method that takes one message and answers with one.

        Raises:
            ContainerdError: it did not succeed; `what` is how the error's text begins.
        """
        with containerd_call(what):
            return await method(
                request, timeout=deadline_s, metadata=self.headers, wait_for_ready=True
            )


def open_channel(address: Path) -> grpc.aio.Channel:
    """Return a channel to the socket; it connects when it is first used."""
    return grpc.aio.insecure_channel(f"unix:{address}", options=_OPTIONS)
