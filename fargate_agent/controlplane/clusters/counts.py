"""What is in a cluster, counted, and a cluster as the API describes it."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select

from fargate_agent.controlplane.agents.leases import is_active
from fargate_agent.controlplane.names import Arns
from fargate_agent.controlplane.state.model import LIVE, Cluster, ContainerInstance, Service, Task
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.validate import Json

_RUNNING: Final = frozenset({"RUNNING", "DEACTIVATING", "STOPPING"})

_INCLUDED: Final = {
    "SETTINGS": ("settings", [{"name": "containerInsights", "value": "disabled"}]),
    "CONFIGURATIONS": ("configuration", None),
}
"""What is only shown when asked for: the member, and its value when none was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterCounts:
    """What is in a cluster and not over yet."""

    instances: int
    """Container instances that are registered here, active or draining. Those that serve the
    cluster and are registered in another don't count: a cluster of Fargate has none."""
    running: int
    pending: int
    """Tasks."""
    active_services: int
    draining_services: int


async def count_cluster(session: Session, cluster: str) -> ClusterCounts:
    """Count what is in a cluster; it takes no longer when many tasks have stopped."""
    instances = select(ContainerInstance.id).where(
        ContainerInstance.cluster == cluster, is_active()
    )
    tasks = (
        select(Task.last_status, func.count())
        .where(Task.cluster == cluster, LIVE)
        .group_by(Task.last_status)
    )
    services = (
        select(Service.status, func.count())
        .where(Service.cluster == cluster, Service.status != "INACTIVE")
        .group_by(Service.status)
    )
    by_status = Counter(dict((await session.execute(tasks)).all()))
    of_services = Counter(dict((await session.execute(services)).all()))
    running = sum(by_status[status] for status in _RUNNING)
    return ClusterCounts(
        instances=len((await session.scalars(instances)).all()),
        running=running,
        pending=by_status.total() - running,
        active_services=of_services["ACTIVE"],
        draining_services=of_services["DRAINING"],
    )


def render_cluster(
    arns: Arns, cluster: Cluster, counts: ClusterCounts, include: Collection[str]
) -> Json:
    """Return a cluster as DescribeClusters answers it, with what is to be included."""
    providers = cluster.document.get("capacityProviders", [])
    shown: Json = {
        "clusterArn": arns.cluster(cluster.name),
        "clusterName": cluster.name,
        "status": cluster.status,
        "registeredContainerInstancesCount": counts.instances,
        "runningTasksCount": counts.running,
        "pendingTasksCount": counts.pending,
        "activeServicesCount": counts.active_services,
        "statistics": _render_statistics(counts) if "STATISTICS" in include else [],
        "tags": cluster.tags if "TAGS" in include else [],
        "settings": [],
        "capacityProviders": providers,
        "defaultCapacityProviderStrategy": cluster.document.get(
            "defaultCapacityProviderStrategy", []
        ),
    }
    if "ATTACHMENTS" in include and providers:
        shown |= {"attachments": [], "attachmentsStatus": "UPDATE_COMPLETE"}
    for option, (member, absent) in _INCLUDED.items():
        value = cluster.document.get(member, absent)
        if option in include and value is not None:
            shown[member] = value
    return shown


def _render_statistics(counts: ClusterCounts) -> list[Json]:
    """Source: ECS API, Cluster.statistics; the order and the small r are unverified."""
    numbers = {
        "runningEC2TasksCount": 0,
        "runningFargateTasksCount": counts.running,
        "pendingEC2TasksCount": 0,
        "pendingFargateTasksCount": counts.pending,
        "activeEC2ServiceCount": 0,
        "activeFargateServiceCount": counts.active_services,
        "drainingEC2ServiceCount": 0,
        "drainingFargateServiceCount": counts.draining_services,
    }
    return [{"name": name, "value": str(number)} for name, number in numbers.items()]
