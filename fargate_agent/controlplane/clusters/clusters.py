"""Clusters: made, described, listed, changed, deleted.

One that was deleted stays as INACTIVE, because its tasks are still described; its name can be used
again.
"""

from collections.abc import Collection
from typing import Final

from sqlalchemy import select

from fargate_agent.controlplane.clusters.counts import (
    ClusterCounts,
    count_cluster,
    render_cluster,
)
from fargate_agent.controlplane.clusters.strategies import (
    NO_DEFAULT_WEIGHT,
    check_default_strategy,
    check_providers,
    check_strategy,
)
from fargate_agent.controlplane.errors import (
    ApiError,
    client_error,
    cluster_not_found,
    invalid_parameter,
    unsupported,
)
from fargate_agent.controlplane.names import CLUSTER_NAME, Arns
from fargate_agent.controlplane.pages import parse_page
from fargate_agent.controlplane.plane import Call, Operation, Plane
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.controlplane.state.model import Cluster
from fargate_agent.controlplane.state.session import Session
from fargate_agent.controlplane.tags import check_tags
from fargate_agent.controlplane.validate import Json

MAX_CLUSTERS: Final = 100
"""Source: ECS API, DescribeClusters.clusters."""

_WHEN_CHANGED: Final = ("ATTACHMENTS", "CONFIGURATIONS", "SETTINGS", "TAGS")
"""What is included in the answers of operations that have no `include`."""

_STORED: Final = ("settings", "configuration", "capacityProviders")
_INSIGHTS: Final = {"enabled", "disabled", "enhanced"}
"""Source: ECS API, ClusterSetting.value."""


async def create_cluster(plane: Plane, call: Call) -> Json:
    """Make a cluster; one that is there already is answered as it is."""
    request = call.request
    name = request.get("clusterName", plane.settings.cluster)
    if not CLUSTER_NAME.fullmatch(name):
        raise invalid_parameter("ClusterName must match ^[a-zA-Z0-9\\-_]{1,255}$")
    document = _check_document(request)
    check_tags(request.get("tags", []))
    async with plane.store.write() as session:
        cluster = await session.get(Cluster, name)
        if cluster is None:
            cluster = Cluster(name=name)
            session.add(cluster)
        if cluster.status != "ACTIVE":  # it is new, or was deleted
            cluster.status = "ACTIVE"
            cluster.document = document
            cluster.tags = request.get("tags", [])
        await session.flush()
        shown = await _render(plane.arns, session, cluster, _WHEN_CHANGED)
    return {"cluster": shown}


async def describe_clusters(plane: Plane, call: Call) -> Json:
    """Describe clusters by name or ARN; without any, the default one."""
    references = call.request.get("clusters") or [plane.settings.cluster]
    if len(references) > MAX_CLUSTERS:  # unverified
        raise invalid_parameter(f"Clusters cannot have more than {MAX_CLUSTERS} elements.")
    include = call.request.get("include", [])
    found, failures = list[Json](), list[Json]()
    async with plane.store.read() as session:
        for name in dict.fromkeys(plane.arns.parse_cluster(named) for named in references):
            cluster = await session.get(Cluster, name)
            if cluster is None:
                arn = name if name.startswith("arn:") else plane.arns.cluster(name)
                failures.append({"arn": arn, "reason": "MISSING"})
            else:
                found.append(await _render(plane.arns, session, cluster, include))
    return {"clusters": found, "failures": failures}


async def list_clusters(plane: Plane, call: Call) -> Json:
    """List the ARNs of all active clusters."""
    page = parse_page(call.request)
    chosen = page.select(select(Cluster.name).where(Cluster.status == "ACTIVE"), Cluster.name)
    async with plane.store.read() as session:
        names = (await session.scalars(chosen)).all()
    return page.render(names, "clusterArns", plane.arns.cluster)


async def update_cluster(plane: Plane, call: Call) -> Json:
    """Change what is given, and only that; tasks that run go on."""
    document = _check_document(call.request)
    async with plane.store.write() as session:
        name = await find_cluster(plane.arns, plane.settings, session, call.request)
        cluster = await session.get_one(Cluster, name)
        cluster.document = {**cluster.document, **document}
        shown = await _render(plane.arns, session, cluster, _WHEN_CHANGED)
    return {"cluster": shown}


async def delete_cluster(plane: Plane, call: Call) -> Json:
    """Delete a cluster in which nothing is any more; to delete it again changes nothing."""
    name = plane.arns.parse_cluster(call.request["cluster"])
    async with plane.store.write() as session:
        cluster = await session.get(Cluster, name)
        if cluster is None:
            raise cluster_not_found()
        counts = await count_cluster(session, name)
        _check_empty(counts)
        cluster.status = "INACTIVE"
        cluster.tags = []
    return {"cluster": render_cluster(plane.arns, cluster, counts, ())}


