"""Why no agent takes a task: which cluster, how large a task, and what each agent has."""

import time
from collections.abc import Iterable
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.agents.leases import is_running
from fargate_agent.controlplane.agents.needs import find_missing, find_subnet_needs
from fargate_agent.controlplane.agents.served import serves
from fargate_agent.controlplane.state.model import ContainerInstance
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.tasks.launch import Launch

MAX_NAMED: Final = 5
"""Agents that are named; of others there is only the number."""


async def explain_shortage(session: Session, launch: Launch) -> str:
    """Return a sentence for the owner of a task that found no place."""
    cluster, size = launch.cluster, launch.size
    known = select(ContainerInstance).where(ContainerInstance.status != "INACTIVE")
    found = (await session.scalars(known.order_by(ContainerInstance.registered_at))).all()
    serving = [instance for instance in found if serves(instance, cluster)]
    asked = (
        f"Cluster {cluster}, {size.cpu_units} CPU units, {size.memory_mib} MiB of memory, "
        f"{size.storage_gib} GiB of storage"
    )
    if serving:
        return f"{asked}: {_list(_describe(instance, launch) for instance in serving)}."
    if found:
        return f"{asked}: none of {len(found)} registered agents serves this cluster."
    return f"{asked}: no agent is registered."


def _list(described: Iterable[str]) -> str:
    every = list(described)
    more = [f"and {len(every) - MAX_NAMED} more"] if len(every) > MAX_NAMED else []
    return "; ".join([*every[:MAX_NAMED], *more])


def _describe(instance: ContainerInstance, launch: Launch) -> str:
    hindrance = _find_hindrance(instance) or _render_missing(instance, launch)
    return f"agent {instance.id}: {hindrance or _render_free(instance)}"


def _find_hindrance(instance: ContainerInstance) -> str | None:
    if not is_running(instance.connected_until):
        away_s = time.time() - instance.connected_until
        return f"not connected for {away_s:.0f} s" if instance.connected_until else "not connected"
    if instance.status != "ACTIVE":
        return f"takes no new tasks ({instance.status})"
    return None


def _render_missing(instance: ContainerInstance, launch: Launch) -> str | None:
    """Say what an agent lacks in each of the subnets; None if it lacks nothing in one of them."""
    lacks: dict[str, None] = {}
    for subnet in launch.subnets:
        needs = (*launch.needs, *find_subnet_needs(subnet))
        missing = find_missing(instance, needs)
        if not missing:
            return None
        lacks |= dict.fromkeys(need.what for need in missing)
    return f"lacks {', '.join(lacks)}"


def _render_free(instance: ContainerInstance) -> str:
    left = [
        f"{max(total - reserved, 0)} {unit}"
        for total, reserved, unit in (
            (instance.cpu_units, instance.reserved_cpu_units, "CPU units"),
            (instance.memory_mib, instance.reserved_memory_mib, "MiB of memory"),
            (instance.storage_gib, instance.reserved_storage_gib, "GiB of storage"),
        )
        if total is not None
    ]
    return f"{', '.join(left)} free" if left else f"{instance.reserved_tasks} tasks"
