"""The AppArmor profile of containers: is it loaded, and how it gets there. All functions block.

Where the kernel has no AppArmor, which is normal on many hosts, containers do without. Where it
has, and the profile isn't loaded, they do as well, and that is a finding.
"""

import subprocess
from pathlib import Path
from typing import Final

PROFILE: Final = "fargate-default"

FILE: Final = Path(__file__).with_name(PROFILE)

PARSER: Final = "apparmor_parser"

UNCONFINED: Final = (
    f"AppArmor is on, and its profile {PROFILE} isn't loaded",
    "containers run without it: `make install` and `fargate up` load it where apparmor_parser is",
)
"""What is missing, and the effect."""

_LOAD_DEADLINE_S: Final = 30.0


def is_on(root: Path = Path("/")) -> bool:
    """Whether the kernel of the host with this root directory confines programs by AppArmor.

    Source: Linux, security/apparmor/lsm.c, `enabled`.
    """
    try:
        return (root / "sys/module/apparmor/parameters/enabled").read_text().strip() == "Y"
    except OSError:
        return False


def find_profile(root: Path = Path("/")) -> str | None:
    """Return the profile that containers get on this host, if it is loaded.

    Source: Linux, security/apparmor/apparmorfs.c, `profiles`: a name and a mode a line.
    """
    if not is_on(root):
        return None
    try:
        lines = (root / "sys/kernel/security/apparmor/profiles").read_text().splitlines()
    except OSError:
        return None
    return PROFILE if any(line.rpartition(" (")[0] == PROFILE for line in lines) else None


def load() -> str | None:
    """Load the profile where AppArmor is on; return what kept it from that, for a person."""
    if not is_on() or find_profile():
        return None
    try:
        done = subprocess.run(  # noqa: S603 - a name of ours
            [PARSER, "--replace", "--skip-cache", str(FILE)],
            capture_output=True,
            text=True,
            timeout=_LOAD_DEADLINE_S,
            check=False,
        )
    except FileNotFoundError:
        return f"there is no {PARSER}: apt-get install apparmor"
    except (OSError, subprocess.SubprocessError) as error:
        return f"{PARSER}: {error}"
    return f"{PARSER}: {done.stderr.strip()}" if done.returncode else None
