"""Where the control plane and the agent are, and with which key to speak to them.

Of several sources the first that says something wins: the state directory named on the command
line, the environment, the stack in the default state directory, the defaults. Endpoint and key
belong together and come from one source: a key of another account would only be refused.
"""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fargate_agent.cli.failure import CliError, NotKnownError

DEFAULT_STATE_DIR: Final = Path("/var/lib/fargate")
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
) -> Connection:
    """Find out where to speak to.

    Raises:
        CliError: `state_dir` was named, and holds no stack that is ready; or the settings of a
            stack are there and can't be read.
    """
    if state_dir is not None:
        return _connection(read_env(state_dir))
    endpoint = _endpoint(environ)
    try:
        stack = read_env(default_state_dir)
    except NotKnownError:
        stack = {}
    except CliError:
        if endpoint is None:
            raise
        stack = {}
    if endpoint is None and not stack:
        return _connection({"AWS_ENDPOINT_URL_ECS": DEFAULT_ENDPOINT, **environ})
    if endpoint is None:
        socket = {key: environ[key] for key in ("FARGATE_AGENT_SOCKET",) if key in environ}
        return _connection({**stack, **socket})
    if endpoint == _endpoint(stack):
        return _connection({**stack, **environ})
    return _connection(environ)


def read_env(state_dir: Path) -> dict[str, str]:
    """Read the variables that `fargate up` wrote when it was ready.

    Raises:
        NotKnownError: there is no such file.
        CliError: it can't be read.
    """
    file = state_dir / "env"
    try:
        return parse_env(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise NotKnownError(
            f"no stack is ready in {state_dir}: start one with"
            f' "fargate up{state_dir_option(state_dir)}"'
        ) from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise CliError(f"{file}: {what}") from error


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
