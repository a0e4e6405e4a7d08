"""How late an event loop does what is due: how long everything else has to wait."""

import asyncio
from typing import Final

from fargate_agent.measures.histogram import Histogram

LOOK_EVERY_S: Final = 1.0


async def watch_lag(histogram: Histogram) -> None:
    """Observe once in a second by how much a sleep of this loop is too long, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + LOOK_EVERY_S
        await asyncio.sleep(LOOK_EVERY_S)
        histogram.observe(max(0.0, loop.time() - due_s))
