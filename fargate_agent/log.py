"""The agent's log: each line knows the task and the container that it is about."""

import logging

from fargate_agent.systemd import make_handler
from fargate_agent.task.life import current_container
from fargate_agent.task.runner import current_task


def configure_logging(program: str, level: str) -> None:
    """Log to the journal where that listens, to stderr elsewhere."""
    handler = make_handler(
        program,
        _TaskFormatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S%z"),
        _journal_fields,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("fargate_agent").setLevel(level.upper())


def _journal_fields(record: logging.LogRecord) -> dict[str, str]:
    """What `journalctl FARGATE_TASK=…` looks for; a line may name what its coroutine doesn't."""
    return {
        "FARGATE_TASK": getattr(record, "task", "") or current_task.get(),
        "FARGATE_CONTAINER": getattr(record, "container", "") or current_container.get(),
    }


class _TaskFormatter(logging.Formatter):
    """Adds the id of the task that the line is about."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        task_id = current_task.get()
        return f"[{task_id[:12]}] {line}" if task_id else line
