"""`GET /metrics` on a port of its own, without any key: for loopback, or a network one trusts."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from fargate_agent.bad_requests import leave_out_bad_requests
from fargate_agent.measures.exposition import CONTENT_TYPE

log = logging.getLogger(__name__)
leave_out_bad_requests(log)

ANSWER_TIMEOUT_S: Final = 10
"""Prometheus itself gives up after as long. Source: Prometheus, `scrape_timeout`."""

Render = Callable[[], Awaitable[bytes]]
"""Returns the text of all metrics."""


async def answer(render: Render) -> web.Response:
    """Return the metrics as an answer; 503 if that takes too long."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return web.Response(body=await render(), headers={"Content-Type": CONTENT_TYPE})
    except TimeoutError:
        return web.Response(status=503, text=f"no metrics after {ANSWER_TIMEOUT_S} s\n")


@asynccontextmanager
async def listening(listen: str, render: Render) -> AsyncIterator[int]:
    """Answer while the body runs; yield the port.

    Raises:
        OSError: the address can't be listened at.
    """

    async def metrics(_: web.Request) -> web.Response:
        return await answer(render)

    app = web.Application(client_max_size=0)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None, logger=log, shutdown_timeout=1)
    await runner.setup()
    try:
        parts = urlsplit(listen)
        site = web.TCPSite(runner, parts.hostname, parts.port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
