"""`fargate-agent`: arguments, logging, and the loop that runs the daemon."""

import argparse
import asyncio
import ctypes
import logging
import os
import sys
import tomllib
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from fargate_agent import __version__
from fargate_agent.daemon import AgentError, serve
from fargate_agent.settings import AgentSettings, read_agent_settings
from fargate_agent.task.runner import current_task
from fargate_agent.wire.faults import render_faults

DEFAULT_CONFIG: Final = Path("/etc/fargate/agent.toml")

M_ARENA_MAX: Final = -8
"""How many heaps malloc keeps. Threads take turns in Python, so one is enough, and returns more of
what was used. Source: glibc, malloc.h; mallopt(3)."""


class _TaskFormatter(logging.Formatter):
    """Adds the id of the task that the line is about."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        task_id = current_task.get()
        return f"[{task_id[:12]}] {line}" if task_id else line


def main() -> None:
    """Run the agent until SIGTERM; tasks go on without it."""
    parser = argparse.ArgumentParser(prog="fargate-agent", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get("FARGATE_AGENT_CONFIG", DEFAULT_CONFIG)),
        help="settings file (default: %(default)s); the environment wins over it",
    )
    arguments = parser.parse_args()
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    settings = _read_settings(arguments.config)
    _configure_logging(settings.log_level)
    try:
        asyncio.run(serve(settings))
    except AgentError as error:
        sys.exit(f"fargate-agent: {error}")


def _read_settings(config: Path) -> AgentSettings:
    try:
        return read_agent_settings(config)
    except tomllib.TOMLDecodeError as error:
        sys.exit(f"fargate-agent: {config}: {error}")
    except OSError as error:
        sys.exit(f"fargate-agent: {config}: {error.strerror}")
    except ValidationError as error:
        sys.exit(f"fargate-agent: {config} or FARGATE_AGENT_*: {render_faults(error)}")


def _configure_logging(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _TaskFormatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("fargate_agent").setLevel(level.upper())


if __name__ == "__main__":
    main()
