"""ARNs of ECS, taken apart. A task id becomes part of paths, so its characters are checked here."""

import re
from typing import Final, NamedTuple

CLUSTERS: Final = "CLUSTERS"
"""Name of the resource, a set of names, that says whose tasks an agent takes. Not in ECS: ours."""
EVERY_CLUSTER: Final = "*"
"""In that set: the agent takes those of every cluster."""

_TASK_ARN: Final = re.compile(
    r"arn:aws[a-z-]*:ecs:[a-z0-9-]+:\d{12}:task/(?P<cluster>[A-Za-z0-9_-]{1,255})/(?P<id>[0-9a-f-]{32,36})"
)
"""Task ids are 32 to 36 characters long. Source: `taskId length should be one of [32,36]`, ECS."""


class TaskArn(NamedTuple):
    """The two parts of a task ARN that names are made from."""

    cluster: str
    """Short name of the cluster."""
    task_id: str


def parse_task_arn(arn: str) -> TaskArn:
    """Take a task ARN apart.

    Raises:
        ValueError: it is not an ARN of a task, or the id has characters that ECS never uses.

    Example:
        >>> parse_task_arn("arn:aws:ecs:us-east-1:000000000000:task/default/" + "0" * 32).cluster
        'default'
    """
    match = _TASK_ARN.fullmatch(arn)
    if match is None:
        raise ValueError(f"not the ARN of a task: {arn!r}")
    return TaskArn(match["cluster"], match["id"])
