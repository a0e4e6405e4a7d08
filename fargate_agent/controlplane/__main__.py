"""`fargate-control-plane`: arguments, logging, signals."""

import argparse
import asyncio
import faulthandler
import logging
import os
import sys
from pathlib import Path
from typing import Final

from fargate_agent.controlplane.errors import NotNowError, StartError
from fargate_agent.controlplane.setting_faults import check_settings
from fargate_agent.controlplane.settings import read_settings
from fargate_agent.systemd import Notifier, complain, make_handler

PROGRAM: Final = "fargate-control-plane"
PRIVATE_UMASK: Final = 0o077
"""Keys and the environment of tasks are nobody else's to read."""


def main() -> None:
    """Run until SIGTERM or SIGINT; what keeps it from starting is said in one line."""
    arguments = _parse_arguments()
    os.umask(PRIVATE_UMASK)
    faulthandler.enable()  # shows where it hangs when the watchdog's SIGABRT ends it
    notifier = Notifier.from_environment()
    try:
        if arguments.check:
            check_settings(arguments.config, arguments.listen)
            return
        settings = read_settings(arguments.config, arguments.listen)
        configure_logging(settings.log_level)
        # many modules, which a look at the settings doesn't need
        from fargate_agent.controlplane.server import prepare, serve_until_signal

        with prepare(settings) as keys:
            asyncio.run(serve_until_signal(settings, keys, _say_ready, notifier))
    except StartError as error:
        complain(PROGRAM, str(error))
        notifier.status(str(error))
        sys.exit(os.EX_TEMPFAIL if isinstance(error, NotNowError) else os.EX_CONFIG)


def configure_logging(level: str) -> None:
    """Log to the journal where that listens, to stderr elsewhere.

    Lines of libraries are warnings at least: botocore's for debugging have the keys' tokens.
    """
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    logging.basicConfig(level=logging.WARNING, handlers=[make_handler(PROGRAM, plain)])
    logging.getLogger("fargate_agent").setLevel(level.upper())


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Speaks the ECS API to clients, and hands their tasks to agents.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file")
    parser.add_argument("--listen", metavar="URL", help="http://HOST:PORT; port 0 takes a free one")
    parser.add_argument(
        "--check",
        action="store_true",
        help="only read the settings, and say what is wrong with them",
    )
    return parser.parse_args()


def _say_ready(url: str) -> None:
    sys.stdout.write(f"ready {url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
