"""Upgrade, uninstall and purge: what stays, and that nothing else does."""

import json
import re
from typing import Final

from tests.vm.lab import Lab, Progress, require
from tests.vm.project import NEXT_VERSION
from tests.vm.tasks import STEADY, require_steady

INSTALL_TIMEOUT_S: Final = 900

_OURS: Final = " | grep -e fargate -e ecs || true"
"""Of what every boot has anew."""

_LOOKS: Final = {
    "files": "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /root"
    " -o -path /var/log -o -path /var/lib/systemd -o -path /var/lib/containerd"
    " -o -path /var/lib/apt -o -path /var/cache/apt -o -path /var/lib/dpkg -o -path /var/backups"
    " -o -path /var/tmp"
    " -o -name __pycache__ \\) -prune -o -print",
    "files below /run": f"find /run -xdev{_OURS}",
    "users": "cut -d: -f1 /etc/passwd",
    "groups": "cut -d: -f1 /etc/group",
    "interfaces": "ls /sys/class/net",
    "nftables": "nft list tables 2>/dev/null || true",
    "routes": "ip route",
    "mounts": f"findmnt -rno TARGET{_OURS}",
    "control groups": f"find /sys/fs/cgroup -type d{_OURS}",
    "unit files": "systemctl list-unit-files --plain --no-legend | cut -d' ' -f1",
    "units": f"systemctl list-units --all --plain --no-legend{_OURS}",
    "abstract sockets": f"cut -d@ -f2- /proc/net/unix{_OURS}",
    "processes": f"ps -eo args={_OURS}",
    "containerd's containers and leases": "ctr -n fargate containers ls -q; "
    "ctr -n fargate leases ls -q",
    "containerd's images": "ctr -n fargate images ls -q; ctr -n fargate snapshots ls | tail -n +2",
    "containerd's namespaces": "ctr namespaces ls -q",
}
"""What is looked at before the product came and after it has gone."""

_STATE: Final = ("/var/lib/fargate-agent", "/var/lib/fargate-control-plane")
_KEYS: Final = ("/etc/fargate/agent-key.toml", "/etc/fargate/env")
_EDITED: Final = ("/etc/fargate/agent.toml", "/etc/fargate/control-plane.toml")
_KEPT: Final = {
    "files": f"/etc/fargate|{'|'.join((*_KEYS, *_EDITED))}|({'|'.join(_STATE)})(/.*)?",
    "files below /run": "/run/containerd/(io.containerd.runtime.v2.task|runc)/fargate",
    "users": "fargate-control-plane",
    "groups": "fargate|fargate-control-plane",
    "containerd's images": r"\S+:\S+|sha256:.* Committed *|fargate-view sha256:.* View *",
    "containerd's namespaces": "fargate",
}
"""What `make uninstall` leaves, as docs/install.md says; below /run it is containerd's own."""


def look(lab: Lab) -> dict[str, set[str]]:
    """Return what the machine holds, by kind."""
    return {what: set(lab.sh(command).splitlines()) for what, command in _LOOKS.items()}


def install(lab: Lab, progress: Progress) -> None:
    """Install the checkout, as docs/install.md does."""
    with progress.check("make install"):
        lab.sh("make -C /root/main install", INSTALL_TIMEOUT_S)


def uninstall(lab: Lab, progress: Progress) -> None:
    """Take back what docs/install.md says."""
    with progress.check("make uninstall"):
        lab.sh("make -C /root/main uninstall", INSTALL_TIMEOUT_S)


def purge(lab: Lab, progress: Progress) -> None:
    """Take all back at once, without `make uninstall` first."""
    with progress.check("make purge"):
        lab.sh("make -C /root/main purge", INSTALL_TIMEOUT_S)


def check_uninstalled(lab: Lab, progress: Progress, before: dict[str, set[str]]) -> None:
    """State, keys, edited settings, the user, the group and images are there; nothing else is."""
    with progress.check("what a next make install goes on with is there, and nothing else"):
        after = look(lab)
        more = {what: after[what] - known for what, known in before.items()}
        kept = more["files"] | more["users"] | more["groups"]
        gone = {*_STATE, *_KEYS, *_EDITED, "fargate", "fargate-control-plane"} - kept
        require(not gone and more["containerd's images"], f"not kept: {gone or 'images'}")
        changes = {
            what: {
                "more": sorted(one for one in found if not _is_kept(what, one)),
                "less": sorted(before[what] - after[what]),
            }
            for what, found in more.items()
        }
        _require_none(changes)


def _is_kept(what: str, one: str) -> bool:
    return bool(re.fullmatch(_KEPT.get(what, ""), one))


def bring_next_version(lab: Lab) -> None:
    """Put the next version of the checkout where the first one was."""
    lab.sh("rm -r /root/main && mv /root/next /root/main")


def check_upgraded(lab: Lab, progress: Progress) -> None:
    """The next version has taken over the tasks of the one before."""
    with progress.check("the next version runs, and the task goes on") as note:
        said = lab.sh("fargate --version")
        note(said)
        require(NEXT_VERSION in said, f"still {said}")
        require_steady(lab)
        status = lab.describe(lab.ids[STEADY])["lastStatus"]
        require(status == "RUNNING", f"to the control plane the task is {status}")


def check_clean(lab: Lab, progress: Progress, before: dict[str, set[str]]) -> None:
    """The machine holds what it held before the product came."""
    with progress.check("the machine is as it was before"):
        after = look(lab)
        _require_none(
            {
                what: {"more": sorted(after[what] - known), "less": sorted(known - after[what])}
                for what, known in before.items()
            }
        )


def _require_none(changes: dict[str, dict[str, list[str]]]) -> None:
    found = {what: change for what, change in changes.items() if any(change.values())}
    require(not found, json.dumps(found, indent=1)[:4000])
