"""The text of `/etc/resolv.conf`, `/etc/hosts` and `/etc/hostname` in a task's containers; pure.

And which name servers this machine has: the resolver of the VPC asks these.
"""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from fargate_agent.plan import DnsPlan, EniPlan, TaskPlan

RESOLV_CONF: Final = Path("/etc/resolv.conf")


def render_etc_files(task: TaskPlan) -> Mapping[str, str]:
    """Return the text of each file by its name."""
    return {
        "resolv.conf": render_resolv_conf(task.dns),
        "hosts": render_hosts(task.dns, task.enis),
        "hostname": render_hostname(task.dns),
    }


def render_resolv_conf(dns: DnsPlan) -> str:
    """Write `resolv.conf`.

    Source: amazon-ecs-agent, ecs-agent/netlib/platform/common_linux.go, `createResolvConf`.
    """
    lines = [f"nameserver {server}" for server in dns.servers]
    if dns.search:
        lines.append(f"search {' '.join(dns.search)}")
    return "".join(f"{line}\n" for line in lines)


def render_hosts(dns: DnsPlan, enis: Iterable[EniPlan]) -> str:
    """Write `hosts`: the loopback, and the task's own name at its primary address.

    Source: amazon-ecs-agent, ecs-agent/netlib/platform/common_linux.go, `createHostsFile`.
    """
    own = "".join(f"{eni.address.ip} {dns.hostname}\n" for eni in enis if eni.primary)
    return f"127.0.0.1 localhost\n{own}"


def render_hostname(dns: DnsPlan) -> str:
    """Write `hostname`."""
    return f"{dns.hostname}\n"


def read_nameservers(file: Path = RESOLV_CONF) -> tuple[str, ...]:
    """Return the name servers of this machine; empty if it has none. Blocks.

    One on the loopback counts: the resolver of the VPC asks from the machine itself.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    fields = [line.split() for line in text.splitlines()]
    named = [field[1] for field in fields if len(field) > 1 and field[0] == "nameserver"]
    return tuple(server for server in named if _is_address(server))


def _is_address(server: str) -> bool:
    """Whether it is an address, of IPv6 perhaps with a zone: `fe80::1%eth0`."""
    try:
        ip_address(server.partition("%")[0])
    except ValueError:
        return False
    return True
