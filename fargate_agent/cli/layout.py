"""Where `fargate up` keeps what: all of it below one state directory."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fargate_agent.cli.failure import CliError

SOCKET_PATH_BYTES: Final = 104
"""Longest path of a socket of containerd; Linux takes 107.

Source: containerd, pkg/sys/socket_unix.go, `CreateUnixSocket`.
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below one state directory, which is absolute."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held by the `fargate up` that runs here."""
        return self.root / "lock"

    @property
    def env(self) -> Path:
        """Shell file for clients; is there while the stack is ready."""
        return self.root / "env"

    @property
    def choices(self) -> Path:
        """What was chosen when the stack ran last."""
        return self.root / "choices.json"

    @property
    def logs(self) -> Path:
        """Output of the programs."""
        return self.root / "logs"

    @property
    def agent_socket(self) -> Path:
        """The agent's local socket."""
        return self.root / "run" / "agent.sock"

    @property
    def containerd_socket(self) -> Path:
        """Of the stack's own containerd, which adds `.ttrpc` for a second one."""
        return self.root / "run" / "containerd.sock"

    @property
    def containerd(self) -> Path:
        """Root, state and settings of the stack's own containerd."""
        return self.root / "containerd"

    @property
    def control_plane(self) -> Path:
        """State of the control plane."""
        return self.root / "control-plane"

    @property
    def agent(self) -> Path:
        """State of the agent."""
        return self.root / "agent"

    @property
    def netns(self) -> Path:
        """Where the network namespaces of tasks are mounted."""
        return self.root / "netns"

    def make(self) -> None:
        """Make the directories that aren't there.

        Raises:
            CliError: the path is too long for sockets.
            OSError: they can't be made.
        """
        longest = os.fsencode(self.containerd_socket.with_suffix(".sock.ttrpc"))
        if excess := max(0, len(longest) - SOCKET_PATH_BYTES):
            raise CliError(
                f"{self.root}: {excess} bytes too long: sockets below it may have paths of at most"
                f" {SOCKET_PATH_BYTES} bytes"
            )
        self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        run = self.agent_socket.parent
        for path in (run, self.logs, self.containerd, self.control_plane, self.agent):
            path.mkdir(mode=0o700, exist_ok=True)
        self.netns.mkdir(mode=0o755, exist_ok=True)
