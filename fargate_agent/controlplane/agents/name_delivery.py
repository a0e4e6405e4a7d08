"""The names of private namespaces on their way to one agent, which is told all of them.

They are sent when they are others than the agent has acknowledged, and again until it does.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from fargate_agent.backoff import Backoff
from fargate_agent.controlplane.cloudmap.zones import Zones
from fargate_agent.controlplane.names import new_uuid
from fargate_agent.controlplane.plane import Plane
from fargate_agent.controlplane.state.announcements import NAMES
from fargate_agent.parallel import first_of
from fargate_agent.wire.messages import Frame, VpcNamesMessage
from fargate_agent.wire.vpc_names import VpcZones

log = logging.getLogger(__name__)

GATHER_S: Final = 0.1
"""How long changes are gathered: many tasks start and stop together."""
LONGEST_RESEND: Final = 6
"""A message that isn't acknowledged is sent again ever later, up to so many times `resend_s`."""


class NameDelivery:
    """Brings names to an agent, as long as the connection lasts."""

    def __init__(
        self,
        plane: Plane,
        zones: Zones,
        arns: tuple[str, str],
        send: Callable[[Frame], Awaitable[None]],
    ) -> None:
        """`arns` are those of the cluster and of the container instance."""
        self._plane = plane
        self._zones = zones
        self._cluster_arn, self._instance_arn = arns
        self._send = send
        self._message_id = ""
        """Of what was sent last."""
        self._acked = asyncio.Event()

    def note_ack(self, message_id: str) -> None:
        """The agent has acknowledged a message; it may be another one's."""
        if message_id == self._message_id:
            self._acked.set()

    async def serve(self) -> None:
        """Tell the agent all names, and again when they have changed, until cancelled."""
        told: tuple[VpcZones, ...] | None = None
        with self._plane.announcements.listening(NAMES) as news:
            while True:
                news.clear()
                try:
                    vpcs = await self._zones.read()
                except SQLAlchemyError as error:
                    log.error("agent %s: names not sent: %s", self._instance_arn, error)
                    await asyncio.sleep(self._plane.settings.resend_s)
                    continue
                if vpcs == told:
                    await news.wait()
                elif await self._tell(vpcs, news):
                    told = vpcs
                if news.is_set():
                    await asyncio.sleep(GATHER_S)

    async def _tell(self, vpcs: tuple[VpcZones, ...], news: asyncio.Event) -> bool:
        """Send names until they are acknowledged, or others are to be told; return which."""
        resend_s = self._plane.settings.resend_s
        for pause_s in Backoff(first_s=resend_s, longest_s=LONGEST_RESEND * resend_s).pauses_s():
            self._message_id = new_uuid()
            self._acked.clear()
            await self._send(
                VpcNamesMessage(
                    message_id=self._message_id,
                    cluster_arn=self._cluster_arn,
                    container_instance_arn=self._instance_arn,
                    vpcs=vpcs,
                )
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await first_of(_is_set(self._acked), _is_set(news))
            if self._acked.is_set() or news.is_set():
                break
        return self._acked.is_set()


async def _is_set(event: asyncio.Event) -> None:
    await event.wait()
