"""Our filter of system calls against the one that Debian ships for podman."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from fargate_agent.runtime.host import DEFAULT_CAPABILITIES
from fargate_agent.runtime.seccomp import render_seccomp
from tests.fixtures.programs import leave_out

DEBIANS: Final = Path("/usr/share/containers/seccomp.json")
"""Of the package golang-github-containers-common."""

DEFAULT: Final = frozenset(f"CAP_{name}" for name in DEFAULT_CAPABILITIES)
ALLOW: Final = "SCMP_ACT_ALLOW"

ONLY_THEIRS: Final[Mapping[str, str]] = {
    "makes or changes namespaces and mounts; podman relies on capabilities alone": (
        "clone3 fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root "
        "setns umount umount2 unshare"
    ),
    "the kernel's keyrings know no namespace": "keyctl",
    "memory policy of NUMA machines; ours needs CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy",
    "the kernel's log and the machine's power; ours needs the capability": "reboot syslog",
    "ancient calls of 32-bit programs, or no calls at all": (
        "readdir sigaction signal sigpending sigsuspend syscall timerfd"
    ),
}
"""Allowed by Debian's, and the reason why not by ours."""

ONLY_OURS: Final[Mapping[str, str]] = {
    "younger than Debian's list, and harmless like their elder kin": (
        "cachestat fchmodat2 futex_requeue futex_wait futex_waitv futex_wake getxattrat "
        "io_pgetevents_time64 listmount listxattrat map_shadow_stack mseal removexattrat "
        "setxattrat statmount uretprobe"
    ),
    "ordinary input and output, which Docker allows and databases use": "io_pgetevents vmsplice",
}
"""Allowed by ours, and the reason why."""

OTHER_ARGUMENTS: Final[Mapping[str, str]] = {
    "clone": "ours may not make namespaces by it",
    "socket": "ours names the families that Fargate has; Debian's only refuses the audit protocol",
}
"""Allowed by both, but not with the same arguments."""

Rules = dict[str, list[tuple[str, int | None, tuple[tuple[int, int, str], ...]]]]


def ours(architecture: str, capabilities: frozenset[str]) -> Rules:
    rules: Rules = {}
    profile: Any = render_seccomp(architecture, capabilities)
    for rule in profile["syscalls"]:
        _add(rules, rule)
    return rules


def debians(architecture: str, capabilities: frozenset[str]) -> Rules:
    if not DEBIANS.exists():
        leave_out(f"{DEBIANS} is not there")
    rules: Rules = {}
    for rule in json.loads(DEBIANS.read_text())["syscalls"]:
        includes, excludes = rule["includes"], rule["excludes"]
        if (
            architecture in includes.get("arches", [architecture])
            and capabilities >= set(includes.get("caps", []))
            and not capabilities & set(excludes.get("caps", []))
        ):
            _add(rules, rule)
    return rules


def _add(rules: Rules, rule: dict[str, Any]) -> None:
    arguments = tuple((a["index"], a["value"], a["op"]) for a in rule.get("args") or [])
    for name in rule["names"]:
        rules.setdefault(name, []).append((rule["action"], rule.get("errnoRet"), arguments))


def allowed(rules: Rules) -> set[str]:
    return {name for name, found in rules.items() if any(rule[0] == ALLOW for rule in found)}


def names(reasons: Mapping[str, str]) -> set[str]:
    return {name for listed in reasons.values() for name in listed.split()}


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_every_difference_from_debians_filter_has_a_reason(architecture: str) -> None:
    mine, theirs = ours(architecture, DEFAULT), debians(architecture, DEFAULT)

    both = allowed(mine) & allowed(theirs)
    assert allowed(theirs) - both == names(ONLY_THEIRS) | {"pidfd_getfd"}  # ours needs SYS_PTRACE
    assert allowed(mine) - both == names(ONLY_OURS)
    assert {n for n in both if sorted(mine[n]) != sorted(theirs[n])} == OTHER_ARGUMENTS.keys()


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        ("CAP_SYS_PTRACE", "pidfd_getfd"),
        ("CAP_SYS_PTRACE", "kcmp"),
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYS_CHROOT", "chroot"),
    ],
)
def test_a_call_comes_with_its_capability(capability: str, call: str) -> None:
    without, with_it = DEFAULT - {capability}, DEFAULT | {capability}

    assert call not in allowed(ours("amd64", without))
    assert call in allowed(ours("amd64", with_it))


def test_clone3_does_not_exist_so_that_libraries_use_clone() -> None:
    assert ours("amd64", DEFAULT)["clone3"] == [("SCMP_ACT_ERRNO", 38, ())]


def test_clone_may_not_make_namespaces() -> None:
    not_in_flags = (0, 0x7E020000, "SCMP_CMP_MASKED_EQ")

    assert ours("amd64", DEFAULT)["clone"] == [(ALLOW, None, (not_in_flags,))]


@pytest.mark.parametrize(
    ("family", "open_to_containers"),
    [
        pytest.param(2, True, id="IPv4"),
        pytest.param(10, True, id="IPv6"),
        pytest.param(16, True, id="netlink"),
        pytest.param(17, True, id="packet"),
        pytest.param(38, False, id="kernel cryptography"),
        pytest.param(40, False, id="virtual machine"),
        pytest.param(99, False, id="not known yet"),
    ],
)
def test_socket_families_are_chosen(family: int, open_to_containers: bool) -> None:
    rules = [arguments[0] for _, _, arguments in ours("amd64", DEFAULT)["socket"]]

    passed = [
        rule
        for rule in rules
        if (rule[2] == "SCMP_CMP_LT" and family < rule[1])
        or (rule[2] == "SCMP_CMP_EQ" and family == rule[1])
    ]
    assert bool(passed) == open_to_containers


def test_what_is_not_named_is_not_permitted() -> None:
    profile = render_seccomp("amd64", DEFAULT)

    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert profile["defaultErrnoRet"] == 1
    assert not {"io_uring_setup", "keyctl", "bpf", "userfaultfd"} & allowed(ours("amd64", DEFAULT))
