"""The packet filter, forwarding, and the DNS servers that tasks get."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.findings import Finding
from fargate_agent.network import nftables
from fargate_agent.network.dns import HOST_RESOLVERS, read_host_nameservers
from fargate_agent.network.netlink import NetlinkError
from fargate_agent.network.sysctl import METADATA_SETTINGS, TASK_SETTINGS

NO_WAY_OUT: Final = "tasks reach their own subnet, but no other network"

_UNUSED_TABLE: Final = "fargate-doctor"


def find_network_faults(root: Path) -> Iterator[Finding]:
    """Yield what keeps tasks from having a network, or from reaching other ones; blocks."""
    try:
        nftables.table_exists(_UNUSED_TABLE, 4)
    except (NetlinkError, OSError) as error:
        if os.geteuid() == 0:  # nobody else may ask
            yield Finding(
                what=f"addresses can't be translated: no nftables on this machine ({error})",
                effect=NO_WAY_OUT,
            )
    switch = root / "proc/sys/net/ipv4/ip_forward"
    if os.geteuid() == 0 and switch.exists() and not os.access(switch, os.W_OK):
        yield find_setting_fault(root)


def find_setting_fault(root: Path) -> Finding:
    """Return what tasks lack where /proc/sys is read-only; blocks.

    Their namespaces begin with the settings of the host. Those that a task needs otherwise can't be
    written then. If there is none, the host forwards nothing, and can't be made to.
    """
    for name, needed in {**TASK_SETTINGS, **METADATA_SETTINGS}.items():
        with suppress(OSError):  # an IP version that the kernel doesn't have
            found = (root / "proc/sys/net" / name).read_text().strip()
            if found != str(needed):
                setting = f"net.{name}".replace("/", ".")
                return Finding(
                    what=f"{setting} is {found}, not {needed}, and /proc/sys is read-only",
                    effect="no task starts",
                )
    return Finding(what="net.ipv4.ip_forward is 0, and /proc/sys is read-only", effect=NO_WAY_OUT)


def find_name_faults(files: tuple[Path, ...] = HOST_RESOLVERS) -> Iterator[Finding]:
    """Yield whether tasks get no DNS server from this machine; blocks."""
    if not read_host_nameservers(files):
        yield Finding(
            what=f"no DNS server that tasks can reach stands in {' or '.join(map(str, files))}",
            effect="tasks resolve no names, and pull from no registry that has one, unless their"
            " subnet has dns servers",
        )
