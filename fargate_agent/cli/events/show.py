"""`fargate events`: what has happened, and what happens."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from fargate_agent.cli.connection import Connection
from fargate_agent.cli.events.replacements import TITLE, tell_replacements
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
        self._said: dict[str, list[str]] = {}

    def render(self, envelope: Envelope) -> str:
        """An event as one line: when, what it is about, and what became of it."""
        subject = _subject(envelope)
        about = [one_line(told) for told in _about(envelope["detail"])]
        said = self._said.pop(subject, [])
        line = _render_event(envelope, [told for told in about if told not in said])
        if envelope["detail"].get("lastStatus", "STOPPED") != "STOPPED":
            self._said[subject] = about
        return line


def _render_event(envelope: Envelope, news: list[str]) -> str:
    detail = envelope["detail"]
    before = f"{_moment(envelope)}  {_subject(envelope)[:SHORT_ID_CHARS]:{SHORT_ID_CHARS}}"
    if "replacements" in detail:
        return f"{before}  {TITLE}: {'; '.join(tell_replacements(detail['replacements']))}"
    if "lastStatus" not in detail:
        told = [detail.get("eventName"), detail.get("reason")]
        return "  ".join([before, one_line(": ".join(filter(None, told)) or _kind(envelope))])
    definition = str(detail.get("taskDefinitionArn", "")).rpartition("/")[2]
    text = f"{before}  {definition}  {render_status(detail['lastStatus'])}"
    return f"{text}  {', '.join(news)}" if news else text


def _about(detail: dict[str, Any]) -> list[str]:
    """What the status of a task doesn't say by itself."""
    if "lastStatus" not in detail:
        return []
    told = []
    if detail["lastStatus"] != "STOPPED" and detail.get("desiredStatus") == "STOPPED":
        told.append("is to stop")
    if detail.get("connectivity") == "DISCONNECTED" and detail["lastStatus"] != "STOPPED":
        told.append("nothing is heard of its agent")
    if reason := detail.get("stoppedReason"):
        told.append(f"{reason} ({detail['stopCode']})" if "stopCode" in detail else reason)
    for container in detail.get("containers", []):
        told += [f"{container['name']}: {fact}" for fact in _about_container(container)]
    return told


def _about_container(container: dict[str, Any]) -> Iterator[str]:
    if container.get("healthStatus", "UNKNOWN") != "UNKNOWN":
        yield container["healthStatus"].lower()
    if count := container.get("restartCount"):
        yield "restarted once" if count == 1 else f"restarted {count} times"
    if container.get("exitCode"):
        yield f"exit code {container['exitCode']}"


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
