"""Features of the kernel that tasks need, and its control groups."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.findings import Finding
from fargate_agent.network.faults.injector import NO_IMPAIRMENTS_EFFECT
from fargate_agent.network.faults.modules import MODULES as IMPAIRMENT_MODULES
from fargate_agent.runtime.cgroup import Cgroups
from fargate_agent.runtime.roots import OVERLAYFS
from fargate_agent.settings_efs import EfsFileSystem

NAMESPACES: Final = ("net", "mnt", "pid", "ipc", "uts", "cgroup")
"""Kinds of namespaces that containers have. Source: namespaces(7)."""

FEW_NAMESPACES: Final = 64

MODULES: Final = {
    "veth": "tasks in subnets of kind veth don't start",
    "bridge": "tasks in subnets of kind veth don't start",
    "macvlan": "tasks in subnets of kind macvlan don't start",
    "8021q": "tasks in subnets of kind vlan don't start",
    **dict.fromkeys(IMPAIRMENT_MODULES, NO_IMPAIRMENTS_EFFECT),
}
"""What a task's network is made of, and what is missing without it."""

_PROGRAM_PLACES: Final = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")


def find_kernel_faults(root: Path, snapshotter: str) -> Iterator[Finding]:
    """Yield the features that the kernel lacks; blocks."""
    if not (root / "proc/sys/kernel/seccomp").is_dir():
        yield Finding(what="the kernel has no seccomp", effect="no task starts")
    yield from _find_namespace_faults(root)
    for name, effect in MODULES.items():
        if _lacks_module(root, name):
            yield Finding(what=f"the kernel has no module {name}", effect=effect)
    if snapshotter != OVERLAYFS:
        yield Finding(
            what=f"the snapshotter is {snapshotter}, which keeps what containers write itself",
            effect="a task isn't kept to its ephemeral storage but for its volumes",
        )
    elif _lacks_file_system(root, "overlay"):
        yield Finding(
            what="the kernel has no overlayfs",
            effect="no container is made with the snapshotter overlayfs",
        )


def find_nfs_faults(root: Path, efs: Mapping[str, EfsFileSystem]) -> Iterator[Finding]:
    """Yield that the kernel has no NFS client if the setting `efs` names a server; blocks."""
    names = [name for name, mapped in efs.items() if mapped.server is not None]
    if names and _lacks_file_system(root, "nfs4", module="nfsv4"):
        yield Finding(
            what="the kernel has no NFS client",
            effect=f"tasks with volumes of {', '.join(names)} don't start",
        )
    over_tls = [name for name, mapped in efs.items() if mapped.tls]
    if over_tls and not any((root / place / "tlshd").exists() for place in _PROGRAM_PLACES):
        yield Finding(
            what="tlshd of the package ktls-utils is not installed",
            effect=f"tasks with volumes of {', '.join(over_tls)}, which use TLS, don't start",
        )


def _find_namespace_faults(root: Path) -> Iterator[Finding]:
    for name in NAMESPACES:
        most = _read_number(root / f"proc/sys/user/max_{name}_namespaces")
        if not (root / "proc/self/ns" / name).exists():
            yield Finding(what=f"the kernel has no {name} namespaces", effect="no task starts")
        elif most is not None and most < FEW_NAMESPACES:
            yield Finding(
                what=f"user.max_{name}_namespaces is {most}",
                effect=f"no more than {most} containers run at the same time",
            )


def find_cgroup_faults(root: Path, cgroups: Cgroups) -> Iterator[Finding]:
    """Yield what the control groups of this machine can't do; blocks."""
    for name in cgroups.missing_controllers():
        yield Finding(what=f"this host has no cgroup controller {name}", effect="no task starts")
    if "pids" not in cgroups.controllers:
        yield Finding(
            what="this host has no cgroup controller pids",
            effect="a task may start processes until the machine has no room for more",
        )
    tree = cgroups.controllers.get("memory")
    if tree is None or not _has_swap(root):
        return
    # the root of a v2 tree has no limits itself
    names = ["memory.memsw.limit_in_bytes"] if not cgroups.unified else ["*/memory.swap.max"]
    if not any(True for name in names for _ in tree.glob(name)):
        yield Finding(
            what="the kernel doesn't count swap (swapaccount=1 on its command line does)",
            effect="containers may swap beyond their memory",
        )


def _has_swap(root: Path) -> bool:
    with suppress(OSError):
        return len((root / "proc/swaps").read_text().splitlines()) > 1
    return False


def _lacks_file_system(root: Path, name: str, module: str = "") -> bool:
    with suppress(OSError):
        known = (line.split()[-1] for line in (root / "proc/filesystems").read_text().splitlines())
        return name not in known and _lacks_module(root, module or name)
    return False


def _lacks_module(root: Path, name: str) -> bool:
    """Whether the kernel's lists of modules are there, and none has this name."""
    if (root / "sys/module" / name).exists():
        return False
    modules = root / "lib/modules" / os.uname().release
    texts = []
    for listing in ("modules.builtin", "modules.dep"):
        with suppress(OSError):
            texts.append((modules / listing).read_text())
    return bool(texts) and not any(f"/{name}.ko" in text for text in texts)


def _read_number(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(file.read_text())
    return None
