"""What is forgotten after some time: stopped tasks, history, what was deleted or retired."""

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Delete, delete, exists, or_, select
from sqlalchemy.exc import SQLAlchemyError

from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.cloudmap import CloudMapOperation
from fargate_agent.controlplane.state.model import (
    ClientToken,
    ContainerInstance,
    Deployment,
    Event,
    Service,
    Task,
)
from fargate_agent.controlplane.state.store import Store
from fargate_agent.controlplane.tasks.running import TOKEN_LIFETIME_S
from fargate_agent.controlplane.telemetry.retention import forget_metrics

log = logging.getLogger(__name__)

FORGET_EVERY_S: Final = 600


async def forget_the_old(settings: ControlPlaneSettings, store: Store) -> None:
    """Forget what is too old, again and again, until cancelled."""
    while True:
        try:
            await forget_metrics(settings, store, time.time())
            for statement in _select_old(settings, time.time()):
                async with store.write() as session:
                    await session.execute(statement)
        except SQLAlchemyError as error:
            log.error("nothing was forgotten: %s", error)
        await asyncio.sleep(FORGET_EVERY_S)


def _select_old(settings: ControlPlaneSettings, now: float) -> Iterator[Delete]:
    """Return what to delete, each in a transaction of its own so that nobody waits long."""
    history_from = now - settings.history_retention_s
    yield delete(Task).where(
        Task.last_status == "STOPPED", Task.stopped_at < now - settings.stopped_task_retention_s
    )
    yield delete(ClientToken).where(ClientToken.created_at < now - TOKEN_LIFETIME_S)
    yield delete(CloudMapOperation).where(CloudMapOperation.created_at < now - TOKEN_LIFETIME_S)
    yield delete(Event).where(Event.at < history_from)
    lately = select(Deployment.service_id).where(Deployment.updated_at >= history_from)
    yield delete(Service).where(Service.status == "INACTIVE", Service.id.not_in(lately))
    yield delete(ContainerInstance).where(
        or_(ContainerInstance.status == "INACTIVE", ContainerInstance.silent),
        ContainerInstance.registered_at < history_from,
        ContainerInstance.connected_until < history_from,
        ~exists().where(Task.instance_id == ContainerInstance.id),
    )
