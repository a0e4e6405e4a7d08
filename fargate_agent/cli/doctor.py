"""`fargate doctor`: what doesn't answer, and what this host denies to tasks."""

import asyncio
from typing import Any

import click

from fargate_agent.cli.agent import Agent
from fargate_agent.cli.agents import list_agents
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.ecs import Ecs
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.output import print_json

Finding = dict[str, str]
"""`what` is so, and its `effect`."""


def examine(connection: Connection, *, as_json: bool) -> int:
    """Print every finding; return 1 if the control plane or the agent doesn't do its work."""
    health: dict[str, Any] = {}
    broken: list[Finding] = []
    denied: list[Finding] = []
    agents: list[str] = []
    try:
        ecs = Ecs(connection)
        ecs.check()
        agents = list_agents(ecs)
    except CliError as error:
        broken.append({"what": str(error), "effect": "no task can be started or stopped"})
    try:
        health, denied = asyncio.run(_ask_agent(connection))
    except CliError as error:
        broken.append({"what": str(error), "effect": "no logs, images or progress are shown"})
    if health.get("controlPlane") == "disconnected":
        broken.append(
            {
                "what": "the agent is not connected to its control plane",
                "effect": "no task starts here",
            }
        )
    _show(health, agents, [*broken, *denied], as_json=as_json)
    return 1 if broken else 0


async def _ask_agent(connection: Connection) -> tuple[dict[str, Any], list[Finding]]:
    async with Agent(connection.agent_socket) as agent:
        return await agent.health(), await agent.doctor()


def _show(
    health: dict[str, Any], agents: list[str], findings: list[Finding], *, as_json: bool
) -> None:
    if as_json:
        print_json({"health": health, "agents": agents, "findings": findings})
        return
    if health:
        click.echo(
            f"agent {health.get('version')}, containerd {health.get('containerd')},"
            f" {health.get('cgroups')}; tasks: {health.get('tasks')}"
        )
    for line in agents:
        click.echo(line)
    for finding in findings:
        click.echo(f"{finding['what']}: {finding['effect']}")
    if not findings:
        click.echo("nothing to complain about")
