"""What a person reads when a command can't do its work."""


class CliError(Exception):
    """A command failed. The text is one line that names what and where; `main` prints it."""


class RefusedError(CliError):
    """The control plane says that the request itself is wrong."""


class UnreachableError(CliError):
    """Nothing answers where the control plane or the agent should be."""


class NotKnownError(CliError):
    """The agent or the control plane doesn't know what was asked for."""
