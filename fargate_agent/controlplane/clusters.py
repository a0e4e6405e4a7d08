"""Clusters: made, described, listed."""

from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fargate_agent.controlplane.errors import client_error, cluster_not_found, invalid_parameter
from fargate_agent.controlplane.model import Cluster, ContainerInstance, Task
from fargate_agent.controlplane.names import CLUSTER_NAME
from fargate_agent.controlplane.pages import render_page
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.validate import Json

_RUNNING: Final = ("RUNNING", "DEACTIVATING", "STOPPING")
_PENDING: Final = ("PROVISIONING", "PENDING", "ACTIVATING")

_INCLUDED: Final = {
    "SETTINGS": ("settings", [{"name": "containerInsights", "value": "disabled"}]),
    "TAGS": ("tags", []),
    "CONFIGURATIONS": ("configuration", None),
}
"""What is only shown when asked for: the member, and its value when none was given."""


async def create_cluster(plane: Plane, call: Call) -> Json:
    """Make a cluster; one that is there already is answered as it is."""
    name = call.request.get("clusterName", plane.settings.cluster)
    if not CLUSTER_NAME.fullmatch(name):
        raise invalid_parameter("ClusterName must match ^[a-zA-Z0-9\\-_]{1,255}$")
    document = {member: value for member, value in call.request.items() if member != "clusterName"}
    async with plane.store.write() as session:
        cluster = await session.get(Cluster, name)
        if cluster is None:
            cluster = Cluster(name=name, status="ACTIVE", document=document)
            session.add(cluster)
            await session.flush()
        shown = await _render(plane, session, cluster, list(_INCLUDED))
    return {"cluster": shown}


async def describe_clusters(plane: Plane, call: Call) -> Json:
    """Describe clusters by name or ARN; without any, the default one."""
    references = call.request.get("clusters") or [plane.settings.cluster]
    include = call.request.get("include", [])
    found, failures = [], []
    async with plane.store.read() as session:
        for name in dict.fromkeys(plane.arns.parse_cluster(named) for named in references):
            cluster = await session.get(Cluster, name)
            if cluster is None:
                failures.append({"arn": plane.arns.cluster(name), "reason": "MISSING"})
            else:
                found.append(await _render(plane, session, cluster, include))
    return {"clusters": found, "failures": failures}


async def list_clusters(plane: Plane, call: Call) -> Json:
    """List the ARNs of all clusters."""
    async with plane.store.read() as session:
        names = await session.scalars(select(Cluster.name).order_by(Cluster.name))
    return render_page([plane.arns.cluster(name) for name in names], call.request, "clusterArns")


async def find_cluster(plane: Plane, session: AsyncSession, request: Json) -> str:
    """Return the name of the active cluster that a request means.

    Raises:
        ApiError: there is none, or it isn't active.
    """
    name = plane.arns.parse_cluster(request.get("cluster") or plane.settings.cluster)
    cluster = await session.get(Cluster, name)
    if cluster is None:
        raise cluster_not_found()
    if cluster.status != "ACTIVE":
        raise client_error("Cluster was not ACTIVE.")
    return name


async def _render(
    plane: Plane, session: AsyncSession, cluster: Cluster, include: list[Any]
) -> Json:
    instances = await session.scalar(
        select(func.count())
        .select_from(ContainerInstance)
        .where(ContainerInstance.cluster == cluster.name, ContainerInstance.status == "ACTIVE")
    )
    rows = await session.execute(
        select(Task.last_status, func.count())
        .where(Task.cluster == cluster.name)
        .group_by(Task.last_status)
    )
    counts = dict(rows.all())
    shown: Json = {
        "clusterArn": plane.arns.cluster(cluster.name),
        "clusterName": cluster.name,
        "status": cluster.status,
        "registeredContainerInstancesCount": instances or 0,
        "runningTasksCount": sum(counts.get(status, 0) for status in _RUNNING),
        "pendingTasksCount": sum(counts.get(status, 0) for status in _PENDING),
        "activeServicesCount": 0,
        "statistics": [],
        "tags": [],
        "settings": [],
        "capacityProviders": cluster.document.get("capacityProviders", []),
        "defaultCapacityProviderStrategy": cluster.document.get(
            "defaultCapacityProviderStrategy", []
        ),
    }
    for option in include:
        if option in _INCLUDED:
            member, absent = _INCLUDED[option]
            value = cluster.document.get(member, absent)
            if value is not None:
                shown[member] = value
    return shown


OPERATIONS: Final[dict[str, Operation]] = {
    "CreateCluster": create_cluster,
    "DescribeClusters": describe_clusters,
    "ListClusters": list_clusters,
}
