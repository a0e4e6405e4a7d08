"""Looks at everything, for an agent that runs and for `fargate-agent look` without one.

Nothing is changed, and the same machine gives the same findings in the same order.
"""

from collections.abc import Iterator
from pathlib import Path

from fargate_agent.findings import Finding
from fargate_agent.machine.kernel import find_cgroup_faults, find_kernel_faults, find_nfs_faults
from fargate_agent.machine.limits import find_process_faults, find_right_faults
from fargate_agent.machine.logins import find_login_faults
from fargate_agent.machine.network import find_name_faults, find_network_faults, find_plugin_faults
from fargate_agent.machine.packet_filter import find_filter_faults
from fargate_agent.machine.programs import find_mkfs_faults, find_program_faults
from fargate_agent.machine.storage import (
    find_room_faults,
    find_storage_faults,
    find_volume_faults,
)
from fargate_agent.runtime.cgroup import read_cgroups
from fargate_agent.settings import AgentSettings
from fargate_agent.volumes.room import Room


def look(settings: AgentSettings) -> tuple[Finding, ...]:
    """Return what this machine lacks for an agent with these settings, each thing once; blocks."""
    return tuple(dict.fromkeys(_look(settings, Path("/"))))


def _look(settings: AgentSettings, root: Path) -> Iterator[Finding]:
    yield from find_right_faults(settings.containerd_address)
    yield from find_kernel_faults(root, settings.snapshotter)
    yield from find_nfs_faults(root, settings.efs)
    cgroups = read_cgroups()
    yield from find_cgroup_faults(root, cgroups)
    yield from find_process_faults(root, cgroups)
    yield from find_program_faults(cgroups, settings.oci_runtime)
    yield from find_mkfs_faults()
    yield from find_network_faults(root)
    yield from find_filter_faults(settings.state_dir, settings.host_ports)
    yield from find_plugin_faults(settings.cni_conf_dir, settings.cni_bin_dirs)
    yield from find_name_faults()
    yield from find_volume_faults(root, required=settings.require_ephemeral_storage_limit)
    yield from find_login_faults(settings.registry_auth_file)
    yield from find_storage_faults(settings.state_dir)
    yield from find_room_faults(
        Room(
            settings.state_dir / "tasks",
            settings.ephemeral_storage,
            settings.ephemeral_storage_margin_mib,
        )
    )
