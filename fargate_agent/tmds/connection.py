"""One connection of a task to its metadata endpoint.

Nearly all that programs send is a whole GET in one packet. Such a request is answered here, for a
fraction of what it takes `aiohttp` to. Whatever else comes goes to `aiohttp`, as does all that
follows on that connection: bodies, other methods, requests in pieces or several at once, nonsense.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from fargate_agent.tmds.answers import Answer
from fargate_agent.tmds.handlers import Question, TaskAnswers

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES: Final = 8190
"""As `aiohttp` takes a line. What is longer goes there, and is refused."""

_GET: Final = re.compile(
    rb"GET (?P<path>/[!->@-~]{0,1024})(?:\?(?P<query>[!-~]{0,1024}))? HTTP/1\.1\r\n"
    rb"(?:(?!content-length|transfer-encoding|expect|upgrade"
    rb"|connection:(?! *(?:keep-alive|close)\r))"
    rb"[a-z0-9-]+:[ -~]*\r\n)*\r\n",
    re.IGNORECASE,
)
_HOST: Final = re.compile(rb"\r\nhost:", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection: *close\r", re.IGNORECASE)
_FORWARDED_FOR: Final = re.compile(rb"\r\nx-forwarded-for: *([!-~]*)", re.IGNORECASE)
_ELSEWHERE: Final = ("/v1/credentials", "/v2/credentials")
"""What needs the whole request."""


class Connection(asyncio.Protocol):
    """Answers the requests of one connection, and ends it when its time is over.

    A client has a while for its next request, and to take an answer. Source: amazon-ecs-agent,
    agent/handlers/task_server_setup.go, `readTimeout` and `writeTimeout`.
    """

    def __init__(
        self,
        answers: TaskAnswers,
        server: Callable[[], asyncio.Protocol],
        is_welcome: Callable[["Connection", str], bool],
        is_gone: Callable[["Connection"], None],
        timeout_s: float,
    ) -> None:
        """`server` is that of `aiohttp`; `is_welcome` is asked with the client's address."""
        self._answers = answers
        self._server = server
        self._is_welcome = is_welcome
        self._is_gone = is_gone
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._handler: asyncio.Protocol | None = None
        """`aiohttp`'s, once something came that is for it. It ends idle connections itself."""
        self._timer: asyncio.TimerHandle | None = None
        self._job: asyncio.Task[None] | None = None
        self._active_at_s = 0.0
        self._remote = ""
        self._has_ended = False
        """Whether the client has sent all that it will."""

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
        self._stop_timer()
        self._is_gone(self)
        if self._transport is not None and self._handler is not None:
            self._handler.connection_lost(exc)
        self._transport = None
        if self._job is not None:
            self._job.cancel()

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        if self._handler is not None:
            self._handler.data_received(data)
            return
        request = None
        if len(data) <= MAX_REQUEST_BYTES and _HOST.search(data):
            request = _GET.fullmatch(data)
        path = "" if request is None else request["path"].decode("ascii")
        if request is None or path.startswith(_ELSEWHERE):
            self._hand_over(transport, data)
            return
        self._active_at_s = self._loop.time()
        question = Question(method="GET", path=path, remote=self._remote)
        wire = self._refuse_too_many(question, data) or self._answers.answer_at_once(path)
        self._has_ended = _CLOSE.search(data) is not None
        if wire is not None:
            self._send(transport, wire)
            return
        query = (request["query"] or b"").decode("ascii")
        transport.pause_reading()
        self._job = self._loop.create_task(self._answer(transport, replace(question, query=query)))

    def eof_received(self) -> bool | None:
        if self._handler is not None:
            return self._handler.eof_received()
        self._has_ended = True
        return self._job is not None  # so that it can still be answered

    def pause_writing(self) -> None:
        """Read no more of who takes no answers, and end it soon."""
        if self._handler is not None:
            self._handler.pause_writing()
        elif self._transport is not None:
            self._transport.pause_reading()
        self._stop_timer()
        self._timer = self._loop.call_later(self._timeout_s, self.abort)

    def resume_writing(self) -> None:
        self._stop_timer()
        if self._handler is not None:
            self._handler.resume_writing()
            return
        self._active_at_s = self._loop.time()
        self._timer = self._loop.call_later(self._timeout_s, self._look_at_time)
        if self._transport is not None and self._job is None:
            self._transport.resume_reading()

    def abort(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _refuse_too_many(self, question: Question, data: bytes) -> bytes | None:
        refused = self._answers.refuse_too_many(question)
        if refused is None:
            return None
        if said := _FORWARDED_FOR.search(data):
            name = "X-Rate-Limit-Request-Forwarded-For"
            refused = replace(refused, headers={**refused.headers, name: said[1].decode("ascii")})
        return refused.render()

    async def _answer(self, transport: asyncio.Transport, question: Question) -> None:
        try:
            answer = await self._answers.answer(question)
        except Exception:
            log.exception("GET %s", question.path)
            self.abort()
            return
        finally:
            self._job = None
        if isinstance(answer, Answer) and not transport.is_closing():
            self._active_at_s = self._loop.time()
            transport.resume_reading()
            self._send(transport, answer.render())

    def _send(self, transport: asyncio.Transport, wire: bytes) -> None:
        transport.write(wire)
        if self._has_ended:
            transport.close()

    def _hand_over(self, transport: asyncio.Transport, data: bytes) -> None:
        self._stop_timer()
        self._handler = self._server()
        self._handler.connection_made(transport)
        self._handler.data_received(data)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at_time(self) -> None:
        """End a connection that was idle for too long."""
        left_s = self._active_at_s + self._timeout_s - self._loop.time()
        if left_s <= 0 and self._job is None:
            self.abort()
            return
        self._timer = self._loop.call_later(max(left_s, 0.1), self._look_at_time)
