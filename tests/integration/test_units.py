"""The systemd units: well-formed, and no more exposed than `docs/services.md` says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

CHECKOUT: Final = Path(__file__).resolve().parents[2]
UNITS: Final = ("fargate-agent.service", "fargate-control-plane.service", "ecstasks.slice")
SERVICES: Final = UNITS[:2]
NEWER: Final = ("RestartSteps", "RestartMaxDelaySec")
"""Settings that systemd 252 ignores with a word. Source: systemd, NEWS of version 254."""

ANALYZE: Final = shutil.which("systemd-analyze")

pytestmark = pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")


def analyze(*arguments: str) -> str:
    assert ANALYZE is not None
    done = subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def settings_of(unit: str) -> list[tuple[str, str]]:
    """Every setting with its value, in order."""
    lines = (CHECKOUT / "systemd" / unit).read_text().splitlines()
    return [
        (name, value)
        for name, equals, value in (line.partition("=") for line in lines)
        if equals
        if not name.startswith("#")
    ]


def values(unit: str, name: str) -> list[str]:
    return [value for found, value in settings_of(unit) if found == name]


def score_in_docs(unit: str) -> float:
    text = (CHECKOUT / "docs" / "services.md").read_text()
    found = re.search(rf"\| `{re.escape(unit)}` \| ([\d.]+) ", text)
    assert found, f"docs/services.md doesn't say how exposed {unit} is"
    return float(found[1])


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    for unit in UNITS:
        text = (CHECKOUT / "systemd" / unit).read_text()
        # The programs are somewhere else here than where they are installed.
        installed = re.sub(r"/usr/local/bin/(fargate-\S+)", sys.executable, text)
        (tmp_path / unit).write_text(installed)

    said = analyze("verify", "--man=no", *(str(tmp_path / unit) for unit in UNITS))

    complaints = [
        line
        for line in said.splitlines()
        if str(tmp_path) in line and not any(f"'{name}'" in line for name in NEWER)
    ]
    assert complaints == []


@pytest.mark.parametrize("unit", SERVICES)
def test_exposure_is_what_the_docs_say(unit: str) -> None:
    said = analyze("security", "--offline=yes", str(CHECKOUT / "systemd" / unit))
    found = re.search(r"exposure level for \S+: ([\d.]+)", said)

    assert found, said
    assert float(found[1]) <= score_in_docs(unit)


@pytest.mark.parametrize("unit", SERVICES)
def test_wrong_settings_are_not_tried_again(unit: str) -> None:
    assert values(unit, "Restart") == ["always"]
    assert values(unit, "RestartPreventExitStatus") == ["78"]
    assert values(unit, "StartLimitIntervalSec") == ["0"]


def test_agent_has_no_mount_namespace_of_its_own() -> None:
    """Mounts don't get out of one, and containerd has to see the network namespaces of tasks."""
    private = re.compile(
        r"(Private(Tmp|Devices|Mounts|IPC|Network|Users)|ProtectSystem|ProtectHome|ProtectProc"
        r"|ProcSubset|ProtectKernel\w+|ProtectControlGroups|ReadWritePaths|ReadOnlyPaths"
        r"|InaccessiblePaths|ExecPaths|NoExecPaths|BindPaths|BindReadOnlyPaths"
        r"|TemporaryFileSystem|MountFlags|Root\w+|DynamicUser|ExtensionImages)$"
    )

    assert [name for name, _ in settings_of("fargate-agent.service") if private.match(name)] == []


def test_each_capability_of_the_agent_has_its_reason() -> None:
    text = (CHECKOUT / "systemd" / "fargate-agent.service").read_text()
    kept = " ".join(values("fargate-agent.service", "CapabilityBoundingSet")).split()
    reasons = {
        name
        for names in re.findall(r"^# ([A-Z_, ]+): ", text, re.MULTILINE)
        for name in names.split(", ")
    }

    assert kept
    assert {name.removeprefix("CAP_") for name in kept} == reasons


def test_agent_can_start_programs_as_other_users() -> None:
    """Credential programs by Python's subprocess, loggers by themselves."""
    calls = {"setgroups", "setregid", "setreuid", "setresgid", "setresuid"}
    kept = " ".join(values("fargate-agent.service", "CapabilityBoundingSet")).split()

    assert calls - find_allowed_calls("fargate-agent.service") == set()
    assert {"CAP_SETUID", "CAP_SETGID"} <= set(kept)


def test_agent_can_bound_the_memory_of_processes() -> None:
    """As glibc does it for setrlimit(3)."""
    assert "prlimit64" in find_allowed_calls("fargate-agent.service")


def test_agent_can_mount_files_and_no_other_device() -> None:
    calls = {"fsopen", "fsconfig", "fsmount", "move_mount", "umount2", "ioctl", "linkat"}
    calls |= {"fallocate", "copy_file_range", "statfs", "ftruncate"}

    assert calls - find_allowed_calls("fargate-agent.service") == set()
    assert values("fargate-agent.service", "DevicePolicy") == ["closed"]
    allowed = ["/dev/loop-control rw", "block-loop rw"]
    assert values("fargate-agent.service", "DeviceAllow") == allowed


def find_allowed_calls(unit: str) -> set[str]:
    allowed: set[str] = set()
    for entry in values(unit, "SystemCallFilter"):
        names = entry.removeprefix("~").split()
        found = {call for name in names for call in expand(name)}
        allowed = allowed - found if entry.startswith("~") else allowed | found
    return allowed


def expand(name: str) -> set[str]:
    """Return the system calls of a group, and of the groups in it; or the only one."""
    if not name.startswith("@"):
        return {name}
    lines = [line.strip() for line in analyze("syscall-filter", name).splitlines()[1:]]
    return {call for line in lines if line and line[0] != "#" for call in expand(line)}


def test_control_plane_has_no_rights() -> None:
    assert values("fargate-control-plane.service", "CapabilityBoundingSet") == [""]
    assert values("fargate-control-plane.service", "AmbientCapabilities") == []
    assert values("fargate-control-plane.service", "User") == ["fargate-control-plane"]
