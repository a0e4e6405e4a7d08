"""Rules about what a container asks of the Linux kernel."""

from typing import Final

from fargate_agent.controlplane.errors import client_error
from fargate_agent.controlplane.rules.draft import Draft
from fargate_agent.controlplane.validate import Json
from fargate_agent.wire.container_paths import find_path_fault
from fargate_agent.wire.system_controls import is_system_control

MAX_SWAPPINESS: Final = 100
"""Source: ECS API, LinuxParameters.swappiness."""

TMPFS_OPTIONS: Final = frozenset(
    """
    defaults ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand
    atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime
    bind rbind unbindable runbindable private rprivate shared rshared slave rslave
    mode uid gid nr_inodes nr_blocks mpol
    """.split()  # noqa: SIM905 - a list literal would be forty lines
)
"""Source: ECS API, Tmpfs.mountOptions."""


def check_containers(draft: Draft) -> None:
    """Raise if a container's limits or Linux parameters make no sense."""
    for container in draft.containers:
        for ulimit in container.get("ulimits", []):
            _check_ulimit(ulimit)
        for control in container.get("systemControls", []):
            _check_system_control(container["name"], control)
        _check_parameters(container)


def _check_system_control(container: str, control: Json) -> None:
    namespace = control.get("namespace", "")
    if not is_system_control(namespace):
        fault = f"'{namespace}' is no parameter of a container"
    elif not control.get("value"):
        fault = f"'{namespace}' has no value"
    else:
        return
    raise client_error(  # unverified
        f"Invalid 'systemControls' setting for container '{container}': {fault}."
    )


def _check_ulimit(ulimit: Json) -> None:
    soft, hard = ulimit["softLimit"], ulimit["hardLimit"]
    # -1 means without limit, as for Docker
    if hard != -1 and (soft > hard or soft == -1):
        raise client_error(f"Soft limit exceeds hard limit for ulimit {ulimit['name']}")


def _check_parameters(container: Json) -> None:
    parameters = container.get("linuxParameters", {})
    for tmpfs in parameters.get("tmpfs", []):
        named = {option.partition("=")[0] for option in tmpfs.get("mountOptions", [])}
        is_wrong = find_path_fault(tmpfs["containerPath"]) is not None
        if tmpfs["size"] <= 0 or is_wrong or not named <= TMPFS_OPTIONS:  # unverified
            raise client_error(f"Invalid 'tmpfs' setting for container '{container['name']}'.")
    for member, high in (
        ("maxSwap", None),
        ("swappiness", MAX_SWAPPINESS),
        ("sharedMemorySize", None),
    ):
        value = parameters.get(member, 0)
        if value < 0 or (high is not None and value > high):  # unverified
            raise client_error(f"Invalid '{member}' setting for container '{container['name']}'.")
