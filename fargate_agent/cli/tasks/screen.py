"""How a task that is followed looks: lines and bars for a person, JSON lines for a program.

What containers write goes where they wrote it, to stdout or stderr; what is said about them goes to
stderr.
"""

import sys
import time
from collections.abc import Sequence
from typing import Protocol

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
)
from rich.table import Column

from fargate_agent.cli.clients.agent import LogLine, Pull
from fargate_agent.cli.clients.shapes import Task, task_id
from fargate_agent.cli.logs.printer import LogPrinter, render_log
from fargate_agent.cli.output import (
    SHORT_ID_CHARS,
    one_line,
    print_json_line,
    render_bytes,
    render_status,
    wants_colours,
)
from fargate_agent.cli.tasks.describe import render_end


class Screen(Protocol):
    """Shows one task that is followed."""

    def note(self, text: str) -> None:
        """Say something that the reader should know."""
        ...

    def status(self, task: Task) -> None:
        """The task has another status."""
        ...

    def pull(self, pull: Pull) -> None:
        """A pull has come further."""
        ...

    def end_pulls(self) -> None:
        """There will be no more pulls. May be said twice."""
        ...

    def log(self, line: LogLine) -> None:
        """A container has written a line."""
        ...

    def end(self, task: Task, exit_code: int, ended: Sequence[str]) -> None:
        """The task has stopped; `ended` are its containers in the order in which they ended."""
        ...


class JsonScreen(Screen):
    """One JSON document per line, all of it on stdout."""

    def note(self, text: str) -> None:
        print_json_line({"type": "note", "text": text})

    def status(self, task: Task) -> None:
        print_json_line({"type": "status", "task": task_id(task), "status": task.get("lastStatus")})

    def pull(self, pull: Pull) -> None:
        print_json_line(
            {
                "type": "pull",
                "container": pull.container,
                "image": pull.image,
                "fetchedBytes": pull.fetched_bytes,
                "totalBytes": pull.total_bytes,
                "unpackedLayers": pull.unpacked_layers,
                "totalLayers": pull.total_layers,
                "retry": pull.retry,
                "done": pull.done,
            }
        )

    def end_pulls(self) -> None:
        pass

    def log(self, line: LogLine) -> None:
        print_json_line({"type": "log", **render_log(line)})

    def end(self, task: Task, exit_code: int, ended: Sequence[str]) -> None:
        print_json_line({"type": "end", "exitCode": exit_code, "task": task})


class TextScreen(Screen):
    """Lines; pulls as bars where stderr is a terminal."""

    def __init__(self, log: LogPrinter) -> None:
        """Show the lines of containers by `log`."""
        self._log = log
        self._pulls: _PullBars | _PullLines = _PullBars() if sys.stderr.isatty() else _PullLines()

    def note(self, text: str) -> None:
        click.echo(text, err=True)

    def status(self, task: Task) -> None:
        if task.get("lastStatus") == "STOPPED":  # `end` says it, after the last line of output
            return
        status = render_status(task.get("lastStatus", "-"))
        click.echo(f"task {task_id(task)[:SHORT_ID_CHARS]}: {status}", err=True)

    def pull(self, pull: Pull) -> None:
        self._pulls.show(pull)

    def end_pulls(self) -> None:
        self._pulls.close()

    def log(self, line: LogLine) -> None:
        self._log.show(line)

    def end(self, task: Task, exit_code: int, ended: Sequence[str]) -> None:
        self.end_pulls()
        position = {name: place for place, name in enumerate(ended)}
        said: list[str] = []
        for container in sorted(
            task.get("containers", []), key=lambda one: position.get(one["name"], len(position))
        ):
            told = f"{container['name']}: "
            told += f"exit code {container['exitCode']}" if "exitCode" in container else "not run"
            reason = one_line(container.get("reason", ""))
            if reason and reason not in said:
                told += f", {reason}"
                said.append(reason)
            self.note(told)
        reason = one_line(task.get("stoppedReason", ""))
        end = task.get("stopCode", "") if reason in said else render_end(task)
        self.note(f"task {task_id(task)[:SHORT_ID_CHARS]} stopped: {end}")


class _PullLines:
    """One line when a pull begins, one for each further try, and one when it ends."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}
        self._retries: dict[str, str] = {}
        self._done: set[str] = set()

    def show(self, pull: Pull) -> None:
        if pull.image not in self._begun:
            self._begun[pull.image] = time.monotonic()
            if not pull.done:
                click.echo(f"pulling {pull.image}", err=True)
        if pull.retry != self._retries.get(pull.image, ""):
            self._retries[pull.image] = pull.retry
            if pull.retry:
                click.echo(f"{pull.image}: {pull.retry}", err=True)
        if pull.done and pull.image not in self._done:
            self._done.add(pull.image)
            click.echo(self._render_done(pull), err=True)

    def close(self) -> None:
        pass

    def _render_done(self, pull: Pull) -> str:
        if not pull.fetched_bytes:
            return f"{pull.image} is here already"
        size = render_bytes(pull.fetched_bytes)
        elapsed_s = time.monotonic() - self._begun[pull.image]
        return f"pulled {pull.image}: {size} in {elapsed_s:.1f} s, {_render_rate(pull, elapsed_s)}"


class _PullBars:
    """One bar per image, with bytes and rate, and a line above for each further try.

    The bars stay on the screen when they are full.
    """

    def __init__(self) -> None:
        self._retries: dict[str, str] = {}
        self._progress: Progress | None = None
        self._begun: dict[str, float] = {}
        self._bars: dict[str, TaskID] = {}

    def show(self, pull: Pull) -> None:
        progress = self._open()
        begun = self._begun.setdefault(pull.image, time.monotonic())
        if pull.image not in self._bars:
            self._bars[pull.image] = progress.add_task(pull.image, total=None, size="", rate="")
        if pull.retry != self._retries.get(pull.image, ""):
            self._retries[pull.image] = pull.retry
            if pull.retry:
                progress.console.out(f"{pull.image}: {pull.retry}", highlight=False)
        total = pull.total_bytes or (1 if pull.done else None)
        progress.update(
            self._bars[pull.image],
            completed=total if pull.done else pull.fetched_bytes,
            total=total,
            size=_render_size(pull),
            rate=_render_rate(pull, time.monotonic() - begun) if pull.fetched_bytes else "",
        )

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _open(self) -> Progress:
        if self._progress is None:
            name = Column(ratio=1, no_wrap=True, overflow="ellipsis")
            self._progress = Progress(
                TextColumn("{task.description}", markup=False, table_column=name),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[size]}"),
                TextColumn("{task.fields[rate]}"),
                console=Console(stderr=True, color_system="auto" if wants_colours() else None),
                redirect_stdout=False,
                expand=True,
            )
            self._progress.start()
        return self._progress


def _render_size(pull: Pull) -> str:
    """How much of an image has come; of one that is on this machine there are no bytes to tell."""
    if pull.total_bytes:
        return f"{render_bytes(pull.fetched_bytes)}/{render_bytes(pull.total_bytes)}"
    if pull.done:
        return "is here already"
    return f"{pull.unpacked_layers}/{pull.total_layers} layers" if pull.total_layers else ""


def _render_rate(pull: Pull, elapsed_s: float) -> str:
    return f"{render_bytes(pull.fetched_bytes / max(elapsed_s, 0.001))}/s"
