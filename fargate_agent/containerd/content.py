"""The content store: blobs by their digest.

A blob is written under a `ref`, which one writer holds at a time. What was written under a ref
stays until commit or abort, so a broken transfer goes on where it stopped. containerd verifies the
digest at commit. A blob that no lease, image record or `containerd.io/gc.ref.content.…` label names
is garbage: labels that keep other content alive have to be on the commit.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask

from fargate_agent.containerd.connection import CALL_DEADLINE_S, Connection
from fargate_agent.containerd.errors import (
    AlreadyExistsError,
    ContainerdError,
    NotFoundError,
    containerd_call,
)
from fargate_agent.containerd.pb import content_pb2
from fargate_agent.containerd.pb.content_pb2 import (
    AbortRequest,
    DeleteContentRequest,
    InfoRequest,
    ListContentRequest,
    ListStatusesRequest,
    ReadContentRequest,
    ReadContentResponse,
    StatusRequest,
    UpdateRequest,
    WriteContentRequest,
    WriteContentResponse,
)
from fargate_agent.containerd.pb.content_pb2_grpc import ContentStub

CHUNK_BYTES: Final = 1 << 20
"""The size at which containerd takes content fastest; measured from 32 KiB to 8 MiB."""

CHUNK_DEADLINE_S: Final = 60.0
"""A chunk is there in 5 ms; a disk that is being flushed stalls a write for tens of seconds."""

RELEASE_DEADLINE_S: Final = 5.0
"""containerd closes a file; one that it can't close it lets go of when the stream is cancelled."""

