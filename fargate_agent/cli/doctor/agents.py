"""What each agent has and what is free, and whose tasks it takes."""

from typing import Any, Final

from fargate_agent.cli.clients.ecs import Ecs
from fargate_agent.cli.failure import CliError

_UNITS: Final = {"CPU": "CPU units", "MEMORY": "MiB of memory", "STORAGE": "GiB of storage"}


def list_agents(ecs: Ecs) -> list[str]:
    """Return a line for each agent that the control plane knows."""
    try:
        agents = ecs.describe_agents()
    except CliError as error:  # a key may be allowed to run tasks and no more
        return [f"agents are not shown: {error}"]
    if not agents:
        return ["no agent is registered: no cluster has capacity"]
    return [render_agent(agent) for agent in agents]


def render_agent(agent: dict[str, Any]) -> str:
    """Return what a container instance has, as one line."""
    arn = str(agent["containerInstanceArn"])
    state = "connected" if agent.get("agentConnected") else "not connected"
    if agent.get("status") != "ACTIVE":
        state += f", {agent.get('status')}: takes no new tasks"
    parts = [f"agent {arn.rpartition('/')[2]} ({state})", _render_clusters(agent)]
    if free := _render_free(agent):
        parts.append(free)
    return "; ".join(parts)


def _render_clusters(agent: dict[str, Any]) -> str:
    for resource in agent.get("registeredResources", []):
        if resource["name"] == "CLUSTERS":
            names = resource.get("stringSetValue", [])
            return "serves every cluster" if "*" in names else f"serves {', '.join(names)}"
    return f"serves {agent['containerInstanceArn'].split('/')[-2]}"


def _render_free(agent: dict[str, Any]) -> str:
    left = {
        resource["name"]: resource["integerValue"]
        for resource in agent.get("remainingResources", [])
        if "integerValue" in resource
    }
    return ", ".join(
        f"{left[resource['name']]} of {resource['integerValue']} {_UNITS[resource['name']]} free"
        for resource in agent.get("registeredResources", [])
        if resource["name"] in _UNITS and resource["name"] in left
    )
