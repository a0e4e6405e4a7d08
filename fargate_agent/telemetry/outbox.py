"""Frames on their way to the control plane: a few, then the oldest are dropped and counted."""

import asyncio
import logging
from collections import deque
from typing import Final

from fargate_agent.wire.messages import Frame

log = logging.getLogger(__name__)

MAX_FRAMES: Final = 15
"""Source: amazon-ecs-agent, agent/stats, the buffer of telemetry messages."""
ROOM_TIMEOUT_S: Final = 1.0
"""How long a frame waits for room. Source: amazon-ecs-agent, agent/stats, the same buffer."""


class Outbox:
    """What waits to be sent on the next connection or the present one."""

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()
        self._filled = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_stuck = False
        """Whether nothing was sent since somebody waited for room in vain."""
        self.dropped = 0
        self.sent = 0
        """Frames, since the agent was started."""

    def __len__(self) -> int:
        return len(self._frames)

    async def put(self, frame: Frame) -> None:
        """Have a frame sent. Waits a moment for room, unless nothing is being sent at all."""
        if len(self._frames) == MAX_FRAMES and not self._is_stuck:
            self._has_room.clear()
            try:
                async with asyncio.timeout(ROOM_TIMEOUT_S):
                    await self._has_room.wait()
            except TimeoutError:
                self._is_stuck = True
        if len(self._frames) == MAX_FRAMES:
            self._frames.popleft()
            self.dropped += 1
            if self.dropped == 1 or self.dropped % 1000 == 0:
                log.warning(
                    "%d frames of telemetry were dropped: the control plane takes none",
                    self.dropped,
                )
        self._frames.append(frame)
        self._filled.set()

    async def first(self) -> Frame:
        """Return the frame that is to be sent next, which stays until `note_sent`."""
        while not self._frames:
            self._filled.clear()
            await self._filled.wait()
        return self._frames[0]

    def note_sent(self, frame: Frame) -> None:
        """Let a frame go; it may have been dropped meanwhile."""
        self.sent += 1
        self._is_stuck = False
        self._has_room.set()
        if self._frames and self._frames[0] is frame:
            self._frames.popleft()