COMMIT_DEADLINE_S: Final = 300.0
"""Commit is an fsync of the blob: 40 ms per 64 MB here, minutes for a big layer on a slow disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentInfo:
    """A blob that is there."""

    digest: str
    size: int
    """Bytes."""
    labels: Mapping[str, str]


class ContentWriter:
    """Writes one blob; made by `Content.open_writer`."""

    def __init__(
        self,
        stream: "grpc.aio.StreamStreamCall[WriteContentRequest, WriteContentResponse]",
        ref: str,
        expected_digest: str,
        total_bytes: int,
    ) -> None:
        self.offset = 0
        """Bytes that containerd has; above 0 at the beginning if an earlier writer broke off."""
        self._stream = stream
        self._ref = ref
        self._digest = expected_digest
        self._total_bytes = total_bytes

    async def write(self, data: bytes) -> None:
        """Append bytes; any length, sent in chunks.

        Raises:
            ContainerdError: the disk is full, or the connection broke. What was written stays.
        """
        view = memoryview(data)
        for start in range(0, len(view), CHUNK_BYTES):
            whole = len(view) <= CHUNK_BYTES
            chunk = data if whole else bytes(view[start : start + CHUNK_BYTES])
            await self._exchange(
                WriteContentRequest(
                    action=content_pb2.WRITE, ref=self._ref, offset=self.offset, data=chunk
                ),
                CHUNK_DEADLINE_S,
            )

    async def commit(self, labels: Mapping[str, str]) -> None:
        """Make what was written a blob with these labels.

        Raises:
            FailedPreconditionError: it has another digest or size. What was written stays.
            AlreadyExistsError: somebody else committed the same blob meanwhile.
        """
        await self._exchange(
            WriteContentRequest(
                action=content_pb2.COMMIT,
                ref=self._ref,
                offset=self.offset,
                total=self._total_bytes,
                expected=self._digest,
                labels=labels,
            ),
            COMMIT_DEADLINE_S,
        )

    async def stat(self) -> None:
        """Open the ref, and learn how much of it is there.

        Raises:
            AlreadyExistsError: the blob is there already.
            UnavailableError: another writer holds the ref.
        """
        await self._exchange(
            WriteContentRequest(
                action=content_pb2.STAT,
                ref=self._ref,
                total=self._total_bytes,
                expected=self._digest,
            ),
            COMMIT_DEADLINE_S,  # containerd reads and hashes what is there
        )

    async def release(self) -> None:
        """Let containerd close its side, so that the ref is free when this returns."""
        with suppress(grpc.aio.AioRpcError, TimeoutError):
            async with asyncio.timeout(RELEASE_DEADLINE_S):
                if not self._stream.done():
                    await self._stream.done_writing()
                    while isinstance(await self._stream.read(), WriteContentResponse):
                        pass
        self._stream.cancel()

    async def _exchange(self, request: WriteContentRequest, deadline_s: float) -> None:
        """Send one message and read its answer before the next is sent.

        A message sent to a stream that has just failed would hide the reason: gRPC then says no
        more than "internal error". It costs no throughput where several blobs are written at once.
        """
        what = f"write content {self._digest}"
        with containerd_call(what):
            async with asyncio.timeout(deadline_s):
                await self._stream.write(request)
                answer = await self._stream.read()
        if not isinstance(answer, WriteContentResponse):
            raise ContainerdError(f"{what}: containerd ended the stream at {self.offset} bytes")
        self.offset = answer.offset


class Content:
    """The blobs of a namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = ContentStub(connection.channel)

    async def info(self, digest: str) -> ContentInfo:
        """Return what is known of a blob.

        Raises:
            NotFoundError: it isn't there.
        """
        answer = await self._connection.call(
            f"look up content {digest}", self._stub.Info, InfoRequest(digest=digest)
        )
        return _from_wire(answer.info)

    async def list(self) -> tuple[ContentInfo, ...]:
        """List the blobs of the namespace."""
        with containerd_call("list content"):
            answers = self._stub.List(
                ListContentRequest(),
                timeout=CALL_DEADLINE_S,
                metadata=self._connection.headers,
                wait_for_ready=True,
            )
            return tuple([_from_wire(info) async for answer in answers for info in answer.info])

    async def read(self, digest: str, max_bytes: int) -> bytes:
        """Read a whole blob into memory.

        Raises:
            NotFoundError: it isn't there.
            ContainerdError: it is larger than `max_bytes`.
        """
        what = f"read content {digest}"
        data = bytearray()
        with containerd_call(what):
            answers = self._stub.Read(
                ReadContentRequest(digest=digest),
                timeout=CALL_DEADLINE_S,
                metadata=self._connection.headers,
                wait_for_ready=True,
            )
            async for answer in answers:
                data += answer.data
                if len(data) > max_bytes:
                    answers.cancel()
                    raise ContainerdError(f"{what}: it is larger than {max_bytes} bytes")
        return bytes(data)

    async def read_pieces(self, digest: str) -> AsyncGenerator[bytes, None]:
        """Read a blob of any size, piece by piece, each of a megabyte or so.

        Raises:
            NotFoundError: it isn't there.
            ContainerdError: no piece has come for a while.
        """
        with containerd_call(f"read content {digest}"):
            answers = self._stub.Read(
                ReadContentRequest(digest=digest), metadata=self._connection.headers
            )
            try:
                while True:
                    async with asyncio.timeout(CHUNK_DEADLINE_S):
                        answer = await answers.read()
                    if not isinstance(answer, ReadContentResponse):
                        return
                    yield answer.data
            finally:
                answers.cancel()

    @asynccontextmanager
    async def open_writer(
        self, ref: str, expected_digest: str, total_bytes: int
    ) -> AsyncIterator[ContentWriter]:
        """Take the ref and write a blob under it; leaving without commit keeps what was written.

        Raises:
            AlreadyExistsError: the blob is there; the lease of this client now keeps it, too.
            UnavailableError: another writer holds the ref.

        Example:
            >>> async with content.open_writer(ref, digest, size) as writer:  # doctest: +SKIP
            ...     await writer.write(await fetch_from(writer.offset))
            ...     await writer.commit({})
        """
        stream = self._stub.Write(metadata=self._connection.headers, wait_for_ready=True)
        writer = ContentWriter(stream, ref, expected_digest, total_bytes)
        try:
            await writer.stat()
            yield writer
        finally:
            await writer.release()

    async def keep_unfinished(self, ref: str, expected_digest: str, total_bytes: int) -> None:
        """Keep what will be written under the ref for a day, even if the lease ends before.

        A ref that is opened without a lease has a day to be committed, then containerd removes it;
        opening it later with one adds a lease and leaves the day as it is.
        Source: containerd, metadata/content.go, `Writer`.

        Raises:
            UnavailableError: a writer holds the ref.
        """
        unleased = Content(replace(self._connection, lease=None))
        with suppress(AlreadyExistsError):
            async with unleased.open_writer(ref, expected_digest, total_bytes):
                pass

    async def unfinished_bytes(self, ref: str) -> int:
        """Return how much is written under a ref and not committed."""
        try:
            answer = await self._connection.call(
                f"look up write of {ref}", self._stub.Status, StatusRequest(ref=ref)
            )
        except NotFoundError:
            return 0
        return answer.status.offset

    async def list_unfinished(self) -> tuple[str, ...]:
        """List the refs under which something is written and not committed."""
        answer = await self._connection.call(
            "list writes", self._stub.ListStatuses, ListStatusesRequest()
        )
        return tuple(status.ref for status in answer.statuses)

    async def write_blob(self, ref: str, data: bytes, labels: Mapping[str, str]) -> str:
        """Return the digest of `data` when it is a blob with these labels; it may have been before.

        Raises:
            UnavailableError: another writer holds the ref.
        """
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        try:
            async with self.open_writer(ref, digest, len(data)) as writer:
                await writer.write(data[writer.offset :])
                await writer.commit(labels)
        except AlreadyExistsError:
            if labels:
                await self.set_labels(digest, labels)
        return digest

    async def abort(self, ref: str) -> None:
        """Throw away what was written under a ref and not committed."""
        try:
            await self._connection.call(
                f"abort write of {ref}", self._stub.Abort, AbortRequest(ref=ref)
            )
        except NotFoundError:
            return

    async def set_labels(self, digest: str, labels: Mapping[str, str]) -> None:
        """Set these labels and leave the others; an empty value removes the label.

        Raises:
            NotFoundError: the blob isn't there.
        """
        info = content_pb2.Info(digest=digest, labels=labels)
        mask = FieldMask(paths=[f"labels.{key}" for key in labels])
        await self._connection.call(
            f"label content {digest}", self._stub.Update, UpdateRequest(info=info, update_mask=mask)
        )

    async def delete(self, digest: str) -> None:
        """Return when the namespace has no such blob."""
        try:
            await self._connection.call(
                f"delete content {digest}", self._stub.Delete, DeleteContentRequest(digest=digest)
            )
        except NotFoundError:
            return


def _from_wire(info: content_pb2.Info) -> ContentInfo:
    return ContentInfo(digest=info.digest, size=info.size, labels=dict(info.labels))
