"""Rules about the order in which containers start, and what they take from each other."""

from fargate_agent.controlplane.errors import client_error
from fargate_agent.controlplane.rules.container import NO_HEALTH_CHECK
from fargate_agent.controlplane.rules.draft import Draft


def check_dependencies(draft: Draft) -> None:
    """Raise if a container waits for what can't be."""
    known = {container["name"]: container for container in draft.containers}
    for _, dependency in draft.members("dependsOn"):
        name, condition = dependency["containerName"], dependency["condition"]
        other = known.get(name)
        if other is None:
            raise client_error(f"Cannot depend on container + '{name}' because it does not exist")
        if condition in {"SUCCESS", "COMPLETE"} and other.get("essential", True):
            raise client_error(
                "A dependency container with SUCCESS or COMPLETE condition cannot be an essential "
                "container"
            )
        check = other.get("healthCheck", {"command": NO_HEALTH_CHECK})
        if condition == "HEALTHY" and check["command"] == NO_HEALTH_CHECK:
            raise client_error(
                "A dependency container with HEALTHY condition must have health check configured"
            )
    if circle := _find_circle(draft):  # unverified
        raise client_error(f"Container dependencies form a circle: {', '.join(circle)}")


def check_volumes_from(draft: Draft) -> None:
    """Raise if a container takes the mounts of one that isn't there."""
    known = {container["name"] for container in draft.containers}
    for _, source in draft.members("volumesFrom"):
        name = source.get("sourceContainer")
        if name not in known:
            raise client_error(f"Invalid 'volumesFrom' setting. Unknown container: '{name}'.")


def _find_circle(draft: Draft) -> list[str]:
    """Return the names of containers that can never start; they wait for each other."""
    waits = {
        container["name"]: {item["containerName"] for item in container.get("dependsOn", [])}
        | {item.get("sourceContainer") for item in container.get("volumesFrom", [])}
        for container in draft.containers
    }
    while ready := [name for name, others in waits.items() if others.isdisjoint(waits)]:
        for name in ready:
            del waits[name]
    return list(waits)
