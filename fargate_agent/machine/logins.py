"""Files of passwords that too many can read."""

import stat
from collections.abc import Iterator
from pathlib import Path

from fargate_agent.findings import Finding


def find_login_faults(auth_file: Path | None) -> Iterator[Finding]:
    """Yield whether others than its owner can read the file of registry credentials; blocks."""
    if auth_file is None:
        return
    try:
        mode = stat.S_IMODE(auth_file.stat().st_mode)
    except OSError:
        return  # `--check` says so
    if mode & 0o077:
        yield Finding(
            what=f"registry_auth_file {auth_file} has mode {mode:04o}",
            effect="other users of this machine can read or change the passwords of registries: "
            f"chmod 600 {auth_file}",
        )
