"""`fargate why`: why a task is as it is, for as long as anything is known of it."""

import asyncio
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import click

from fargate_agent.cli.clients.agent import Agent, LogQuery, Pull
from fargate_agent.cli.clients.ecs import Ecs, parse_task
from fargate_agent.cli.clients.shapes import Replacement, Task, definition_name, task_id
from fargate_agent.cli.connection import DEFAULT_SOCKET, Connection, find_state_dir
from fargate_agent.cli.events.replacements import TITLE, tell_replacements
from fargate_agent.cli.events.stream import Envelope, EventQuery, read_events
from fargate_agent.cli.failure import CliError, NotKnownError
from fargate_agent.cli.layout import Layout
from fargate_agent.cli.output import (
    MIN_WIDTH,
    print_json,
    render_moment,
    render_pair,
    render_status,
    terminal_width,
)
from fargate_agent.cli.tasks.describe import own_reasons, render_end
from fargate_agent.cli.tasks.life import add_life, tell_life
from fargate_agent.cli.why.explain import explain, is_pulling
from fargate_agent.cli.why.explanation import Explanation

_MOMENTS: Final = (
    ("createdAt", "created"),
    ("connectivityAt", "network ready"),
    ("pullStartedAt", "pull begins"),
    ("pullStoppedAt", "pull ends"),
    ("startedAt", "runs"),
    ("executionStoppedAt", "essential end"),
    ("stoppingAt", "stopping"),
    ("stoppedAt", "stopped"),
)
SYSTEMD: Final = Path("/run/systemd/system")
"""A directory where systemd runs. Source: sd_booted(3)."""
_TASK_EVENT: Final = "ECS Task State Change"
_REPLACEMENTS_EVENT: Final = "Fargate Task Replacements"


def show_why(connection: Connection, cluster: str, text: str, *, as_json: bool) -> None:
    """Print why a task is as it is.

    Raises:
        CliError: nothing is known of it.
    """
    task = find_task(connection, cluster, text)
    if is_pulling(task):
        note_retries(task, asyncio.run(_read_pulls(connection, task_id(task))))
    add_life(connection, task)
    note_essential(connection, task)
    explanation = asyncio.run(_check_log(connection, task, explain(task)))
    if as_json:
        print_json(render_document(task, explanation))
        return
    for line in render_why(task, explanation, terminal_width(), datetime.now(UTC)):
        click.echo(line)


def note_essential(connection: Connection, task: Task) -> None:
    """Add to a task's containers which are essential, if its definition can be read."""
    with suppress(CliError):
        essential = Ecs(connection).essential_containers(task["taskDefinitionArn"])
        for container in task.get("containers", []):
            container["essential"] = container["name"] in essential


async def _check_log(connection: Connection, task: Task, explanation: Explanation) -> Explanation:
    """Point at a log only if there is one."""
    if "{agent_log}" in explanation.log:
        place = find_agent_log(connection)
        return replace(explanation, log=explanation.log.format(agent_log=place) if place else "")
    if explanation.log and not await _has_log(connection, task_id(task)):
        return replace(explanation, log="")
    return explanation


async def _has_log(connection: Connection, task: str) -> bool:
    """Whether the agent has a line that a container of the task wrote."""
    async with Agent(connection.agent_socket) as agent:
        with suppress(CliError):
            async for _ in agent.logs(task, LogQuery(tail=1)):
                return True
    return False


def find_agent_log(connection: Connection) -> str:
    """Return where the agent of this connection logs; empty if that isn't known here."""
    if root := find_state_dir({"FARGATE_AGENT_SOCKET": str(connection.agent_socket)}):
        return str(Layout(root).logs / "fargate-agent.log")
    is_service = connection.agent_socket == DEFAULT_SOCKET and SYSTEMD.is_dir()
    return "journalctl -u fargate-agent" if is_service else ""


async def _read_pulls(connection: Connection, task: str) -> list[Pull]:
    """How the pulls of a task stand; of one that another machine's agent has, nothing is known."""
    try:
        async with Agent(connection.agent_socket) as agent:
            return [pull async for pull in agent.progress(task, follow=False)]
    except CliError:
        return []


def note_retries(task: Task, pulls: Iterable[Pull]) -> None:
    """Give each container whose image is being tried again that as its reason."""
    retries = {pull.container: pull.retry for pull in pulls if pull.retry}
    for container in task.get("containers", []):
        if container["name"] in retries:
            container["reason"] = retries[container["name"]]


