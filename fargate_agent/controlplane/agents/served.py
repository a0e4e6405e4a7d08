"""Which clusters an agent serves: every one, as Fargate does, unless its settings name some."""

from fargate_agent.controlplane.state.model import ContainerInstance
from fargate_agent.controlplane.validate import Json
from fargate_agent.wire.arns import CLUSTERS, EVERY_CLUSTER


def find_served(request: Json) -> list[str] | None:
    """Return the clusters whose tasks an agent wants that registers; None if it doesn't say."""
    for resource in request.get("totalResources", []):
        if resource.get("name") == CLUSTERS:
            return list(resource.get("stringSetValue", []))
    return None


def render_served(instance: ContainerInstance) -> Json:
    """Return the part of its registration that says which clusters an instance serves."""
    request: Json = {"cluster": instance.cluster}
    if instance.clusters is not None:
        request["totalResources"] = [{"name": CLUSTERS, "stringSetValue": instance.clusters}]
    return request


def serves(instance: ContainerInstance, cluster: str) -> bool:
    """Whether an instance takes tasks of a cluster."""
    served = [instance.cluster] if instance.clusters is None else instance.clusters
    return cluster in served or EVERY_CLUSTER in served
