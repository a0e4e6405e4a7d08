"""Private zones on their way to one agent: all of them when it connects, and when one changes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from fargate_agent.backoff import Backoff
from fargate_agent.controlplane.names import new_uuid
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.announcements import NAMES
from fargate_agent.parallel import first_of
from fargate_agent.wire.messages import Frame, VpcNamesMessage
from fargate_agent.wire.names import VpcZones

log = logging.getLogger(__name__)

GATHER_S: Final = 0.1
"""How long changes are gathered: many tasks start and stop together."""
LONGEST_RESEND: Final = 6
"""A message that isn't acknowledged is sent again ever later, up to so many times `resend_s`."""


class NameDelivery:
    """Brings private zones to an agent, as long as the connection lasts."""

    def __init__(
        self,
        plane: Plane,
        instance_id: str,
        arns: tuple[str, str],
        send: Callable[[Frame], Awaitable[None]],
    ) -> None:
        """`arns` are those of the cluster and of the container instance."""
        self._plane = plane
        self._instance_id = instance_id
        self._cluster_arn, self._instance_arn = arns
        self._send = send
        self._told: tuple[VpcZones, ...] | None = None
        """What the agent has acknowledged last; None: nothing on this connection."""
        self._message_id = ""
        self._acked = asyncio.Event()

    def note_ack(self, message_id: str) -> None:
        """The agent has acknowledged a message; it may be another one's."""
        if message_id == self._message_id:
            self._acked.set()

    async def serve(self) -> None:
        """Tell the agent all zones, and again when one changes, until cancelled."""
        with self._plane.announcements.listening(NAMES) as news:
            while True:
                news.clear()
                try:
                    await self._tell(news)
                except SQLAlchemyError as error:
                    log.error("agent %s: private zones not sent: %s", self._instance_id, error)
                    await asyncio.sleep(self._plane.settings.resend_s)
                    continue
                await news.wait()
                await asyncio.sleep(GATHER_S)

    async def _tell(self, news: asyncio.Event) -> None:
        """Return when the agent has acknowledged how things are."""
        resend_s = self._plane.settings.resend_s
        for pause_s in Backoff(first_s=resend_s, longest_s=LONGEST_RESEND * resend_s).pauses_s():
            plane = self._plane
            zones = await plane.zones.read(plane.store, plane.settings.region)
            if zones == self._told:
                return
            self._message_id = new_uuid()
            self._acked.clear()
            await self._send(
                VpcNamesMessage(
                    message_id=self._message_id,
                    cluster_arn=self._cluster_arn,
                    container_instance_arn=self._instance_arn,
                    vpcs=zones,
                )
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await first_of(_is_set(self._acked), _is_set(news))
            if self._acked.is_set():
                self._told = zones
                return
            if news.is_set():
                news.clear()
                await asyncio.sleep(GATHER_S)


async def _is_set(event: asyncio.Event) -> None:
    await event.wait()
