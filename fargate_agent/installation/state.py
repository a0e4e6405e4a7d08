"""State that settings put elsewhere than below /var/lib, where systemd/install removes it."""

from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.acs.session import ARN_FILE
from fargate_agent.controlplane.settings import ControlPlaneSettings
from fargate_agent.findings import FILE as FINDINGS_FILE
from fargate_agent.image.registry.kept_logins import FILE as LOGINS_FILE
from fargate_agent.installation.leftovers import Say
from fargate_agent.reserve import FILE as RESERVE_FILE
from fargate_agent.secrets.local_store import FILE as SECRETS_FILE
from fargate_agent.secrets.local_store import KEY_FILE as SECRETS_KEY_FILE
from fargate_agent.settings import AgentSettings
from fargate_agent.trees import remove_or_empty
from fargate_agent.volumes.mounts import list_mounts

AGENT_STATE_DIR: Final[Path] = AgentSettings.model_fields["state_dir"].default
CONTROL_PLANE_STATE_DIR: Final[Path] = ControlPlaneSettings.model_fields["state_dir"].default

_AGENTS: Final = frozenset(
    {ARN_FILE, FINDINGS_FILE, LOGINS_FILE, RESERVE_FILE, SECRETS_FILE, SECRETS_KEY_FILE}
    | {"ebs", "efs", "lock", "logs", "records", "spool", "tasks", "volumes"}
)
"""All that an agent makes in its state directory. Source: composition.py, daemon.py, plan/,
preconditions.py."""


def remove_agent_state(settings: AgentSettings, say: Say) -> None:
    """Remove the agent's state directory if it is one and holds nothing else, or say that it stays.

    The default one isn't looked at. The directory of the loggers' socket goes too.
    """
    with suppress(OSError):  # it isn't there, or has what isn't ours
        settings.logger_socket.unlink(missing_ok=True)
        settings.logger_socket.parent.rmdir()
    directory = (Path("/") / settings.state_dir).resolve()  # a service's directory is the root
    if directory == AGENT_STATE_DIR or not directory.is_dir():
        return
    names = {path.name for path in directory.iterdir()}
    if strange := names - _AGENTS:
        say(f"state of the agent stays in {directory}: {min(strange)} is not the agent's")
    elif not _is_marked(directory):
        say(f"state of the agent stays in {directory}: it does not look like an agent's")
    elif mounts := list_mounts(directory):
        say(f"state of the agent stays in {directory}: {mounts[0].mountpoint} is mounted")
    else:
        try:
            remove_or_empty(directory)
            say(f"removed {directory}")
        except OSError as error:
            say(f"{directory} stays: {error}")


def _is_marked(directory: Path) -> bool:
    """Every agent that was registered once has this file."""
    mark = directory / ARN_FILE
    return mark.is_file() and mark.read_text(errors="replace").startswith("arn:aws")


def tell_control_plane_state(settings: ControlPlaneSettings, say: Say) -> None:
    """Say which state of the control plane stays, because it is somewhere else."""
    places = {
        "state": settings.state_dir,
        "keys": settings.keys_path,
        "events": settings.events_file,
    }
    for what, path in places.items():
        if path is not None and not path.is_relative_to(CONTROL_PLANE_STATE_DIR):
            say(f"{what} of the control plane: {path} stays")
    if settings.database is not None:
        say("state of the control plane stays in the database that its settings name")
