"""The text of `/etc/resolv.conf`, `/etc/hosts` and `/etc/hostname` in a task's containers.

Pure but for `read_host_nameservers`, which is asked when the task's subnet names no servers.
"""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from fargate_agent.plan import DnsPlan, EniPlan, TaskPlan

HOST_RESOLVERS: Final = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""Where a host names its servers; the second is the real list behind a local stub.

Source: systemd-resolved(8), /ETC/RESOLV.CONF.
"""


def render_etc_files(task: TaskPlan) -> Mapping[str, str]:
    """Return the text of each file by its name; blocks."""
    fallback = () if task.dns.servers else read_host_nameservers()
    return {
        "resolv.conf": render_resolv_conf(task.dns, fallback),
        "hosts": render_hosts(task.dns, task.enis),
        "hostname": render_hostname(task.dns),
    }


def render_resolv_conf(dns: DnsPlan, fallback: Iterable[str] = ()) -> str:
    """Write `resolv.conf`; `fallback` are the servers of a task that names none.

    Source: amazon-ecs-agent, ecs-agent/netlib/platform/common_linux.go, `createResolvConf`.
    """
    lines = [f"nameserver {server}" for server in dns.servers or fallback]
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


def read_host_nameservers(files: Iterable[Path] = HOST_RESOLVERS) -> tuple[str, ...]:
    """Return the host's servers that can be reached from a task; empty if there are none.

    A server on the host's loopback can't: the task has a loopback of its own.
    """
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if servers := parse_nameservers(text):
            return servers
    return ()


def parse_nameservers(text: str) -> tuple[str, ...]:
    """Return the servers of a `resolv.conf` that are not on a loopback."""
    fields = [line.split() for line in text.splitlines()]
    servers = [field[1] for field in fields if len(field) > 1 and field[0] == "nameserver"]
    return tuple(server for server in servers if not _on_loopback(server))


def _on_loopback(server: str) -> bool:
    try:
        return ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return True
