"""`fargate events`: what has happened, and what happens."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import click

from fargate_agent.cli.connection import Connection
from fargate_agent.cli.events.stream import Envelope, EventQuery, read_events
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.output import SHORT_ID_CHARS, one_line, print_json_line, render_status
from fargate_agent.cli.since import parse_since


def plan_query(
    task: str | None, since: str | None, *, cluster: str | None, follow: bool
) -> EventQuery:
    """Which events the options of the command line mean.

    Raises:
        CliError: `since` is no time, or `task` names none.
    """
    moment = parse_since(since, datetime.now(UTC))
    task_id = None if task is None else task.rpartition("/")[2]
    if task_id == "":  # would mean every task
        raise CliError(f"--task {task!r}: names no task")
    return EventQuery(
        follow=follow,
        since=None if moment is None else datetime.fromisoformat(moment),
        cluster=cluster,
        task=task_id,
    )


def show_events(connection: Connection, query: EventQuery, *, as_json: bool) -> None:
    """Print events, a line for each; with `follow`, until Ctrl-C.

    Raises:
        CliError: the control plane can't be reached, or refuses.
    """
    teller = EventTeller()

    async def show() -> None:
        async for envelope in read_events(connection, query, _note):
            if as_json:
                print_json_line(envelope)
            else:
                click.echo(teller.render(envelope))

    asyncio.run(show())


class EventTeller:
    """Renders events. What the last event of a task has said the next ones don't say again."""

    def __init__(self) -> None:
        self._said: dict[str, set[str]] = {}

    def render(self, envelope: Envelope) -> str:
        """An event as one line: when, what it is about, and what became of it."""
        subject = _subject(envelope)
        said = self._said.setdefault(subject, set())
        line = _render_event(envelope, said)
        if envelope["detail"].get("lastStatus", "STOPPED") == "STOPPED":
            del self._said[subject]
        return line


def _render_event(envelope: Envelope, said: set[str]) -> str:
    detail = envelope["detail"]
    before = f"{_moment(envelope)}  {_subject(envelope)[:SHORT_ID_CHARS]:{SHORT_ID_CHARS}}"
    if "lastStatus" not in detail:
        told = [detail.get("eventName"), detail.get("reason")]
        return "  ".join([before, one_line(": ".join(filter(None, told)) or _kind(envelope))])
    definition = str(detail.get("taskDefinitionArn", "")).rpartition("/")[2]
    text = f"{before}  {definition}  {render_status(detail['lastStatus'])}"
    about = [one_line(told) for told in _about(detail)]
    new = [told for told in about if told not in said]
    said.update(about)
    return f"{text}  {', '.join(new)}" if new else text


def _about(detail: dict[str, Any]) -> list[str]:
    """What the status doesn't say by itself."""
    told = []
    if detail["lastStatus"] != "STOPPED" and detail.get("desiredStatus") == "STOPPED":
        told.append("is to stop")
    if detail.get("connectivity") == "DISCONNECTED" and detail["lastStatus"] != "STOPPED":
        told.append("nothing is heard of its agent")
    if reason := detail.get("stoppedReason"):
        told.append(f"{reason} ({detail['stopCode']})" if "stopCode" in detail else reason)
    told += [
        f"{container['name']}: exit code {container['exitCode']}"
        for container in detail.get("containers", [])
        if container.get("exitCode")
    ]
    return told


def _moment(envelope: Envelope) -> str:
    detail = envelope["detail"]
    exact = detail.get("updatedAt") if "lastStatus" in detail else detail.get("createdAt")
    return str(exact or envelope["time"])


def _subject(envelope: Envelope) -> str:
    resources = envelope.get("resources") or ["-"]
    return str(resources[0]).rpartition("/")[2]


def _kind(envelope: Envelope) -> str:
    return str(envelope.get("detail-type", ""))


def _note(text: str) -> None:
    click.echo(text, err=True)
