"""The files that follow from the control plane's keys, made at its first start.

    <state>/keys.toml ─► agent-key.toml (root: the agent reads it)
                      └► env (group fargate: the command line reads it, and `fargate env` prints it)

May be repeated: files that are right are left alone, others are written anew.
"""

import grp
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.cli.connection import render_env
from fargate_agent.cli.failure import CliError
from fargate_agent.cli.stack.keys import Key, parse_keys
from fargate_agent.cli.stack.ports import client_url, parse_listen
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.files import replace_file

GROUP: Final = "fargate"
"""Who may use the command line."""


def write_client_files(
    directory: Path, control_plane: ControlPlaneSettings, agent_socket: Path, group: str = GROUP
) -> list[Path]:
    """Write the agent's key and the variables of clients; return those that were not right.

    Raises:
        CliError: the control plane has no keys yet, or they make no sense; there is no such group.
    """
    keys = _read_keys(control_plane.keys_path)
    try:
        group_id = grp.getgrnam(group).gr_gid
    except KeyError:
        raise CliError(f"there is no group {group}") from None
    env = _client_env(_endpoint(control_plane), control_plane.region, keys["admin"], agent_socket)
    key_file, env_file = directory / "agent-key.toml", directory / "env"
    written = {
        key_file: _ensure_file(key_file, _render_agent_key(keys["agent"]), 0o600, os.getegid()),
        env_file: _ensure_file(env_file, render_env(env), 0o640, group_id),
    }
    return [file for file, is_new in written.items() if is_new]


def _read_keys(file: Path) -> Mapping[str, Key]:
    try:
        keys = parse_keys(file.read_text())
    except FileNotFoundError:
        raise CliError(f"{file}: not there; the control plane makes it when it starts") from None
    except ValueError as error:
        raise CliError(f"{file}: {error}") from error
    if missing := {"admin", "agent"} - keys.keys():
        raise CliError(f'{file}: no key with principal = "{min(missing)}"')
    return keys


def _endpoint(control_plane: ControlPlaneSettings) -> str:
    """Where clients on this machine find the control plane."""
    _, port = parse_listen(control_plane.listen)
    if port:
        return client_url(control_plane.listen)
    return client_url((control_plane.state_dir / "endpoint").read_text().strip())


def _client_env(endpoint: str, region: str, key: Key, agent_socket: Path) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_ECS": endpoint,
        "AWS_ENDPOINT_URL_EC2": endpoint,
        "AWS_ENDPOINT_URL_SERVICEDISCOVERY": endpoint,
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",  # else DiscoverInstances goes to `data-…`
        "AWS_ACCESS_KEY_ID": key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "FARGATE_AGENT_SOCKET": str(agent_socket),
    }


def _render_agent_key(key: Key) -> str:
    return (
        "# The agent's key for the control plane; made by `make install`.\n"
        f'access_key_id = "{key.access_key_id}"\n'
        f'secret_access_key = "{key.secret_access_key}"\n'
    )


def _ensure_file(file: Path, text: str, mode: int, group_id: int) -> bool:
    """Have a file with this text, mode and group, as a whole or not at all; False if it was so."""
    with suppress(FileNotFoundError):
        found = file.lstat()
        if (found.st_gid, found.st_mode) == (group_id, stat.S_IFREG | mode) and (
            file.read_text() == text
        ):
            return False
    replace_file(file, text, mode=mode, owner=(-1, group_id))
    return True
