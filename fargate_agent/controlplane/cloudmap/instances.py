"""Instances of services of Cloud Map: what clients have registered, and tasks of ECS's services.

A task is an instance while it runs and is to run, so it is one no longer as soon as its end is
wanted. Source of its attributes: ECS developer guide, "Service discovery".
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import func, select

from fargate_agent.controlplane.state.cloudmap import DeploymentRegistry, RegisteredInstance
from fargate_agent.controlplane.state.model import Eni, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.tasks.health import is_passed


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One instance of a service."""

    id: str
    attributes: Mapping[str, str]
    is_healthy: bool = True
    is_task: bool = False
    """Whether ECS manages it."""


async def read_instances(
    session: Session, region: str, service_ids: Collection[str]
) -> dict[str, list[Instance]]:
    """Return the instances of each service, by their ids."""
    found: defaultdict[str, list[Instance]] = defaultdict(list)
    chosen = select(RegisteredInstance).where(RegisteredInstance.service_id.in_(service_ids))
    for row in await session.scalars(chosen):
        found[row.service_id].append(
            Instance(id=row.id, attributes=row.attributes, is_healthy=row.is_healthy)
        )
    tasks = (
        select(
            DeploymentRegistry.service_id,
            DeploymentRegistry.port,
            Task.id,
            Task.cluster,
            Task.family,
            Task.group,
            Task.health_status,
            Task.connected,
            Eni.address,
            Eni.ipv6_address,
            Eni.availability_zone,
        )
        .join(Task, Task.deployment_id == DeploymentRegistry.deployment_id)
        .join(Eni, Eni.task_id == Task.id)
        .where(
            DeploymentRegistry.service_id.in_(service_ids),
            Task.last_status == "RUNNING",
            Task.desired_status == "RUNNING",
        )
    )
    for task in (await session.execute(tasks)).mappings():
        attributes = {
            "AVAILABILITY_ZONE": task["availability_zone"],
            "AWS_INSTANCE_IPV4": task["address"],
            "AWS_INSTANCE_IPV6": task["ipv6_address"],
            "AWS_INSTANCE_PORT": task["port"] and str(task["port"]),
            "ECS_CLUSTER_NAME": task["cluster"],
            "ECS_SERVICE_NAME": task["group"].removeprefix("service:"),
            "ECS_TASK_DEFINITION_FAMILY": task["family"],
            "REGION": region,
        }
        found[task["service_id"]].append(
            Instance(
                id=task["id"],
                attributes={name: value for name, value in attributes.items() if value},
                is_healthy=task["connected"] and is_passed(task["health_status"]),
                is_task=True,
            )
        )
    for instances in found.values():
        instances.sort(key=lambda one: one.id)
    return found


async def count_instances(session: Session, service_id: str) -> int:
    """Count the instances of a service."""
    registered = select(func.count()).where(RegisteredInstance.service_id == service_id)
    tasks = (
        select(func.count())
        .select_from(DeploymentRegistry)
        .join(Task, Task.deployment_id == DeploymentRegistry.deployment_id)
        .where(
            DeploymentRegistry.service_id == service_id,
            Task.last_status == "RUNNING",
            Task.desired_status == "RUNNING",
        )
    )
    return (await session.scalar(registered) or 0) + (await session.scalar(tasks) or 0)
