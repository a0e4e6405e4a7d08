"""`fargate-agent`: arguments, logging, and the loop that runs the daemon."""

import argparse
import asyncio
import ctypes
import faulthandler
import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from fargate_agent import __version__
from fargate_agent.preconditions import AgentError, NotNowError, check_settings, read_for_start
from fargate_agent.settings import CONFIG_VARIABLE, AgentSettings, read_agent_settings
from fargate_agent.settings_file import SettingsError
from fargate_agent.systemd import Notifier, complain

PROGRAM: Final = "fargate-agent"
DEFAULT_CONFIG: Final = Path("/etc/fargate/agent.toml")

_AGENT: Final = "Run the Fargate agent: start and stop the tasks that the control plane sends."
_PLAN: Final = (
    "Print the steps of a task message without doing them. The file holds a task message, a "
    "PayloadMessage, or the agent's record of a task. Neither root nor containerd is needed."
)

_LOOK: Final = (
    "Print what this machine lacks for tasks, as JSON; changes nothing. `fargate doctor` shows it "
    "where no agent runs. Without root not everything can be looked at."
)

M_ARENA_MAX: Final = -8
"""How many heaps malloc keeps. Threads take turns in Python, so one is enough, and returns more of
what was used. Source: glibc, malloc.h; mallopt(3)."""


def main() -> None:
    """Run the agent until SIGTERM; tasks go on without it."""
    arguments = _parse_arguments()
    faulthandler.enable()  # shows where it hangs when the watchdog's SIGABRT ends it
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    _raise_file_limit()
    notifier = Notifier.from_environment()
    try:
        file = _find_config(arguments.config)
        if arguments.check:
            check_settings(file)
            return
        if arguments.command == "look":
            _print_look(read_agent_settings(file).settings)
            return
        if arguments.command == "plan":
            _print_plan(arguments.message, read_agent_settings(file).complete())
            return
        settings = read_for_start(file)
        # many modules, which a look at the settings doesn't need
        from fargate_agent.daemon import serve
        from fargate_agent.log import configure_logging

        configure_logging(PROGRAM, settings.log_level)
        read_again = partial(check_settings, file)
        ended_by = asyncio.run(serve(settings, notifier, read_again))
    except (SettingsError, AgentError) as error:
        complain(PROGRAM, str(error))
        notifier.status(str(error))
        sys.exit(os.EX_TEMPFAIL if isinstance(error, NotNowError) else os.EX_CONFIG)
    if ended_by is signal.SIGHUP:
        _begin_anew()


def _raise_file_limit() -> None:
    """Have as many files open as may be: each task has some sockets, and a shell gives 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=_AGENT)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"settings file (default: {DEFAULT_CONFIG}); the environment wins over it",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="only read the settings, and say what is wrong with them",
    )
    commands = parser.add_subparsers(dest="command", title="commands", metavar="[COMMAND]")
    plan = commands.add_parser(
        "plan", help="print the steps of a task message without doing them", description=_PLAN
    )
    commands.add_parser(
        "look", help="print what this machine lacks for tasks, as JSON", description=_LOOK
    )
    plan.add_argument("message", type=Path, metavar="MESSAGE.JSON", help="a file; - is stdin")
    return parser.parse_args()


def _print_look(settings: AgentSettings) -> None:
    # many modules, which only this command and the daemon need
    from fargate_agent.machine.look import look

    found = [asdict(finding) for finding in look(settings)]
    sys.stdout.write(json.dumps({"findings": found}) + "\n")


def _print_plan(message: Path, settings: AgentSettings) -> None:
    # modules that a look at the settings doesn't need
    from fargate_agent.dry_run import MessageError, print_steps
    from fargate_agent.site import make_site

    try:
        print_steps(message, make_site(settings))
    except MessageError as error:
        complain(PROGRAM, str(error))
        sys.exit(os.EX_DATAERR)


def _find_config(asked_for: Path | None) -> Path:
    """Return the settings file; only the one that nobody asked for may be missing.

    Raises:
        SettingsError: the one that was asked for isn't there.
    """
    if asked_for is None and (named := os.environ.get(CONFIG_VARIABLE)):
        asked_for = Path(named)
    if asked_for is not None and not asked_for.exists():
        raise SettingsError(f"{asked_for}: no such file")
    return asked_for or DEFAULT_CONFIG


def _begin_anew() -> None:
    """Put a new agent into this process, with all that is on disk now: settings and programs."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new one listens to it
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - as this process was started


if __name__ == "__main__":
    main()
