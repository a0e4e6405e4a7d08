"""Which settings of the control plane can't work on this machine as it is now."""

import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from fargate_agent.aws.errors import RoleError
from fargate_agent.aws.machine_keys import SETTING, find_shared_file, read_machine_keys
from fargate_agent.controlplane.access.keys import read_keys
from fargate_agent.controlplane.errors import StartError
from fargate_agent.controlplane.settings import ControlPlaneSettings, read_what_is_right
from fargate_agent.files import find_obstacle
from fargate_agent.settings_file import SettingsError

Fault = tuple[str, str]
"""The name of a setting, and what is wrong with it."""


def check_settings(file: Path | None, listen: str | None) -> None:
    """Return if all will work that the settings ask for; blocks.

    Raises:
        StartError: something won't; names all of it.
    """
    try:
        reading = read_what_is_right(file, listen)
        reading.complete(find_faults(reading.settings))
    except SettingsError as error:
        raise StartError(str(error)) from error


def find_faults(settings: ControlPlaneSettings) -> Iterator[Fault]:
    """Yield every setting that can't work here; blocks."""
    if obstacle := find_obstacle(settings.state_dir):
        yield "state_dir", f"{obstacle} is not a directory"
    yield from _find_listen_faults(settings.listen)
    yield from _find_keys_faults(settings)
    yield from _find_role_faults(settings)
    if settings.events_file is None:
        return
    if settings.events_file.is_dir():
        yield "events_file", f"{settings.events_file} is a directory"
    elif not settings.events_file.parent.is_dir():
        yield "events_file", f"there is no directory {settings.events_file.parent}"


def _find_keys_faults(settings: ControlPlaneSettings) -> Iterator[Fault]:
    """A file that isn't there is made at the first start."""
    if settings.keys_file is not None and (obstacle := find_obstacle(settings.keys_file.parent)):
        yield "keys_file", f"{obstacle} is not a directory"
        return
    with suppress(PermissionError):  # somebody else than the service looks
        if not settings.keys_path.exists():
            return
        try:
            read_keys(settings.keys_path)
        except StartError as error:
            for line in str(error).splitlines():
                yield "keys_file", line


def _find_role_faults(settings: ControlPlaneSettings) -> Iterator[Fault]:
    """Roles are assumed with keys that the user of the control plane must be able to read."""
    file, now = settings.aws_credentials_file, datetime.now(UTC)
    if file is not None and not settings.is_local:
        try:
            read_machine_keys(file, now)
        except RoleError as error:
            yield SETTING, str(error).removeprefix(f"{SETTING} ")
        else:
            yield from _find_owner_fault(file, settings.state_dir)
    for role, local in settings.local_roles.items():
        if local.profile is None:
            continue
        found = file or find_shared_file(os.environ)
        name = SETTING if file else str(found)
        try:
            if found is None:
                raise RoleError(f"there is no credentials file: set {SETTING}")
            read_machine_keys(found, now, local.profile, name)
        except RoleError as error:
            yield "local_roles", f"{role}: profile {local.profile}: {error}"


def _find_owner_fault(file: Path, state_dir: Path) -> Iterator[Fault]:
    """Root can read what the service can't, whose user is the one that has the state."""
    if os.geteuid() != 0 or not state_dir.exists():
        return
    uid = state_dir.stat().st_uid
    if uid not in {0, file.stat().st_uid}:
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = str(uid)
        yield SETTING, f"can't be read by the control plane's user: chown {name} {file}"


def _find_listen_faults(listen: str) -> Iterator[Fault]:
    """The port may be in use: by the very control plane whose settings these are."""
    host = urlsplit(listen).hostname or ""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        yield "listen", "its host is neither an address nor a name that is known here"
        return
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as listener:
                listener.bind(address)
        except OSError as error:
            yield "listen", f"{address[0]} can't be listened at: {os.strerror(error.errno or 0)}"
