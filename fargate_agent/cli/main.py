"""`fargate`: runs a command, and turns what went wrong into one line and an exit code."""

import contextlib
import os
import sys
from typing import Final

import click

from fargate_agent.cli.commands import fargate
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.output import wants_colours

FAILED: Final = 1
MISUSED: Final = 2
INTERRUPTED: Final = 130
"""128 + SIGINT, as shells have it."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command, and return the exit code of the program."""
    try:
        # None: a terminal gets colours, a pipe none
        color = None if wants_colours() else False
        code = fargate.main(arguments, prog_name="fargate", standalone_mode=False, color=color)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has had enough, as `head` does
        _silence_stdout()
        return FAILED
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return MISUSED
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except (CliError, click.ClickException, OSError) as error:
        with contextlib.suppress(OSError):
            click.echo(f"fargate: {' '.join(_explain(error).split())}", err=True)
        return MISUSED if isinstance(error, click.UsageError) else FAILED
    return code if isinstance(code, int) else 0


def _explain(error: CliError | click.ClickException | OSError) -> str:
    match error:
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "fargate"
            return f"{error.format_message()} (see {command} --help)"
        case click.ClickException():
            return error.format_message()
        case OSError(filename=str() as file):
            return f"{file}: {error.strerror}"
        case _:
            return str(error)


def _silence_stdout() -> None:
    """Keep the interpreter from complaining when it flushes what nobody reads."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
