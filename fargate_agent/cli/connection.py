"""Where the control plane and the agent are, and with which key to speak to them.

Of several sources the first that says something wins: the state directory named on the command
line, the environment, the stack in the default state directory, the services that were installed on
this machine, the defaults. Endpoint and key belong together and come from one source: a key of
another account would only be refused.
"""

import grp
import os
import shlex
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from fargate_agent.cli.failure import CliError, NotKnownError
from fargate_agent.cli.layout import Layout

DEFAULT_STATE_DIR: Final = Path("/var/lib/fargate")
INSTALLED_ENV: Final = Path("/etc/fargate/env")
"""What `make install` wrote for the services of this machine."""
DEFAULT_ENDPOINT: Final = "http://127.0.0.1:51680"
DEFAULT_REGION: Final = "us-east-1"
DEFAULT_SOCKET: Final = Path("/run/fargate-agent/agent.sock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach one control plane and its agent."""

    endpoint: str
    region: str = DEFAULT_REGION
    access_key_id: str | None = None
    """None leaves the search for credentials to botocore."""
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    agent_socket: Path = DEFAULT_SOCKET


def read_connection(
    state_dir: Path | None,
    environ: Mapping[str, str] = os.environ,
    default_state_dir: Path = DEFAULT_STATE_DIR,
    installed: Path = INSTALLED_ENV,
) -> Connection:
    """Find out where to speak to.

    Raises:
        CliError: `state_dir` was named, and holds no stack that is ready; or the variables of a
            stack are there and can't be read.
    """
    if state_dir is not None:
        return _connection(_read_file(state_dir / "env") or _not_ready(state_dir))
    endpoint = _endpoint(environ)
    stack = _find_stack((default_state_dir / "env", installed), endpoint)
    if endpoint is not None:
        return _connection({**stack, **environ})
    if not stack:
        return _connection({"AWS_ENDPOINT_URL_ECS": DEFAULT_ENDPOINT, **environ})
    socket = {key: environ[key] for key in ("FARGATE_AGENT_SOCKET",) if key in environ}
    return _connection({**stack, **socket})


def find_state_dir(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the state directory of the stack that the environment leads to; None if to none."""
    socket = Path(environ.get("FARGATE_AGENT_SOCKET") or "/")
    layout = Layout(socket.parent.parent)
    is_stack = socket == layout.agent_socket and os.access(layout.env, os.F_OK)
    return layout.root if is_stack else None


def read_env(
    state_dir: Path | None,
    environ: Mapping[str, str] = os.environ,
    default_state_dir: Path = DEFAULT_STATE_DIR,
    installed: Path = INSTALLED_ENV,
) -> dict[str, str]:
    """Read the variables of a stack: that one, the one of the environment, else the first found.

    Raises:
        NotKnownError: none is ready.
        CliError: they can't be read.
    """
    state_dir = state_dir or find_state_dir(environ)
    if state_dir is not None:
        return _read_file(state_dir / "env") or _not_ready(state_dir)
    found = _find_stack((default_state_dir / "env", installed), None)
    return found or _not_ready(default_state_dir)


def _find_stack(files: Iterable[Path], endpoint: str | None) -> dict[str, str]:
    """The variables of the first stack, or of the one at this endpoint; nothing if there is none.

    Raises:
        CliError: they can't be read, and nothing else says where to speak to.
    """
    for file in files:
        try:
            values = _read_file(file)
        except CliError:
            if endpoint is None:
                raise
            continue
        if values and endpoint in (None, _endpoint(values)):
            return values
    return {}


def _read_file(file: Path) -> dict[str, str]:
    """The variables in a file; nothing if there is no such file."""
    try:
        return parse_env(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except PermissionError:
        raise CliError(f"{file}: {_explain_refusal(file)}") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise CliError(f"{file}: {what}") from error


def _explain_refusal(file: Path) -> str:
    """What to do about a file that may not be read: be root, or of its group if that may."""
    with suppress(OSError, KeyError):
        status = file.stat()
        if status.st_mode & stat.S_IRGRP and status.st_gid != 0:
            group = grp.getgrgid(status.st_gid).gr_name
            return (
                f"only root and the group {group} may read it: use sudo, or join the group"
                f" (usermod -aG {group} USER) and log in again"
            )
    return "only root may read it: use sudo"


def _not_ready(state_dir: Path) -> NoReturn:
    raise NotKnownError(
        f"no stack is ready in {state_dir}: start one with"
        f' "fargate up{state_dir_option(state_dir)}"'
    )


def state_dir_option(state_dir: Path) -> str:
    """What to add to a command line to mean this state directory; empty for the default one."""
    return "" if state_dir == DEFAULT_STATE_DIR else f" --state-dir {shlex.quote(str(state_dir))}"


def parse_env(text: str) -> dict[str, str]:
    """Take a shell file of `export NAME=VALUE` lines apart.

    Raises:
        ValueError: a line is something else.

    Example:
        >>> parse_env("export AWS_REGION='us-east-1'")
        {'AWS_REGION': 'us-east-1'}
    """
    values = {}
    for number, line in enumerate(text.splitlines(), start=1):
        match shlex.split(line, comments=True):
            case []:
                continue
            case ["export", assignment] if "=" in assignment:
                name, _, value = assignment.partition("=")
                values[name] = value
            case _:
                raise ValueError(f"line {number} is not an export")
    return values


def render_env(values: Mapping[str, str]) -> str:
    """Write variables as a shell file."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def _endpoint(values: Mapping[str, str]) -> str | None:
    return values.get("AWS_ENDPOINT_URL_ECS") or values.get("AWS_ENDPOINT_URL") or None


def _connection(values: Mapping[str, str]) -> Connection:
    return Connection(
        endpoint=_endpoint(values) or DEFAULT_ENDPOINT,
        region=values.get("AWS_REGION") or values.get("AWS_DEFAULT_REGION") or DEFAULT_REGION,
        access_key_id=values.get("AWS_ACCESS_KEY_ID"),
        secret_access_key=values.get("AWS_SECRET_ACCESS_KEY"),
        session_token=values.get("AWS_SESSION_TOKEN"),
        agent_socket=Path(values.get("FARGATE_AGENT_SOCKET") or DEFAULT_SOCKET),
    )
