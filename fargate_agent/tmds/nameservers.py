"""The name servers of a task whose subnet names none: those that its containers were given."""

from fargate_agent.network.dns import parse_nameservers, read_host_nameservers
from fargate_agent.plan import TaskPlan
from fargate_agent.runtime.spec import ETC_DIRECTORY


def read_nameservers(task: TaskPlan) -> tuple[str, ...]:
    """Read them from the task's own file, or from the host's while it isn't written; blocks."""
    try:
        text = (task.directory / ETC_DIRECTORY / "resolv.conf").read_text(encoding="utf-8")
    except OSError:
        return read_host_nameservers()
    return parse_nameservers(text)