async def find_cluster(
    arns: Arns, settings: ControlPlaneSettings, session: Session, request: Json
) -> str:
    """Return the name of the active cluster that a request means.

    Raises:
        ApiError: there is none, or it isn't active.
    """
    cluster = await _get_cluster(arns, settings, session, request)
    if cluster.status != "ACTIVE":
        raise client_error("Cluster was not ACTIVE.")
    return cluster.name


async def find_known_cluster(
    arns: Arns, settings: ControlPlaneSettings, session: Session, request: Json
) -> str:
    """Return the name of the cluster that a request means; it may have been deleted.

    For what only reads: what ran there can be read as long as it is kept.

    Raises:
        ApiError: there never was one.
    """
    return (await _get_cluster(arns, settings, session, request)).name


async def plan_capacity(session: Session, cluster: str, request: Json) -> Json:
    """Return a request for tasks with the capacity that they get, as far as it is said anywhere.

    One that names neither launch type nor strategy means the default strategy of the cluster.

    Source: ECS API, RunTask.capacityProviderStrategy.

    Raises:
        ApiError: tasks can't be placed by the strategy.
    """
    if request.get("launchType"):
        return request
    if named := request.get("capacityProviderStrategy"):
        check_strategy(named)
        return request
    document = (await session.get_one(Cluster, cluster)).document
    strategy = document.get("defaultCapacityProviderStrategy", [])
    check_strategy(strategy, NO_DEFAULT_WEIGHT)
    return {**request, "capacityProviderStrategy": strategy} if strategy else request


async def ensure_cluster(session: Session, name: str) -> None:
    """Afterwards there is an active cluster with this name."""
    cluster = await session.get(Cluster, name)
    if cluster is None:
        session.add(Cluster(name=name, status="ACTIVE", document={}, tags=[]))
    elif cluster.status != "ACTIVE":
        cluster.status, cluster.document = "ACTIVE", {}


async def _get_cluster(
    arns: Arns, settings: ControlPlaneSettings, session: Session, request: Json
) -> Cluster:
    name = arns.parse_cluster(request.get("cluster") or settings.cluster)
    cluster = await session.get(Cluster, name)
    if cluster is None:
        raise cluster_not_found()
    return cluster


def _check_document(request: Json) -> Json:
    """Return the members of a request that are stored.

    Raises:
        ApiError: one is wrong, or promises what isn't done here. The texts are unverified.
    """
    for setting in request.get("settings", []):
        if "name" not in setting or setting.get("value") not in _INSIGHTS:
            raise invalid_parameter(
                "containerInsights must be one of: " + ", ".join(sorted(_INSIGHTS))
            )
    if "serviceConnectDefaults" in request:
        raise unsupported("serviceConnectDefaults is not supported here.")
    if "managedStorageConfiguration" in request.get("configuration", {}):
        raise unsupported("configuration.managedStorageConfiguration is not supported here.")
    document: Json = {member: request[member] for member in _STORED if member in request}
    providers = request.get("capacityProviders", [])
    check_providers(providers)
    strategy = request.get("defaultCapacityProviderStrategy", [])
    check_default_strategy(strategy, providers)
    if "defaultCapacityProviderStrategy" in request:
        document["defaultCapacityProviderStrategy"] = [
            {"weight": 0, "base": 0, **item} for item in strategy
        ]
    return document


def _check_empty(counts: ClusterCounts) -> None:
    for what, there in (
        ("Services", counts.active_services + counts.draining_services),
        ("Tasks", counts.running + counts.pending),
        ("ContainerInstances", counts.instances),
    ):
        if there:
            raise ApiError(f"ClusterContains{what}Exception", _NOT_EMPTY[what])


_NOT_EMPTY: Final = {
    "Services": "The Cluster cannot be deleted while Services are active.",
    "Tasks": "The Cluster cannot be deleted while Tasks are active.",
    "ContainerInstances": (
        "The Cluster cannot be deleted while Container Instances are active or draining."
    ),
}
"""Source: ECS API, as users report it."""


async def _render(arns: Arns, session: Session, cluster: Cluster, include: Collection[str]) -> Json:
    counts = await count_cluster(session, cluster.name)
    return render_cluster(arns, cluster, counts, include)


OPERATIONS: Final[dict[str, Operation]] = {
    "CreateCluster": create_cluster,
    "DeleteCluster": delete_cluster,
    "DescribeClusters": describe_clusters,
    "ListClusters": list_clusters,
    "PutClusterCapacityProviders": update_cluster,
    "UpdateCluster": update_cluster,
    "UpdateClusterSettings": update_cluster,
}
