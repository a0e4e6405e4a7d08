"""The packet filter, forwarding, and the DNS servers that tasks get."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from fargate_agent.findings import Finding
from fargate_agent.network.cni.conflist import list_conflists
from fargate_agent.network.cni.plugin import find_program
from fargate_agent.network.dns import RESOLV_CONF, read_nameservers
from fargate_agent.network.netlink import NetlinkError
from fargate_agent.network.nft.tables import read_tables
from fargate_agent.network.sysctl import METADATA_SETTINGS, TASK_SETTINGS

NO_WAY_OUT: Final = "tasks reach their own subnet, but no other network"

_IPV6_INITIAL: Final = {
    "forwarding": "0",
    "accept_redirects": "1",
    "accept_ra": "1",
    "disable_ipv6": "0",
}
"""Source: Linux, net/ipv6/addrconf.c, `ipv6_devconf`."""


def find_network_faults(root: Path) -> Iterator[Finding]:
    """Yield what keeps tasks from having a network, or from reaching other ones; blocks."""
    try:
        read_tables()
    except (NetlinkError, OSError) as error:
        if os.geteuid() == 0:  # nobody else may ask
            yield Finding(
                what=f"packets can't be filtered: no nftables on this machine ({error})",
                effect="no task with a routed interface starts",
            )
    switch = root / "proc/sys/net/ipv4/ip_forward"
    if os.geteuid() == 0 and switch.exists() and not os.access(switch, os.W_OK):
        yield find_setting_fault(root)


def find_plugin_faults(conf_dir: Path, bin_dirs: Sequence[Path]) -> Iterator[Finding]:
    """Yield what networks of CNI plugins lack; blocks."""
    for network in list_conflists(conf_dir):
        missing = [one.type for one in network.plugins if find_program(bin_dirs, one) is None]
        if missing:
            searched = ", ".join(map(str, bin_dirs))
            yield Finding(
                what=f"CNI network {network.name} of {conf_dir} needs {', '.join(missing)}, not"
                f" found in {searched}",
                effect="tasks in subnets of this network aren't placed here",
            )


def find_setting_fault(root: Path) -> Finding:
    """Return what tasks lack where /proc/sys is read-only; blocks.

    What a namespace begins with and a task needs otherwise can't be written then. If there is
    none, the host forwards nothing, and can't be made to.
    """
    for name, needed in {**TASK_SETTINGS, **METADATA_SETTINGS}.items():
        with suppress(OSError):  # an IP version that the kernel doesn't have
            found = _read_initial(root / "proc/sys/net", name)
            if found != str(needed):
                setting = f"net.{name}".replace("/", ".")
                return Finding(
                    what=f"{setting} is {found}, not {needed}, and /proc/sys is read-only",
                    effect="no task starts",
                )
    return Finding(what="net.ipv4.ip_forward is 0, and /proc/sys is read-only", effect=NO_WAY_OUT)


def _read_initial(settings: Path, name: str) -> str:
    """Return what a setting is in a new namespace: of IPv4 as on the host, of IPv6 the kernel's.

    Unless the host says otherwise; what `2` means for IPv4, and `3`, is left out.

    Source: Linux, Documentation/admin-guide/sysctl/net.rst, `devconf_inherit_init_net`.

    Raises:
        OSError: there is no such setting.
    """
    found = (settings / name).read_text().strip()
    inherits = settings / "core/devconf_inherit_init_net"
    if name.startswith("ipv6/") and not (
        inherits.exists() and inherits.read_text().strip() in ("1", "3")
    ):
        return _IPV6_INITIAL[name.rpartition("/")[2]]
    return found


def find_name_faults(file: Path = RESOLV_CONF) -> Iterator[Finding]:
    """Yield whether this machine has no DNS server to ask for tasks; blocks."""
    if not read_nameservers(file):
        yield Finding(
            what=f"no DNS server stands in {file}",
            effect="tasks resolve names of the VPC only, and pull from no registry that has another"
            " name, unless their subnet has dns servers",
        )
