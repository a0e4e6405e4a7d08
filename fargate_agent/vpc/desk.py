"""Where one task asks for names and the time: its own sockets, bound to its `eth0`.

Who asks is decided by the socket, as at the metadata endpoint.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from fargate_agent.kernel_clock import Clock
from fargate_agent.vpc.datagrams import Datagram, prepare, read_datagrams, send_answer
from fargate_agent.vpc.ntp import answer_ntp
from fargate_agent.vpc.pace import Pace
from fargate_agent.vpc.resolver import Resolver
from fargate_agent.vpc.shares import Shares
from fargate_agent.vpc.zones import Asker

DNS_PORT: Final = 53
NTP_PORT: Final = 123
TCP_IDLE_S: Final = 10.0
"""For a query to come, and for its answer to be taken. Source: RFC 7766, 6.2.3."""
MAX_CONNECTIONS: Final = 16
"""Of one task."""
ANY: Final = "0.0.0.0"  # noqa: S104 - in a namespace that only the task reaches, by one interface

OpenSocket = Callable[[socket.SocketKind, tuple[str, int]], socket.socket]
"""Opens a socket that one task reaches, bound to an address."""
Take = Callable[[socket.socket, Datagram], None]
"""Does what one datagram asks, or begins to."""


@dataclass(slots=True, kw_only=True)
class TaskDesk:
    """Answers one task until it is closed."""

    asker: Asker
    resolver: Resolver
    shares: Shares
    read_clock: Callable[[], Clock | None]
    _pace: Pace = field(default_factory=Pace)
    _jobs: set["asyncio.Task[None]"] = field(default_factory=set)
    _open: ExitStack = field(default_factory=ExitStack)
    _connections: int = 0

    async def open(self, open_socket: OpenSocket) -> None:
        """Begin to answer.

        Raises:
            OSError: the kernel refused; nothing is open then.
        """
        try:
            for port, take in ((DNS_PORT, self._take_query), (NTP_PORT, self._take_request)):
                self._listen(open_socket(socket.SOCK_DGRAM, (ANY, port)), take)
            listener = open_socket(socket.SOCK_STREAM, (ANY, DNS_PORT))
            server = await asyncio.start_server(self._serve, sock=listener)
            self._open.callback(server.close)
        except BaseException:
            self._open.close()
            raise

    async def close(self) -> None:
        """Answer nothing any more, and hold nothing."""
        self._open.close()
        for job in list(self._jobs):
            job.cancel()
        await asyncio.sleep(0)

    def _listen(self, bound: socket.socket, take: Take) -> None:
        self._open.enter_context(bound)
        prepare(bound)
        loop = asyncio.get_running_loop()
        loop.add_reader(bound, self._read, bound, take)
        self._open.callback(loop.remove_reader, bound)

    def _read(self, bound: socket.socket, take: Take) -> None:
        for one in read_datagrams(bound, self._pace.left()):
            self._pace.take()
            take(bound, one)
        if self._pace.left() <= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(bound)
            loop.call_later(self._pace.pause_s(), self._read_on, bound, take)

    def _read_on(self, bound: socket.socket, take: Take) -> None:
        if bound.fileno() >= 0:
            asyncio.get_running_loop().add_reader(bound, self._read, bound, take)

    def _take_request(self, bound: socket.socket, asked: Datagram) -> None:
        reply = answer_ntp(asked.payload, self.read_clock(), asked.received_ns)
        if reply is not None:
            send_answer(bound, asked, reply)

    def _take_query(self, bound: socket.socket, asked: Datagram) -> None:
        """Answer in a task of its own; without a share it is dropped, and the client asks again."""
        task_id = self.asker.task_id
        if self.shares.take(task_id):
            job = asyncio.create_task(self._answer(bound, asked))
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)
            # Not by the job itself, which may be cancelled before it begins.
            job.add_done_callback(lambda _: self.shares.give_back(task_id))

    async def _answer(self, bound: socket.socket, asked: Datagram) -> None:
        reply = await self.resolver.answer(asked.payload, self.asker)
        if reply is not None and bound.fileno() >= 0:
            send_answer(bound, asked, reply)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the queries of one connection, one by one."""
        job = asyncio.current_task()
        if job is not None:
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)
        self._connections += 1
        try:
            if self._connections <= MAX_CONNECTIONS:
                await self._answer_stream(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # it is closed either way
        finally:
            self._connections -= 1
            writer.transport.abort() if self._is_stuck(writer) else writer.close()

    @staticmethod
    def _is_stuck(writer: asyncio.StreamWriter) -> bool:
        """Whether the client leaves what was sent to it."""
        return writer.transport.get_write_buffer_size() > 0

    async def _answer_stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            async with asyncio.timeout(TCP_IDLE_S):
                query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            while self._pace.left() <= 0:  # noqa: ASYNC110 - time passes without an Event
                await asyncio.sleep(self._pace.pause_s())
            self._pace.take()
            if not self.shares.take(self.asker.task_id):
                return
            try:
                reply = await self.resolver.answer(query, self.asker, by_tcp=True)
            finally:
                self.shares.give_back(self.asker.task_id)
            if reply is None:
                return
            writer.write(len(reply).to_bytes(2) + reply)
            async with asyncio.timeout(TCP_IDLE_S):
                await writer.drain()
