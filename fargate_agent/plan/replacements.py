"""What a task definition names and another thing stands for on this machine; pure."""

from collections.abc import Iterator
from typing import Final

from fargate_agent.plan.model import Replacement, Site
from fargate_agent.wire.messages import TaskMessage

LOCAL_LOGS: Final = "the copy of the output kept on this machine, shown by fargate logs"


def plan_replacements(message: TaskMessage, site: Site) -> tuple[Replacement, ...]:
    """Return all that is known before the start, each once."""
    found = [*_find_roles(message), *_find_logs(message, site)]
    return tuple(dict.fromkeys(found))


def _find_roles(message: TaskMessage) -> Iterator[Replacement]:
    for role in (message.role_credentials, message.execution_role_credentials):
        if role is not None and role.made_from is not None:
            yield Replacement(kind="role", what=role.role_arn, by=role.made_from)


def _find_logs(message: TaskMessage, site: Site) -> Iterator[Replacement]:
    """Name the log groups."""
    for container in message.containers if site.logs_are_local else ():
        log = container.log_configuration
        if log is not None and log.log_driver == "awslogs":
            group = log.options.get("awslogs-group", "awslogs")
            yield Replacement(kind="logs", what=group, by=LOCAL_LOGS)
