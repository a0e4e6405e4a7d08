"""One connection of a task to its metadata endpoint.

Nearly all that programs send is a whole GET in one packet. Such a request is answered here, for a
fraction of what it takes `aiohttp` to. Whatever else comes is handed to `aiohttp`, together with
the connection: bodies, other methods, requests in pieces or several at once, and nonsense.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Final, Protocol

from fargate_agent.tmds.answers import Answer
from fargate_agent.tmds.handlers import Question, TaskAnswers

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES: Final = 8190
"""As `aiohttp` takes a line. What is longer goes there, and is refused."""

_GET: Final = re.compile(
    rb"GET (?P<path>/[!->@-~]{0,1024})(?:\?(?P<query>[!-~]{0,1024}))? HTTP/1\.1\r\n"
    rb"(?:(?!content-length|transfer-encoding|expect|upgrade|connection:(?! *keep-alive\r))"
    rb"[a-z0-9-]+:[ -~]*\r\n)*\r\n",
    re.IGNORECASE,
)
_FORWARDED_FOR: Final = re.compile(rb"\r\nx-forwarded-for: *([!-~]*)", re.IGNORECASE)
_ELSEWHERE: Final = ("/v1/credentials", "/v2/credentials")
"""What needs the whole request."""


class Server(Protocol):
    """Makes protocols that answer any request; `aiohttp.web.Server` is one."""

    def __call__(self) -> asyncio.Protocol:
        """Return one for a new connection."""
        ...


class Connection(asyncio.Protocol):
    """Answers simple requests of one task."""

    def __init__(
        self,
        answers: TaskAnswers,
        server: Server,
        is_welcome: Callable[["Connection", str], bool],
        is_gone: Callable[["Connection"], None],
        timeout_s: float,
    ) -> None:
        """`is_welcome` is asked with the client's address.

        `is_gone` is told when the connection has ended, or is `aiohttp`'s.
        """
        self._answers = answers
        self._server = server
        self._is_welcome = is_welcome
        self._is_gone = is_gone
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._job: asyncio.Task[None] | None = None
        self._active_at_s = 0.0
        self._remote = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            return
        address, port = transport.get_extra_info("peername")
        if not self._is_welcome(self, address):
            transport.abort()
            return
        self._remote = f"{address}:{port}"
        self._transport = transport
        self._active_at_s = self._loop.time()
        self._timer = self._loop.call_later(self._timeout_s, self._look_at_time)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        if self._job is not None:
            self._job.cancel()

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        request = None if len(data) > MAX_REQUEST_BYTES else _GET.fullmatch(data)
        if request is None:
            self._hand_over(transport, data)
            return
        path = request["path"].decode("ascii")
        if path.startswith(_ELSEWHERE):
            self._hand_over(transport, data)
            return
        self._active_at_s = self._loop.time()
        question = Question(method="GET", path=path, remote=self._remote)
        refused = self._answers.refuse_too_many(question)
        if refused is not None:
            said = _FORWARDED_FOR.search(data)
            name = "X-Rate-Limit-Request-Forwarded-For"
            forwarded = {**refused.headers, name: said[1].decode("ascii") if said else ""}
            transport.write(_with(refused, forwarded).render())
            return
        wire = self._answers.answer_at_once(path)
        if wire is not None:
            transport.write(wire)
            return
        query = (request["query"] or b"").decode("ascii")
        transport.pause_reading()
        self._job = self._loop.create_task(self._answer(transport, path, query))

    def pause_writing(self) -> None:
        """Read no more of who takes no answers; the time is over soon."""
        if self._transport is not None and self._job is None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and self._job is None:
            self._transport.resume_reading()

    def abort(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    async def _answer(self, transport: asyncio.Transport, path: str, query: str) -> None:
        question = Question(method="GET", path=path, query=query, remote=self._remote)
        try:
            answer = await self._answers.answer(question)
        except Exception:
            log.exception("GET %s", path)
            self.abort()
            return
        finally:
            self._job = None
        if isinstance(answer, Answer) and not transport.is_closing():
            self._active_at_s = self._loop.time()
            transport.write(answer.render())
            transport.resume_reading()

    def _hand_over(self, transport: asyncio.Transport, data: bytes) -> None:
        self._leave()
        handler = self._server()
        transport.set_protocol(handler)
        handler.connection_made(transport)
        handler.data_received(data)

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._transport = self._timer = None
        self._is_gone(self)

    def _look_at_time(self) -> None:
        """End a connection that was idle for too long, or takes no answers."""
        if self._transport is None:
            return
        left_s = self._active_at_s + self._timeout_s - self._loop.time()
        if left_s <= 0 and self._job is None:
            self._transport.abort()
            return
        self._timer = self._loop.call_later(max(left_s, 0.1), self._look_at_time)


def _with(answer: Answer, headers: dict[str, str]) -> Answer:
    return Answer(
        status=answer.status, body=answer.body, content_type=answer.content_type, headers=headers
    )
