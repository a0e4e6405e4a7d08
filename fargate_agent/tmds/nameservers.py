"""The name servers of a task whose subnet names none: those that its containers were given."""

from typing import Final

from fargate_agent.network.dns import parse_nameservers, read_host_nameservers
from fargate_agent.plan import TaskPlan
from fargate_agent.runtime.spec import ETC_DIRECTORY

MAX_BYTES: Final = 64 * 1024
"""Of a file that a container may have written anything into."""
MAX_SERVERS: Final = 3
"""That a resolver takes of a file. Source: resolv.conf(5), `MAXNS`."""


def read_nameservers(task: TaskPlan) -> tuple[str, ...]:
    """Read them from the task's own file, or from the host's while it isn't written; blocks."""
    path = task.storage / ETC_DIRECTORY / "resolv.conf"
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_BYTES)
    except OSError:
        return read_host_nameservers()
    return parse_nameservers(text)[:MAX_SERVERS]
