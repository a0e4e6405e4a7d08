"""`fargate doctor`: what doesn't answer, and what this machine denies to tasks.

The agent looks at its machine. Where none answers, the agent's program looks without one.
"""

import asyncio
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from fargate_agent.cli.clients.agent import Agent
from fargate_agent.cli.clients.ecs import Ecs
from fargate_agent.cli.connection import (
    DEFAULT_STATE_DIR,
    Connection,
    find_state_dir,
    read_connection,
)
from fargate_agent.cli.doctor.agents import list_agents
from fargate_agent.cli.doctor.holder import find_holder
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.layout import Layout
from fargate_agent.cli.output import print_json
from fargate_agent.cli.stack.programs import look_program

LOOK_TIMEOUT_S: Final = 30
SETTINGS: Final = Path("/etc/fargate/agent.toml")
"""Of an agent that is installed as a service."""

AWS: Final = {
    "local": "AWS: local, this machine does without; secrets are those of fargate secrets",
    "real": "AWS: real, tasks are given what AWS, or what stands for it, has",
}
"""By the agent's setting `aws`."""

NO_TASKS: Final = "no task can be started or stopped"

Finding = dict[str, Any]
"""`what` is so, its `effect`, and whether a task has `met` it."""


@dataclass(slots=True)
class _Report:
    health: dict[str, Any] = field(default_factory=dict)
    agents: list[str] = field(default_factory=list)
    broken: list[Finding] = field(default_factory=list)
    denied: list[Finding] = field(default_factory=list)

    def fail(self, what: object, effect: str) -> None:
        self.broken.append({"what": str(what), "effect": effect})


def examine(state_dir: Path | None, *, as_json: bool) -> int:
    """Print every finding; return 1 if the control plane or the agent doesn't do its work."""
    report = _Report()
    try:
        connection = read_connection(state_dir)
    except CliError as error:
        report.fail(error, NO_TASKS)
    else:
        _ask_control_plane(connection, report)
        _ask_agent(connection, report)
    if not report.health:
        _look(state_dir or find_state_dir(), report)
    _show(report, as_json=as_json)
    return 1 if report.broken else 0


def _ask_control_plane(connection: Connection, report: _Report) -> None:
    try:
        ecs = Ecs(connection)
        ecs.check()
        report.agents = list_agents(ecs)
    except CliError as error:
        holder = find_holder(connection.endpoint)
        report.fail(f"{error} (its port is held by {holder})" if holder else error, NO_TASKS)


def _ask_agent(connection: Connection, report: _Report) -> None:
    async def ask() -> None:
        async with Agent(connection.agent_socket) as agent:
            report.health, report.denied = await agent.health(), await agent.doctor()

    try:
        asyncio.run(ask())
    except CliError as error:
        report.fail(error, "no logs, images or progress are shown")
    if report.health.get("controlPlane") == "disconnected":
        report.fail("the agent is not connected to its control plane", "no task starts here")


def _look(state_dir: Path | None, report: _Report) -> None:
    """Look at the machine where no agent does."""
    if state_dir is None and not SETTINGS.exists() and DEFAULT_STATE_DIR.exists():
        state_dir = DEFAULT_STATE_DIR
    try:
        argv, environment = look_program(Layout(state_dir.absolute()) if state_dir else None)
        done = subprocess.run(  # noqa: S603 - our own program
            argv,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LOOK_TIMEOUT_S,
        )
    except (CliError, OSError, subprocess.TimeoutExpired) as error:
        report.fail(error, "the machine was not looked at")
        return
    if done.returncode == 0:
        report.denied = json.loads(done.stdout)["findings"]
    else:
        report.fail("; ".join(done.stderr.splitlines()), "the machine was not looked at")
    if os.geteuid() != 0:
        report.fail("only root can look at the whole machine", "some things were left out")


def _show(report: _Report, *, as_json: bool) -> None:
    findings = [*report.broken, *report.denied]
    if as_json:
        print_json({"health": report.health, "agents": report.agents, "findings": findings})
        return
    health = report.health
    if health:
        click.echo(
            f"agent {health.get('version')}, containerd {health.get('containerd')},"
            f" {health.get('cgroups')}; tasks: {health.get('tasks')}"
        )
        if (aws := health.get("aws")) in AWS:
            click.echo(AWS[aws])
    else:
        click.echo("no agent answers; this is what is seen without one")
    for line in report.agents:
        click.echo(line)
    for finding in findings:
        met = " (a task has met this since the machine was started)" if finding.get("met") else ""
        click.echo(f"{finding['what']}: {finding['effect']}{met}")
    if not findings:
        click.echo("nothing to complain about")
