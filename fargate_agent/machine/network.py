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

NO_WAY_OUT: Final = "tasks reach their own subnet, but no other network"

_UNUSED_TABLE: Final = "fargate-doctor"


def find_network_faults(root: Path) -> Iterator[Finding]:
    """Yield what keeps tasks in veth subnets from reaching other networks; blocks."""
    try:
        nftables.table_exists(_UNUSED_TABLE, 4)
    except (NetlinkError, OSError) as error:
        if os.geteuid() == 0:  # nobody else may ask
            yield Finding(
                what=f"addresses can't be translated: no nftables on this machine ({error})",
                effect=NO_WAY_OUT,
            )
    switch = root / "proc/sys/net/ipv4/ip_forward"
    with suppress(OSError):
        is_off = switch.read_text().strip() == "0"
        if is_off and os.geteuid() == 0 and not os.access(switch, os.W_OK):
            yield Finding(
                what="net.ipv4.ip_forward is 0, and /proc/sys is read-only", effect=NO_WAY_OUT
            )


def find_name_faults(files: tuple[Path, ...] = HOST_RESOLVERS) -> Iterator[Finding]:
    """Yield whether tasks get no DNS server from this machine; blocks."""
    if not read_host_nameservers(files):
        yield Finding(
            what=f"no DNS server that tasks can reach stands in {' or '.join(map(str, files))}",
            effect="tasks resolve no names, and pull from no registry that has one, unless their"
            " subnet has dns servers",
        )
