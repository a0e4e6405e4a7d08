"""What the agent of this machine knows of a task's containers: their runs and their health."""

import asyncio
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

from fargate_agent.cli.clients.agent import Agent, ContainerLife
from fargate_agent.cli.clients.shapes import Container, Health, Run, Task, task_id
from fargate_agent.cli.connection import Connection
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.output import one_line, render_age, render_moment, render_status

MAX_OUTPUT_CHARS: Final = 400
"""Of the output of a health check; what it wrote last."""


def add_life(connection: Connection, task: Task) -> None:
    """Add to a task's containers what the agent knows of them, if it is the one that has it."""
    if task.get("lastStatus") != "STOPPED":  # the agent has forgotten it then
        merge_life(task, asyncio.run(_read_life(connection, task_id(task))))


async def _read_life(connection: Connection, task: str) -> list[ContainerLife]:
    try:
        async with Agent(connection.agent_socket) as agent:
            return await agent.containers(task)
    except CliError:
        return []


def merge_life(task: Task, lives: Iterable[ContainerLife]) -> None:
    """Add to each container its runs and its health."""
    by_name = {life.name: life for life in lives}
    for container in task.get("containers", []):
        if (life := by_name.get(container["name"])) is None:
            continue
        container["runs"] = life.runs
        container["restartCount"] = life.restart_count
        if life.health is not None:
            container["health"] = life.health


def tell_life(container: Container, now: datetime) -> Iterator[tuple[str, str]]:
    """Give what there is to say of a container's health and its restarts, with labels."""
    health = container.get("health")
    status = container.get("healthStatus", "UNKNOWN")
    if health is not None or status != "UNKNOWN":
        yield "health", _render_health(status, health, now)
    if health is not None and health["output"].strip():
        yield "last check", tell_output(health)
    if count := container.get("restartCount", 0):
        yield "restarts", str(count)
        runs = [_render_run(run, now) for run in container.get("runs", [])]
        if runs and (left_out := count + 1 - len(runs)) > 0:
            runs.insert(1, f"… {left_out} more")
        yield from (("run", run) for run in runs)


def tell_output(health: Health) -> str:
    """Return the end of what the last check wrote, on one line."""
    text = one_line(health["output"])
    return f"… {text[-MAX_OUTPUT_CHARS:]}" if len(text) > MAX_OUTPUT_CHARS else text


def tell_failures(health: Health) -> str:
    """Say what the checks that failed have in common; empty if none did."""
    streak, code = health["failingStreak"], health["exitCode"]
    if not streak and not code:
        return ""
    told = f"{streak} checks in a row failed" if streak > 1 else "the last check failed"
    return f"{told} with exit code {code}" if code else told


def _render_health(status: str, health: Health | None, now: datetime) -> str:
    told = render_status(status)
    if health is None:
        return told
    if health["since"] is not None:
        told += f" since {render_age(health['since'], now).removesuffix(' ago')}"
    failures = tell_failures(health)
    return f"{told}, {failures}" if failures else told


def _render_run(run: Run, now: datetime) -> str:
    began, ended, code = run["startedAt"], run["finishedAt"], run["exitCode"]
    if began is None:
        return "not started"
    told = render_moment(began, now)
    if ended is None:
        return told
    told += f", {(ended - began).total_seconds():.3g} s"
    return told if code is None else f"{told}, exit code {code}"
