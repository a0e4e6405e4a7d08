"""What is done to the machine for a task, each step with its undo."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from fargate_agent.drivers import Drivers
from fargate_agent.parallel import together
from fargate_agent.plan import EniPlan, TaskPlan
from fargate_agent.task.phases import timing

log = logging.getLogger(__name__)

UNDO_TIMEOUT_S: Final = 30
"""How long one undo may take. Source: amazon-ecs-agent, netlib, CNI DEL limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing done to the machine for a task."""

    what: str
    phase: str
    """Which part of a start it is; see `phases.Phase`."""
    do: Callable[[], Coroutine[Any, Any, None]]
    undo: Callable[[], Coroutine[Any, Any, None]]
    undo_timeout_s: float = UNDO_TIMEOUT_S


Wave = list[Step]
"""Steps that are done side by side."""


def ground_wave(plan: TaskPlan, drivers: Drivers) -> Wave:
    """Make what everything else of the task stands on."""
    return [
        Step(
            what=f"netns {plan.netns.name}",
            phase="netns",
            do=partial(drivers.netns.ensure, plan.netns),
            undo=partial(drivers.netns.release, plan.netns),
        ),
        Step(
            what=f"storage, lease, cgroup and files of {plan.id}",
            phase="prepare",
            do=partial(_prepare, plan, drivers),
            undo=partial(_release, plan, drivers),
        ),
    ]


def local_volumes_wave(plan: TaskPlan, drivers: Drivers) -> Wave:
    """Make the volumes that need no network."""
    return _volume_steps(plan, drivers, through_network=False)


def network_waves(
    plan: TaskPlan, drivers: Drivers, find_eni: Callable[[EniPlan], EniPlan] = lambda eni: eni
) -> list[Wave]:
    """Put the ENIs into the network namespace in their order; then serve metadata, mount volumes.

    Names are answered before anything asks through an ENI.

    `find_eni` returns the plan of an ENI as it is then: its security groups may have changed before
    the ENI is attached, and meanwhile.
    """

    async def attach(eni: EniPlan) -> None:
        driver, attached = drivers.enis[eni.kind], find_eni(eni)
        await driver.attach(attached, plan.netns)
        while (newer := find_eni(eni)) != attached:
            await driver.update(newer, plan.netns)
            attached = newer

    enis = [
        Step(
            what=f"ENI {eni.id} {eni.address}",
            phase="eni",
            do=partial(attach, eni),
            undo=partial(drivers.enis[eni.kind].detach, eni, plan.netns),
        )
        for eni in plan.enis
    ]
    metadata = Step(
        what="metadata endpoint",
        phase="metadata",
        do=partial(_open_endpoint, plan, drivers),
        undo=partial(_close_endpoint, plan, drivers),
    )
    services = Step(
        what="resolver of the VPC",
        phase="metadata",
        do=partial(drivers.vpc.ensure, plan),
        undo=partial(drivers.vpc.release, plan),
    )
    volumes = _volume_steps(plan, drivers, through_network=True)
    first, *others = enis
    return [[first, services], *([eni] for eni in others), [metadata, *volumes]]


def _volume_steps(plan: TaskPlan, drivers: Drivers, *, through_network: bool) -> list[Step]:
    return [
        Step(
            what=f"{volume.kind} volume {volume.name}",
            phase="volumes",
            do=partial(driver.ensure, plan, volume),
            undo=partial(driver.release, plan, volume),
        )
        for volume in plan.volumes
        if (driver := drivers.volumes[volume.kind]).needs_network == through_network
    ]


async def _prepare(plan: TaskPlan, drivers: Drivers) -> None:
    """Make the ephemeral volume, and what of the runtime is in it and beside it."""
    await drivers.storage.ensure(plan)
    await drivers.runtime.prepare(plan)


async def _release(plan: TaskPlan, drivers: Drivers) -> None:
    try:
        await drivers.storage.release(plan)
    finally:
        await drivers.runtime.release(plan)


async def _open_endpoint(plan: TaskPlan, drivers: Drivers) -> None:
    """Serve metadata, and have there what loggers ask for when they start."""
    await drivers.metadata.ensure(plan)
    await drivers.secrets.ensure(plan)


async def _close_endpoint(plan: TaskPlan, drivers: Drivers) -> None:
    try:
        await drivers.secrets.release(plan)
    finally:
        await drivers.metadata.release(plan)


async def do(waves: Iterable[Wave]) -> None:
    """Do every wave in order; the first failure ends it."""
    for wave in waves:
        await together(_do(step) for step in wave)


async def _do(step: Step) -> None:
    start_s = time.monotonic()
    with timing(step.phase, step.what):
        await step.do()
    log.debug("%s is there after %.1f ms", step.what, (time.monotonic() - start_s) * 1e3)


async def undo(waves: Sequence[Wave]) -> None:
    """Take back every wave, the last one first, whether it was done, half done or not begun.

    A step that can't be taken back keeps nobody from the others. Cancelled, this leaves what is
    still there to the next agent.
    """
    for wave in reversed(waves):
        await together(_undo(step) for step in wave)


async def _undo(step: Step) -> None:
    try:
        async with asyncio.timeout(step.undo_timeout_s):
            await step.undo()
    except Exception:  # the other steps must still be undone
        log.exception("could not undo %s; the sweep at the next start will", step.what)