def find_task(connection: Connection, cluster: str, text: str) -> Task:
    """A task as it stands, or as it was last seen.

    Raises:
        NotKnownError: nothing is known of it any more.
        CliError: several begin so.
    """
    ecs = Ecs(connection)
    try:
        cluster, task = ecs.find_task(cluster, text)
        return ecs.describe_one(cluster, task)
    except NotKnownError as error:
        cluster, task = parse_task(cluster, text) or (cluster, text)
        found = asyncio.run(_read_history(connection, cluster, task)) if task else {}
        if not found:
            raise NotKnownError(f"{error}, nor is it in the history") from error
    if len(found) > 1:
        raise CliError(f"{len(found)} tasks begin with {text!r}: {', '.join(sorted(found)[:3])}")
    return next(iter(found.values()))


async def _read_history(connection: Connection, cluster: str, task: str) -> dict[str, Task]:
    """The last state of each task whose id begins so."""
    found: dict[str, Task] = {}
    replaced: defaultdict[str, list[Replacement]] = defaultdict(list)
    query = EventQuery(cluster=cluster, task=task)
    async for envelope in read_events(connection, query, lambda _: None):
        if envelope.get("detail-type") == _TASK_EVENT:
            last = parse_event(envelope)
            found[task_id(last)] = last
        elif envelope.get("detail-type") == _REPLACEMENTS_EVENT:
            detail = envelope["detail"]
            replaced[detail["taskArn"].rpartition("/")[2]] += detail["replacements"]
    for known, last in found.items():
        if known in replaced:
            last["replacements"] = replaced[known]
    return found


def parse_event(envelope: Envelope) -> Task:
    """The task that an event is about, as DescribeTasks would answer it."""
    detail: dict[str, Any] = envelope["detail"]
    return cast(
        Task,
        {
            member: datetime.fromisoformat(value) if member.endswith("At") else value
            for member, value in detail.items()
        },
    )


def render_document(task: Task, explanation: Explanation) -> dict[str, Any]:
    """The answer for programs."""
    return {
        "explanation": explanation.what,
        "advice": " ".join(filter(None, (explanation.advice, explanation.log))),
        "timeline": [
            {"what": label, "at": moment, "secondsLater": round(later_s, 3)}
            for label, moment, later_s in _timeline(task)
        ],
        "replacements": task.get("replacements", []),
        "task": task,
    }


def render_why(task: Task, explanation: Explanation, width: int, now: datetime) -> list[str]:
    """Lines that say what became of a task, what that means, and when what happened."""
    width = max(width, MIN_WIDTH)
    lines = textwrap.wrap(explanation.what, width)
    for text in (explanation.advice, explanation.log):
        lines += textwrap.wrap(text, width, break_long_words=False)
    lines.append("")
    for label, text in _facts(task, now):
        lines += render_pair(label, text, width)
    if told := list(tell_replacements(task.get("replacements", []))):
        lines += ["", TITLE]
        for line in told:
            lines += textwrap.wrap(
                line, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False
            )
    lines.append("")
    for label, moment, later_s in _timeline(task):
        ago = f"+{_render_s(later_s)}" if label != "created" else render_moment(moment, now)
        lines += render_pair(label, ago, width)
    return lines


def _facts(task: Task, now: datetime) -> Iterator[tuple[str, str]]:
    yield "task", task_id(task)
    yield "definition", definition_name(task)
    status, desired = task.get("lastStatus", "-"), task.get("desiredStatus", "-")
    wanted = "" if status == desired else f" (wanted: {desired})"
    yield "status", render_status(status) + wanted
    if "stoppedReason" in task:
        yield "reason", render_end(task)
    reasons = own_reasons(task)
    for container in task.get("containers", []):
        told = [render_status(container.get("lastStatus", "-"))]
        if "exitCode" in container:
            told.append(f"exit code {container['exitCode']}")
        if reason := reasons.get(container["name"]):
            told.append(reason)
        yield container["name"], ", ".join(told)
        yield from tell_life(container, now)


def _timeline(task: Task) -> list[tuple[str, datetime, float]]:
    """What happened, when, and how many seconds after what was before it."""
    facts = cast(dict[str, Any], task)
    moments = [(facts[name], label) for name, label in _MOMENTS if facts.get(name) is not None]
    moments.sort(key=lambda moment: moment[0])  # of equal times the order of the list
    befores = [moments[0][0], *(moment for moment, _ in moments)] if moments else []
    return [
        (label, moment, (moment - before).total_seconds())
        for (moment, label), before in zip(moments, befores, strict=False)
    ]


def _render_s(seconds: float) -> str:
    """A duration for people.

    Example:
        >>> _render_s(3725), _render_s(0.25)
        ('1h 2m 5s', '0.25 s')
    """
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m {rest}s" if hours else f"{minutes}m {rest}s"
