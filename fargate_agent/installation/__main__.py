"""`python -m fargate_agent.installation VERB`, as root."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

from fargate_agent.cli.failure import CliError
from fargate_agent.controlplane.errors import StartError
from fargate_agent.controlplane.settings import read_settings
from fargate_agent.installation.first_keys import write_client_files
from fargate_agent.settings import AgentSettings, read_agent_settings
from fargate_agent.settings_file import SettingsError

SETTINGS: Final = Path("/etc/fargate")
_VERBS: Final = {
    "keys": "hand the control plane's keys to the agent and to the command line",
    "drain": "stop the tasks of this machine",
    "sweep": "take back what a stopped agent left in containerd and in the kernel",
    "purge": "remove all images, too, and state that is not below /var/lib",
}


def main() -> None:
    """Do what was asked for; what goes wrong is said in one line."""
    lines = [f"{verb}: {what}" for verb, what in _VERBS.items()]
    parser = argparse.ArgumentParser(prog="installation", description="; ".join(lines))
    parser.add_argument("verb", choices=_VERBS)
    verb = parser.parse_args().verb
    try:
        _run(verb)
    except (CliError, StartError, SettingsError, OSError) as error:
        sys.exit(f"{verb}: {error}")


def _run(verb: str) -> None:
    agent = _read_agent_settings(verb)
    if verb == "keys":
        for file in write_client_files(SETTINGS, read_settings(None), agent.socket):
            _say(f"wrote {file}")
        return
    # the agent's modules: many, slow to import
    from fargate_agent.installation import leftovers, state

    try:
        match verb:
            case "drain":
                asyncio.run(leftovers.stop_tasks(agent.socket, _say))
            case "sweep":
                asyncio.run(leftovers.sweep_machine(agent, _say))
            case _:
                control_plane = read_settings(None)
                asyncio.run(leftovers.purge_namespace(agent, _say))
                state.remove_agent_state(agent, _say)
                state.tell_control_plane_state(control_plane, _say)
    except leftovers.FAILURES as error:
        raise CliError(str(error)) from error


def _read_agent_settings(verb: str) -> AgentSettings:
    """Read the settings; if they are wrong, what an agent leaves by default is swept all the same.

    Raises:
        SettingsError: they are wrong.
    """
    try:
        return read_agent_settings(SETTINGS / "agent.toml").complete()
    except SettingsError as error:
        if verb != "sweep":
            raise
        _say(f"{error}\nsweeping with the default settings")
        return AgentSettings()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
